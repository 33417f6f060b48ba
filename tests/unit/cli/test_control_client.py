"""forkserverctl: at which socket it asks, and which server it finds where none is named."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.cli import control_client
from forkserver.config import runtime_folders
from forkserver.master.control import listener as control_listener
from harness.control_program import STATUS, run


@pytest.mark.parametrize(
    ("named", "environ", "path"),
    [
        ("/a", {"FORKSERVER_CONTROL_SOCKET": "/b"}, "/a"),
        (None, {"FORKSERVER_CONTROL_SOCKET": "/b", "RUNTIME_DIRECTORY": "/run/c"}, "/b"),
        (
            None,
            {"FORKSERVER_CONTROL_SOCKET": "auto", "RUNTIME_DIRECTORY": "/run/c:/run/d"},
            "/run/c/control.sock",
        ),
    ],
)
def test_the_socket_is_found_where_the_master_has_it(named: str | None, environ: dict[str, str], path: str) -> None:
    assert control_client.find_socket(named, environ) == path
    if "auto" in environ.values():
        assert control_listener.where("auto", environ) == path
    assert (control_client.VARIABLE, control_client.FILE) == (control_listener.VARIABLE, control_listener.FILE)


# Which server, where none is named


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this user's sockets, and no others to be found."""
    monkeypatch.delenv(control_client.VARIABLE, raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setattr(runtime_folders, "folders", lambda environ, uid: [str(tmp_path / "own")])
    monkeypatch.setattr(control_client, "SERVICES", str(tmp_path / "services"))
    (tmp_path / "own").mkdir(mode=0o700)
    return tmp_path / "own"


@pytest.fixture
def listening() -> Iterator[Callable[[Path], Path]]:
    """Make a socket at which a process listens."""
    made: list[socket.socket] = []

    def listen(path: Path) -> Path:
        made.append(socket.socket(socket.AF_UNIX))
        made[-1].bind(str(path))
        made[-1].listen()
        return path

    yield listen
    for each in made:
        each.close()


Listening = Callable[[Path], Path]


def test_the_one_server_of_this_user_is_found(folder: Path, listening: Listening) -> None:
    """Sockets of masters that were killed are no servers."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(folder / "1.sock"))
    path = listening(folder / "2.sock")
    assert control_client.find_socket(None, {}) == str(path)
    assert control_client.find_socket(None, {"FORKSERVER_CONTROL_SOCKET": "auto"}) == str(path)


def test_a_service_of_systemd_is_found_too(folder: Path, listening: Listening, tmp_path: Path) -> None:
    (tmp_path / "services" / "shop").mkdir(parents=True)
    path = listening(tmp_path / "services" / "shop" / "control.sock")
    assert control_client.find_socket(None, {}) == str(path)


def test_of_several_servers_none_is_guessed(
    folder: Path, listening: Listening, master: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`stop` must not meet another than the one that was meant."""
    answered, _ = master(json.dumps(STATUS).encode() + b"\n")
    os.rename(answered, folder / "40.sock")
    silent = listening(folder / "50.sock")
    monkeypatch.setattr(control_client, "_LOOK_SECONDS", 0.5)
    monkeypatch.setattr(control_client, "_listens", lambda path, users: True)
    status, out, err = run(capfd, "stop")
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        "forkserverctl: 2 servers run; name one with --socket PATH:",
        f"  pid 40  myapp:app  http://127.0.0.1:8000  --socket {folder / '40.sock'}",
        f"  (does not answer)  --socket {silent}",
    ]


def test_no_server_is_status_3_and_says_where_was_looked(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capfd, "status")
    assert status == 3
    assert err.startswith("forkserverctl: no server that this user may ask runs (looked in ")
    assert str(folder) in err
    assert "--socket PATH" in err


def test_a_folder_that_others_may_enter_is_not_looked_into(folder: Path, listening: Listening) -> None:
    """What listens there may be any user's."""
    listening(folder / "2.sock")
    folder.chmod(0o755)
    with pytest.raises(control_client.UnreachableError, match="looked in"):
        control_client.find_socket(None, {})


def test_a_server_of_another_user_is_not_taken(
    folder: Path, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says who listens; the file's name does not."""
    listening(folder / "2.sock")
    monkeypatch.setattr(runtime_folders, "trusted", lambda folder, uid: True)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(control_client, "_CREDENTIALS", _Foreign())
    with pytest.raises(control_client.UnreachableError):
        control_client.find_socket(None, {})


class _Foreign:
    """Credentials of a user who is neither root nor we."""

    size = control_client._CREDENTIALS.size

    @staticmethod
    def unpack(_data: bytes) -> tuple[int, int, int]:
        return (1, 4712, 4712)


def test_a_server_whose_queue_is_full_is_one(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(tmp_path / "s"))
        busy.listen(0)
        first.connect(str(tmp_path / "s"))
        assert control_client._listens(str(tmp_path / "s"), (os.geteuid(),))
        with pytest.raises(control_client.UnreachableError, match="its queue is full; ask again in a moment"):
            control_client.ask(str(tmp_path / "s"), {"command": "status"}, 1.0)


def test_a_socket_that_is_off_is_told() -> None:
    with pytest.raises(control_client.UnreachableError, match="name one with --socket"):
        control_client.find_socket(None, {"FORKSERVER_CONTROL_SOCKET": "off"})


def test_an_answer_that_comes_byte_by_byte_has_no_more_time_than_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 5.0, 10.5))
    monkeypatch.setattr(control_client, "monotonic", lambda: next(clock))
    monkeypatch.setattr(socket.socket, "recv", lambda *_: b"x")
    with socket.socket() as link, pytest.raises(TimeoutError):
        control_client._answer(link, 10.0)
