"""Which users may connect to a Unix socket."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkserver.linux.sockets import socket_access

Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """Make a socket with a mode and an owner, in folders that every user may enter."""
    bound: list[socket.socket] = []
    folder = tmp_path / "f"
    for place in (folder, *tmp_path.parents, tmp_path):
        if str(place).startswith("/tmp/pytest") or place == folder:
            place.mkdir(exist_ok=True)
            place.chmod(0o755)

    def make(mode: int, uid: int = -1, gid: int = -1) -> Path:
        bound.append(socket.socket(socket.AF_UNIX))
        path = folder / f"{len(bound)}"
        bound[-1].bind(str(path))
        path.chmod(mode)
        os.chown(path, uid, gid)
        return path

    yield make
    for each in bound:
        each.close()


def us() -> tuple[str, str]:
    return pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


@pytest.mark.as_root
def test_a_socket_for_every_user_needs_no_advice(made: Made) -> None:
    path = made(0o666)
    assert socket_access.told(str(path), True) == (f"unix:{path} (mode 0666, {':'.join(us())}): every user may connect")


@pytest.mark.as_root
def test_a_socket_for_a_group_says_how_the_web_server_gets_in(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """0660 with the application's own group is the default, and nginx is not in it."""
    group = grp.struct_group(("app", "x", 12345, []))
    monkeypatch.setattr(grp, "getgrgid", lambda number: group)
    path = made(0o660, 12345, 12345)
    assert socket_access.told(str(path), True) == (
        f"unix:{path} (mode 0660, 12345:app): only root, user 12345 and group app may connect; let a web server in "
        "with --socket-group and its group, with `usermod -aG app www-data` and its restart, or with --socket-mode 0666"
    )
    assert socket_access.told(str(path), False) == (
        f"unix:{path} (mode 0660, 12345:app): only root, user 12345 and group app may connect; "
        "SocketGroup= and SocketMode= of its socket unit let a web server in"
    )
    with monkeypatch.context() as patch:
        patch.setattr(grp, "getgrgid", lambda number: grp.struct_group(("app", "x", 12345, ["nginx"])))
        for own in (True, False):
            assert (socket_access.told(str(path), own) or "").endswith("group app may connect")


@pytest.mark.as_root
def test_a_socket_of_root_names_what_helps_there(made: Made) -> None:
    """A web server does not belong into root's group."""
    told = socket_access.told(str(made(0o660)), True) or ""
    assert told.endswith(
        "only root and group root may connect; "
        "let a web server in with --socket-group and its group, or with --socket-mode 0666"
    )
    assert (socket_access.told(str(made(0o600)), True) or "").endswith(
        "only root may connect; --socket-mode 0660 lets its group in, too"
    )


def test_a_group_without_a_name_is_its_number(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(grp, "getgrgid", unknown)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    told = socket_access.told(str(made(0o660)), False) or ""
    assert f"(mode 0660, {os.geteuid()}:{os.getegid()})" in told


@pytest.mark.as_root
def test_a_group_that_a_user_namespace_hides_is_not_said_to_be_the_only_one(made: Made) -> None:
    """A unit with PrivateUsers= sees 65534 in place of the web server's group that its socket unit has named."""
    path = made(0o660, 0, 65534)
    assert socket_access.told(str(path), False) == (
        f"unix:{path} (mode 0660): its socket unit gives it to a group that is not seen in this service's user "
        "namespace; `ls -l` of the path shows it"
    )
    assert "may connect" in (socket_access.told(str(path), True) or "")


def test_a_folder_that_lets_few_in_is_told(made: Made) -> None:
    """The socket's own mode is then not what counts."""
    path = made(0o666)
    path.parent.chmod(0o750)
    user = us()[0]
    told = socket_access.told(str(path), True) or ""
    who = "root" if user == "root" else f"root, user {user}"
    assert f"every user may connect, and only {who} and group {us()[1]} may enter {path.parent} (mode 0750, " in told


def test_a_socket_that_is_gone_is_not_told_of(tmp_path: Path) -> None:
    assert socket_access.told(str(tmp_path / "none"), True) is None
