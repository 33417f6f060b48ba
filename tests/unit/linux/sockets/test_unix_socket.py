"""Unix sockets at a path or an abstract name: their mode, their owner, and the user that makes them."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from forkserver.errors import BindError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import stream_socket, unix_socket
from harness.intruder import INTRUDER
from harness.listening import Open


def test_an_abstract_socket_has_a_name_and_no_file(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = f"unix:@forkserver-test-{os.getpid()}"
    (listener,) = opened(address)
    assert (listener.name, listener.path, listener.abstract, listener.gone) == (address, None, True, False)
    assert os.listdir(tmp_path) == []
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{address[6:]}")
    with pytest.raises(BindError, match=f"cannot bind {address}: address already in use"):
        opened(address)


def test_a_unix_socket_has_its_mode_from_the_first_moment(opened: Open, tmp_path: Path) -> None:
    opened(f"unix:{tmp_path}/s", mode=0o600)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


class Forbidden(socket.socket):
    """A socket whose address the kernel forbids."""

    def bind(self, address: Any, /) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_unix_socket_in_a_folder_that_is_not_there_names_the_folder(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "none" / "x.sock"
    with pytest.raises(BindError) as caught:
        opened(f"unix:{path}")
    assert str(caught.value) == (
        f"cannot bind unix:{path}: there is no folder {path.parent}; make it, or choose another with --bind"
    )


def test_a_unix_socket_in_a_folder_of_others_names_the_folder(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that systemd passes would help here."""
    monkeypatch.setattr(stream_socket, "PlainSocket", Forbidden)
    with pytest.raises(
        BindError,
        match=r"this user .uid 0. may not make files in .*; choose a folder of its own, such as --bind unix:/run/",
    ):
        opened(f"unix:{tmp_path / 'x.sock'}")


@pytest.mark.as_root
def test_a_unix_socket_is_given_its_group(tmp_path: Path) -> None:
    """For a web server that is in that group and in no other of ours."""
    listener = unix_socket.bind_unix(str(tmp_path / "s"), 16, 0o660, Credentials(gid=12346))
    found = os.stat(tmp_path / "s")
    listener.close()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 12346, 0o660)


def owner(path: Path) -> tuple[int, int, int]:
    found = os.lstat(path)
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@pytest.mark.as_root
@pytest.mark.parametrize("uid", [INTRUDER.pw_uid, 12345, -1])
def test_a_socket_in_a_users_folder_is_made_by_that_user_and_given_on(opened: Open, foreign: Path, uid: int) -> None:
    """It has the owner, group and mode that the settings say, and nothing but the user's own socket was given."""
    path = foreign / "s"
    made = unix_socket.bind_unix(str(path), 16, 0o640, Credentials(uid, 12346))
    assert owner(path) == (INTRUDER.pw_uid if uid == -1 else uid, 12346, 0o640)
    os.rename(path, foreign / "kept")
    path.write_text("the user's")
    made.unlink()
    made.close()
    assert path.read_text() == "the user's"


@pytest.mark.as_root
def test_a_folder_that_its_user_may_not_write_is_told(foreign: Path) -> None:
    foreign.chmod(0o555)
    with pytest.raises(BindError) as caught:
        unix_socket.bind_unix(str(foreign / "s"), 16, 0o660, Credentials(INTRUDER.pw_uid, INTRUDER.pw_gid))
    assert str(caught.value) == (
        f"cannot bind unix:{foreign}/s: nobody owns {foreign}, so it is made with the rights of nobody, which do not "
        "suffice; let nobody write that folder, or choose one that only root may write"
    )


@pytest.mark.as_root
def test_in_a_shared_folder_the_socket_is_made_as_its_owner(foreign: Path) -> None:
    """Nothing is given away there: another member of the group could put another file under the name."""
    shared = foreign.parent / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    made = unix_socket.bind_unix(str(shared / "s"), 16, 0o660, Credentials(INTRUDER.pw_uid, 12346))
    assert owner(shared / "s") == (INTRUDER.pw_uid, 12346, 0o660)
    made.unlink()
    made.close()
    (shared / "own").mkdir()
    shared.chmod(0o777)
    with pytest.raises(BindError, match=f"others than root may write {shared}, and can put another in its place; name"):
        unix_socket.bind_unix(str(shared / "own" / "s"), 16, 0o660, Credentials())
    assert os.listdir(shared) == ["own"]
    shared.chmod(0o2777)
    with pytest.raises(BindError, match=r"it gets the folder's group \(setgid\), and others than root may write there"):
        unix_socket.bind_unix(str(shared / "s"), 16, 0o660, Credentials(-1, 12346))
    assert os.listdir(shared) == ["own"]
    shared.chmod(0o777)
    made = unix_socket.bind_unix(str(shared / "s"), 16, 0o660, Credentials(-1, 12346))
    assert owner(shared / "s") == (0, 12346, 0o660)
    made.unlink()
    made.close()
    with pytest.raises(BindError, match="and can put another in its place"):
        unix_socket.bind_unix(str(shared / "own" / "s"), 16, 0o660, Credentials(-1, 12346))
