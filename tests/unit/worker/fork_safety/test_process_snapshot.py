"""What exists in a process afterwards, in this one: threads, files, holders of objects."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from forkserver.worker.fork_safety import process_snapshot, verdict
from forkserver.worker.fork_safety.import_watch import ImportWatch, Started
from forkserver.worker.fork_safety.process_snapshot import ProcessSnapshot

HELD = random.SystemRandom()


def test_what_a_request_leaves_open_is_told(tmp_path: Path) -> None:
    before = ProcessSnapshot.take()
    assert verdict.kept(before) == ""
    random.random()
    assert verdict.kept(before) == "", "a fork seeds that anew"
    with open(tmp_path / "out", "w"):
        assert verdict.kept(before) == f"file {tmp_path}/out, open for writing"


def test_an_object_without_a_place_is_told_by_its_name() -> None:
    assert process_snapshot._holder(HELD) == f"{__name__}.HELD"
    assert process_snapshot._holder(object()) == ""


def test_a_native_thread_is_told_by_the_extension_that_was_being_loaded() -> None:
    watch = ImportWatch()
    assert process_snapshot._loaded_by(watch, 0) == ""
    threads = len(os.listdir("/proc/self/task"))
    watch.native_threads = [("a", threads - 1), ("b", threads - 1), ("c", threads)]
    assert process_snapshot._loaded_by(watch, 0) == "started by b or what it loads"


@pytest.mark.parametrize("pid", [0, -1])
def test_a_process_that_has_ended_has_no_command(pid: int) -> None:
    assert process_snapshot._command(pid) == ()


def test_a_thread_that_has_ended_has_no_name() -> None:
    assert process_snapshot._thread_name(0) == ""
    assert process_snapshot._thread_name(os.getpid()) == "native thread"


def test_a_child_that_is_at_the_end_of_its_exec_has_the_place_of_one_that_was_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel shows no command line of it yet."""
    watch, before = ImportWatch(), ProcessSnapshot.take()
    watch.children.append(Started(("helper", "-x"), "site:8"))
    monkeypatch.setattr(process_snapshot, "_children", lambda: [4_194_000])
    monkeypatch.setattr(process_snapshot, "_command", lambda _: ("",))
    (found,) = process_snapshot._new_children(before, watch)
    assert "child process 4194000 (a program that begins) (site:8)" in str(found)
