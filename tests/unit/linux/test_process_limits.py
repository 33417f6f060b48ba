"""The limit on processes that is reached is named with its figures and the way out."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from forkserver.linux import process_limits


def tree(folder: Path, groups: dict[str, tuple[str, str]], member: str) -> tuple[str, str]:
    """A tree of control groups with ``pids.max`` and ``pids.current``, and the membership file that names ours."""
    for name, (most, current) in groups.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "pids.max").write_text(f"{most}\n")
        (folder / name / "pids.current").write_text(f"{current}\n")
    (folder / "membership").write_text(f"{member}\n")
    return str(folder), str(folder / "membership")


def test_the_group_that_is_full_is_named(tmp_path: Path) -> None:
    groups = {"a": ("50", "50"), "a/b": ("max", "7"), "a/b/c": ("30", "3")}
    assert process_limits.reached(*tree(tmp_path, groups, "0::/a/b/c")) == (
        "pids.max of control group /a is 50, and 50 run; raise TasksMax= of the unit, or the container's limit of pids"
    )


def test_version_1_has_a_tree_of_its_own(tmp_path: Path) -> None:
    places = tree(tmp_path, {"pids/web": ("9", "8")}, "4:memory:/other\n3:pids:/web")
    assert process_limits.reached(*places).startswith("pids.max of control group /web is 9, and 8 run")


def test_the_users_limit_is_named_where_no_group_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    assert process_limits.reached(*tree(tmp_path, {"a": ("50", "5")}, "0::/a")) == (
        "RLIMIT_NPROC of uid 1234 is 64; raise LimitNPROC= of the unit, or ulimit -u"
    )


def test_without_any_limit_in_sight_the_refusal_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox hides the files, and root is exempt from RLIMIT_NPROC."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    hidden = str(tmp_path), str(tmp_path / "none")
    assert process_limits.reached(*hidden) == ""
    assert process_limits.with_limit("can't start new thread", *hidden) == "can't start new thread"
    assert process_limits.why_refused(OSError(errno.ENOMEM, "Cannot allocate memory")) == "Cannot allocate memory"


def test_a_name_that_a_group_was_given_cannot_forge_a_line(tmp_path: Path) -> None:
    places = tree(tmp_path, {"a\x1b[2J\xff": ("5", "5")}, "0::/a\x1b[2J\xff")
    assert "\x1b" not in process_limits.reached(*places)


@pytest.mark.parametrize(("hard", "command"), [(128, "ulimit -n"), (64, "ulimit -Hn")])
def test_a_missing_descriptor_names_the_limit_and_the_way_out(
    monkeypatch: pytest.MonkeyPatch, hard: int, command: str
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, hard))
    assert process_limits.why_refused(OSError(errno.EMFILE, "Too many open files")) == (
        f"Too many open files (RLIMIT_NOFILE is 64; raise LimitNOFILE= of the unit, or {command}, or run fewer workers)"
    )
