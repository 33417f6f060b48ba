"""The file of a Unix socket: what may be replaced, given away and removed."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from forkserver.errors import BindError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import socket_file, stream_socket, unix_socket
from harness.intruder import INTRUDER
from harness.listening import Open


def test_the_socket_of_a_killed_server_is_replaced(opened: Open, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
        killed.listen()
    (listener,) = opened(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    assert listener.own


def test_a_live_socket_is_left_to_its_server(opened: Open, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    opened(f"unix:{path}")
    with pytest.raises(BindError, match="a server is listening there"):
        opened(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_live_socket_with_a_full_queue_is_live(opened: Open, tmp_path: Path) -> None:
    """A busy server must not lose its address because it is busy."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(path)
        busy.listen(0)
        client.connect(path)
        with pytest.raises(BindError, match="a server is listening there"):
            opened(f"unix:{path}")


def test_a_file_that_is_no_socket_is_never_removed(opened: Open, tmp_path: Path) -> None:
    precious = tmp_path / "s"
    precious.write_text("mine")
    with pytest.raises(BindError, match="a file of another kind is there"):
        opened(f"unix:{precious}")
    assert precious.read_text() == "mine"


def test_a_group_that_cannot_be_given_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(socket_file, "change_owner", refused)
    with pytest.raises(BindError) as caught:
        unix_socket.bind_unix(str(tmp_path / "s"), 16, 0o660, Credentials(gid=12346))
    assert str(caught.value) == (
        f"cannot bind unix:{tmp_path}/s: only root and members of group 12346 may give it to that; join it, "
        "start as root, or leave out --socket-group"
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "link", "hard link"])
def test_a_file_put_in_the_place_of_a_socket_is_not_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """In a folder that others may write, between bind and chown; by a name root would give away any file."""
    precious = tmp_path / "precious"
    given: list[object] = []
    path = tmp_path / "s"

    class Swapped(socket.socket):
        def bind(self, address: Any, /) -> None:
            super().bind(address)
            if kind == "hard link":
                os.link(path, precious)
                return
            precious.write_text("root's")
            path.unlink()
            if kind == "file":
                precious.rename(path)
            else:
                path.symlink_to(precious)

    monkeypatch.setattr(stream_socket, "PlainSocket", Swapped)
    monkeypatch.setattr(socket_file, "change_owner", lambda *arguments: given.append(arguments))
    with pytest.raises(BindError, match="another file was put there; choose"):
        unix_socket.bind_unix(str(path), 16, 0o660, Credentials(gid=12346))
    assert given == []


@pytest.mark.as_root
def test_a_stale_socket_in_a_users_folder_is_replaced_and_removed_at_the_end(foreign: Path) -> None:
    path = foreign / "s"
    credentials = Credentials(INTRUDER.pw_uid, INTRUDER.pw_gid)
    unix_socket.bind_unix(str(path), 16, 0o660, credentials).close()
    (foreign / "file").touch()
    with pytest.raises(BindError, match="a file of another kind is there"):
        unix_socket.bind_unix(str(foreign / "file"), 16, 0o660, credentials)
    made = unix_socket.bind_unix(str(path), 16, 0o660, credentials)
    with pytest.raises(BindError, match="a server is listening there"):
        unix_socket.bind_unix(str(path), 16, 0o660, credentials)
    made.unlink()
    made.close()
    assert os.listdir(foreign) == ["file"]


def test_only_the_socket_that_was_made_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.touch()
    made = socket_file.identity(str(path))
    assert made is not None
    socket_file.remove(str(path), (made[0], made[1] + 1), Credentials(), -1)
    assert path.exists()
    socket_file.remove(str(path), made, Credentials(), -1)
    assert not path.exists()
    assert socket_file.identity(str(path)) is None


def test_a_datagram_socket_is_no_server_of_ours(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        assert not socket_file.answers(path)
