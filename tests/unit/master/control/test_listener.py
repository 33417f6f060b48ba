"""Where the control socket is, and that no fault in opening an unnamed one fails a start."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from forkserver.config import runtime_folders
from forkserver.config.settings import defaults
from forkserver.logs.error_log import ErrorLog
from forkserver.master.control import listener
from forkserver.master.control.socket import ControlSocket
from forkserver.master.resources.resources import Resources


@pytest.mark.parametrize(
    ("setting", "environ", "path"),
    [
        ("off", {"RUNTIME_DIRECTORY": "/run/app"}, None),
        ("auto", {}, None),
        ("auto", {"RUNTIME_DIRECTORY": "/run/app"}, "/run/app/control.sock"),
        ("auto", {"RUNTIME_DIRECTORY": "/run/app:/run/more"}, "/run/app/control.sock"),
        ("/run/x.sock", {"RUNTIME_DIRECTORY": "/run/app"}, "/run/x.sock"),
    ],
)
def test_where_it_is(setting: str, environ: dict[str, str], path: str | None) -> None:
    assert listener.where(setting, environ) == path


# Where no setting names one: in a folder of this user's own


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folders = [str(tmp_path / "missing" / "forkserver"), str(tmp_path / "own")]
    monkeypatch.setattr(runtime_folders, "folders", lambda environ, uid: folders)
    return tmp_path / "own"


def test_a_master_has_a_socket_of_its_own_name(own: Path) -> None:
    opened, why = listener.usual({})
    made = ControlSocket(opened)
    try:
        assert (made.path, why) == (str(own / f"{os.getpid()}.sock"), "")
        assert stat.S_IMODE(os.stat(own).st_mode) == 0o700
        assert stat.S_IMODE(os.stat(str(made.path)).st_mode) == 0o600
    finally:
        made.close()
    assert os.listdir(own) == []


@pytest.mark.process
def test_what_killed_masters_have_left_is_removed_and_what_lives_is_not(own: Path) -> None:
    own.mkdir(mode=0o700)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    bound = []
    for name, listens in ((f"{ended.pid}.sock", False), ("1.sock", False), (f"{2**31}.sock", True), ("x.sock", False)):
        bound.append(socket.socket(socket.AF_UNIX))
        bound[-1].bind(str(own / name))
        if listens:
            bound[-1].listen()  # in another pid namespace, perhaps
    made = ControlSocket(listener.usual({})[0])
    left = set(os.listdir(own))
    made.close()
    for each in bound:
        each.close()
    assert left == {"1.sock", f"{2**31}.sock", "x.sock", f"{os.getpid()}.sock"}


def test_a_socket_that_a_killed_master_of_our_pid_has_left_is_replaced(own: Path) -> None:
    """In a container the pid is the same each time."""
    own.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(own / f"{os.getpid()}.sock"))
    opened, why = listener.usual({})
    assert why == ""
    ControlSocket(opened).close()


def test_no_reason_not_to_have_one_fails_a_start(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not asked for by name: no folder, a path too long, a name that is taken."""
    own.mkdir(mode=0o755)
    assert listener.usual({}) == (
        None,
        f"none of {own.parent}/missing/forkserver, {own} can be a folder of this user alone",
    )
    own.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(own / f"{os.getpid()}.sock"))
        other.listen()
        opened, why = listener.usual({})
    assert opened is None
    assert "a server is listening there" in why
    long = tmp_path / ("x" * 100)
    monkeypatch.setattr(runtime_folders, "folders", lambda environ, uid: [str(long)])
    opened, why = listener.usual({})
    assert (opened, "can be a folder of this user alone" in why) == (None, True)


def test_a_start_without_a_control_socket_says_so_once_and_serves(
    own: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own.touch()
    resources = Resources(defaults(bind=["127.0.0.1:0"], spool_dir=str(tmp_path)), ErrorLog("-", "info"), [], {})
    try:
        assert resources.control.path is None
        assert len(resources.listeners) == 1
    finally:
        resources.tidy()
        os.close(resources.board.fd)
    (line,) = capfd.readouterr().err.splitlines()
    assert " info master " in line
    assert "no control socket for forkserverctl: none of " in line
    assert line.endswith("name one with --control-socket PATH")
