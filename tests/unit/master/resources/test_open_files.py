"""The master has descriptors for its children, and what it starts has the limit that the person gave."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.config import loading
from forkserver.errors import BindError
from forkserver.ipc.channel import MasterChannel
from forkserver.linux import descriptor_limit
from forkserver.linux.descriptor_limit import NOFILE_AUTO, NOFILE_KEEP
from forkserver.logs.error_log import ErrorLog
from forkserver.master.resources.open_files import PER_CHILD, OpenFiles, needed
from forkserver.master.resources.resources import Resources
from harness import limits


@pytest.fixture(autouse=True)
def hard() -> Iterator[int]:
    """The usual soft limit for this test; the hard one."""
    with limits.usual_open_files() as most:
        yield most


def test_a_child_costs_the_master_what_is_counted() -> None:
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = MasterChannel.pair()
    theirs.orders.close()
    pidfd = os.pidfd_open(os.getpid())
    assert len(os.listdir("/proc/self/fd")) - before == PER_CHILD
    os.close(pidfd)
    ours.close()


def test_a_few_workers_leave_the_limit_as_it_is() -> None:
    files = OpenFiles()
    assert files.fit(NOFILE_AUTO, 16, 2) == ""
    assert (descriptor_limit.soft(), files.soft_limit) == (1024, 1024)


def test_many_workers_raise_it_to_what_they_need_and_more_of_them_further() -> None:
    files = OpenFiles()
    for workers in (200, 300):
        assert files.fit(NOFILE_AUTO, workers, 2) == ""
        assert (descriptor_limit.soft(), files.soft_limit) == (needed(workers, 2), 1024)
    files.fit(NOFILE_AUTO, 100, 2)
    assert descriptor_limit.soft() == needed(300, 2), "what is open stays open"


def test_the_next_program_knows_the_limit_that_was_given() -> None:
    files = OpenFiles()
    files.fit(NOFILE_AUTO, 200, 2)
    assert OpenFiles(files.soft_limit).soft_limit == 1024


def test_a_limit_that_a_person_sets_while_it_runs_is_the_one_that_is_given() -> None:
    files = OpenFiles()
    files.fit(NOFILE_AUTO, 200, 2)
    descriptor_limit.restore(2000)
    assert files.soft_limit == 2000
    files.fit(NOFILE_AUTO, 300, 2)
    assert (descriptor_limit.soft(), files.soft_limit) == (needed(300, 2), 2000)


def test_keep_raises_nothing_and_says_what_that_means_once() -> None:
    files = OpenFiles()
    said = files.fit(NOFILE_KEEP, 200, 2)
    assert said.startswith(f"workers 200: the master may need {needed(200, 2)} open files for them")
    assert "the soft limit is 1024, which nofile = keep leaves" in said
    assert (descriptor_limit.soft(), files.fit(NOFILE_KEEP, 200, 2)) == (1024, "")


def test_keep_sets_a_raised_limit_back_and_auto_raises_it_again() -> None:
    """A reload may change the setting either way; the workers are as many as before."""
    files = OpenFiles()
    for _ in range(2):
        assert files.fit(NOFILE_AUTO, 200, 2) == ""
        assert (descriptor_limit.soft(), files.soft_limit) == (needed(200, 2), 1024)
        assert "the soft limit is 1024, which nofile = keep leaves" in files.fit(NOFILE_KEEP, 200, 2)
        assert (descriptor_limit.soft(), files.soft_limit) == (1024, 1024)


def test_keep_sets_back_what_the_program_before_has_raised() -> None:
    files = OpenFiles()
    files.fit(NOFILE_AUTO, 200, 2)
    upgraded = OpenFiles(files.soft_limit)
    upgraded.fit(NOFILE_KEEP, 16, 2)
    assert (descriptor_limit.soft(), upgraded.soft_limit) == (1024, 1024)


def test_keep_leaves_what_a_person_has_set_while_it_runs() -> None:
    files = OpenFiles()
    files.fit(NOFILE_AUTO, 200, 2)
    descriptor_limit.restore(2000)
    files.fit(NOFILE_KEEP, 200, 2)
    assert (descriptor_limit.soft(), files.soft_limit) == (2000, 2000)


def test_a_reload_to_keep_sets_the_limit_back_only_where_it_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def write(nofile: str, control_socket: str) -> None:
        named = {"app": "a:app", "bind": "127.0.0.1:0", "nofile": nofile, "control_socket": control_socket}
        lines = [f'{name} = "{value}"' for name, value in named.items()]
        Path("forkserver.toml").write_text("\n".join(["workers = 200", *lines]))

    write("auto", "off")
    held = Resources(loading.load([], {}), ErrorLog("-", "info"), [], {})
    raised = descriptor_limit.soft()
    assert raised > 1024
    write("keep", "missing/c.sock")
    with pytest.raises(BindError, match="there is no folder"):
        held.reload()
    assert descriptor_limit.soft() == raised
    write("keep", "off")
    held.reload()
    assert descriptor_limit.soft() == 1024
    held.tidy()
    os.close(held.board.fd)
    del held.board  # its memory has a descriptor of its own


def test_a_sandbox_that_lets_nothing_be_raised_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the master ends by it nor a child, for which there is nothing to set back."""

    def refused(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    files = OpenFiles()
    with monkeypatch.context() as patch:
        patch.setattr(resource, "setrlimit", refused)
        said = files.fit(NOFILE_AUTO, 200, 2)
        descriptor_limit.restore(files.soft_limit)
    assert "the soft limit is 1024, which a sandbox does not let it raise" in said


def test_a_hard_limit_that_is_too_low_is_named_with_the_way_out(hard: int) -> None:
    files = OpenFiles()
    said = files.fit(NOFILE_AUTO, hard, 2)
    assert f"and the hard limit is {hard}, so the system may refuse some of them" in said
    assert said.endswith("raise LimitNOFILE= of the unit, or ulimit -Hn, or run fewer workers")
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
