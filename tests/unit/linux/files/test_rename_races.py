"""While another user renames in its folder, root makes files there: what is root's stays as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from forkserver.errors import ForkserverError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import unix_socket
from forkserver.logs.error_log import ErrorLog
from forkserver.master.resources.pidfile import PidFile
from harness.intruder import INTRUDER, give, swapping

ATTEMPTS = 60  # with root's rights one in six went wrong


def facts(folder: Path) -> dict[str, tuple[int, ...]]:
    """All about each file but when it was read, which every user may do."""
    found = {name: os.lstat(folder / name) for name in os.listdir(folder)}
    return {name: (*each[:7], each.st_mtime_ns, each.st_ctime_ns) for name, each in found.items()}


def _bind(run: Path) -> None:
    made = unix_socket.bind_unix(str(run / "name"), 16, 0o660, Credentials(INTRUDER.pw_uid, INTRUDER.pw_gid))
    made.unlink()
    made.close()


def _write_pid(run: Path) -> None:
    PidFile(str(run / "name"), service=INTRUDER.pw_uid).remove()


def _log(run: Path) -> None:
    os.close(ErrorLog(str(run / "name"), "info", service=INTRUDER.pw_uid).fileno())


@pytest.mark.as_root
@pytest.mark.process
@pytest.mark.parametrize("make", [_bind, _write_pid, _log])
@pytest.mark.parametrize("place", ["name", "run"])
def test_a_rename_loop_wins_nothing_of_roots(
    public: Path, foreign: Path, make: Callable[[Path], None], place: str
) -> None:
    """The folder, or the name in it, is a link to root's in one moment and the user's own in the next."""
    precious = public / "root"
    precious.mkdir()
    for name in ("name", "name.1"):
        (precious / name).write_text("root's")
    before = facts(precious)
    (foreign / "run").mkdir()
    (foreign / "link").symlink_to(precious)
    (foreign / "run" / "link").symlink_to(precious / "name")
    (foreign / "run" / "name").touch()
    give(*(foreign / each for each in ("run", "link", "run/link", "run/name")))
    names = (foreign, "run", "link") if place == "run" else (foreign / "run", "name", "link")
    with swapping(*names):
        for _ in range(ATTEMPTS):
            with suppress(ForkserverError):  # told, as often as the user is in the way
                make(foreign / "run")
    assert facts(precious) == before
    assert {(precious / name).read_text() for name in before} == {"root's"}
