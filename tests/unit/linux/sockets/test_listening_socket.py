"""Addresses become listening sockets, and what is somebody else's stays untouched."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.errors import BindError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import socket_file, syn_filter, tcp_socket, unix_socket
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.linux.sockets.open_listeners import open_all
from harness import reach
from harness.intruder import INTRUDER, give

Open = Callable[..., list[ListeningSocket]]


@pytest.fixture
def opened() -> Iterator[Open]:
    everything: list[ListeningSocket] = []

    def start(*bind: str, given: list[tuple[int, str]] | None = None, mode: int = 0o660) -> list[ListeningSocket]:
        made = open_all(bind, given or [], 16, mode, Credentials())
        everything.extend(made)
        return made

    yield start
    for listener in everything:
        if listener.fileno() >= 0:
            listener.unlink()
            listener.close()


@pytest.fixture
def connect() -> Iterator[Callable[[ListeningSocket], socket.socket]]:
    clients: list[socket.socket] = []

    def client(listener: ListeningSocket) -> socket.socket:
        made = socket.socket(listener.socket.family)
        clients.append(made)
        made.connect(listener.socket.getsockname())
        return made

    yield client
    for each in clients:
        each.close()


def test_a_tcp_listener_is_ready_to_be_shared(
    opened: Open, connect: Callable[[ListeningSocket], socket.socket]
) -> None:
    """Not inherited by programs, not blocking an accept that a sibling won, and no delay for small answers."""
    (listener,) = opened("127.0.0.1:0")
    assert not listener.socket.get_inheritable()
    with pytest.raises(BlockingIOError):
        listener.socket.accept()
    connect(listener)
    accepted, _ = listener.socket.accept()
    with accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_names_are_what_a_person_types(opened: Open, tmp_path: Path) -> None:
    tcp, unix = opened("127.0.0.1:0", f"unix:{tmp_path}/s")
    assert tcp.name == f"http://127.0.0.1:{tcp.socket.getsockname()[1]}"
    assert unix.name == f"unix:{tmp_path}/s"


def test_only_a_listener_on_every_interface_is_public(opened: Open, tmp_path: Path) -> None:
    everywhere, here, unix = opened("0.0.0.0:0", "127.0.0.1:0", f"unix:{tmp_path}/s")
    assert [listener.public for listener in (everywhere, here, unix)] == [True, False, False]


def test_a_port_in_use_is_told_with_the_way_out(opened: Open) -> None:
    (first,) = opened("127.0.0.1:0")
    port = first.socket.getsockname()[1]
    with pytest.raises(BindError, match=f"cannot bind 127.0.0.1:{port}: address already in use; .*--bind") as caught:
        opened(f"127.0.0.1:{port}")
    assert caught.value.errno == errno.EADDRINUSE


def test_an_address_of_another_machine_is_told(opened: Open) -> None:
    with pytest.raises(BindError, match=r"cannot bind 192\.0\.2\.1:0: no such address"):
        opened("192.0.2.1:0")


def test_where_one_address_fails_none_stays_bound(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(BindError):
        opened(f"unix:{path}", "192.0.2.1:0")
    assert not path.exists()


def test_an_inherited_descriptor_is_served_and_not_ours(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        number = os.dup(made.fileno())
        (listener,) = opened(f"fd://{number}")
        assert listener.socket.getsockname() == made.getsockname()
        assert not listener.own


def test_a_descriptor_that_does_not_listen_is_refused(opened: Open) -> None:
    with socket.socket() as made, pytest.raises(BindError, match="not a listening stream socket"):
        opened(f"fd://{made.fileno()}")


def test_a_descriptor_that_is_no_socket_is_refused(opened: Open) -> None:
    reading, writing = os.pipe()
    with pytest.raises(BindError, match=f"cannot serve fd://{reading}"):
        opened(f"fd://{reading}")
    os.close(reading)
    os.close(writing)


def test_what_systemd_gives_is_served_instead_of_bind(opened: Open) -> None:
    """Units that name the same address in both places are common, and binding it twice would fail."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        found = opened("127.0.0.1:0", given=[(os.dup(made.fileno()), "web")])
        assert [listener.socket.getsockname() for listener in found] == [made.getsockname()]


def test_a_unix_socket_has_its_mode_from_the_first_moment(opened: Open, tmp_path: Path) -> None:
    opened(f"unix:{tmp_path}/s", mode=0o600)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


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


def test_an_own_unix_socket_is_removed_at_the_end(opened: Open, tmp_path: Path) -> None:
    (listener,) = opened(f"unix:{tmp_path}/s")
    listener.unlink()
    assert not (tmp_path / "s").exists()


def test_a_socket_that_a_successor_has_put_there_stays(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    (listener,) = opened(f"unix:{path}")
    path.rename(tmp_path / "old")
    with socket.socket(socket.AF_UNIX) as new_program:
        new_program.bind(str(path))
        listener.unlink()
        assert path.exists()


def test_a_given_unix_socket_stays(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        made.listen()
        (listener,) = opened(given=[(os.dup(made.fileno()), "web")])
        listener.refuse_arrivals()
        listener.unlink()
        assert path.exists()


def test_who_stands_in_the_queue_is_accepted_after_arrivals_are_refused(
    opened: Open, connect: Callable[[ListeningSocket], socket.socket], tmp_path: Path
) -> None:
    """The order of a stop: refuse, drain, close; then nobody is reset."""
    for listener in opened("127.0.0.1:0", f"unix:{tmp_path}/s"):
        client = connect(listener)
        client.sendall(b"early")
        listener.refuse_arrivals()
        accepted, _ = listener.socket.accept()
        with accepted:
            accepted.setblocking(True)
            assert accepted.recv(5) == b"early"


def test_nobody_joins_a_unix_queue_after_arrivals_are_refused(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    (listener,) = opened(f"unix:{path}")
    listener.refuse_arrivals()
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(str(path))


def test_a_listener_ended_for_everyone_frees_its_address(opened: Open) -> None:
    """Another process still holds it, as a worker in a call does when its master was killed."""
    (listener,) = opened("127.0.0.1:0")
    held = listener.socket.dup()
    address = "{}:{}".format(*listener.socket.getsockname())
    listener.end_everywhere()
    opened(address)
    held.close()


@pytest.fixture(params=[pytest.param("filter", marks=pytest.mark.as_root), "hops"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to refuse arrivals; newer kernels forbid the filter to all but CAP_NET_ADMIN."""

    def forbidden(listening: socket.socket) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "hops":
        monkeypatch.setattr(syn_filter, "attach", forbidden)
    return str(request.param)


@pytest.mark.parametrize(("bind", "host"), [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")])
def test_a_syn_is_not_answered_after_arrivals_are_refused(opened: Open, way: str, bind: str, host: str) -> None:
    """Neither accepted nor reset: the client's kernel tries again, and finds who listens then."""
    (listener,) = opened(bind)
    listener.refuse_arrivals()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as late:
        late.setblocking(False)
        assert late.connect_ex((host, listener.socket.getsockname()[1])) == errno.EINPROGRESS
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        with pytest.raises(BlockingIOError):
            listener.socket.accept()


def test_who_is_in_the_middle_of_connecting_is_served_in_full(opened: Open, way: str) -> None:
    """Such a connection inherits the hop limit of its listener: until that is lifted it hears nothing more."""
    (listener,) = opened("127.0.0.1:0")
    # The kernel makes the connection only when data comes: the handshake is still under way when arrivals are refused.
    listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    with socket.create_connection(listener.socket.getsockname()) as client:
        listener.refuse_arrivals()
        client.sendall(b"head")
        listener.socket.setblocking(True)
        accepted, _ = listener.socket.accept()
        with accepted:
            accepted.settimeout(10)
            assert accepted.recv(4) == b"head"
            client.sendall(b"body")
            assert syn_filter.limited(listener.socket) is (way == "hops")
            syn_filter.lift_hop_limit(accepted)
            assert accepted.recv(4) == b"body"


def test_ipv6_takes_ipv4_clients_where_nobody_else_does(opened: Open) -> None:
    """`[::]:8000` alone serves both, as people expect of it."""
    (both,) = opened("[::]:0")
    port = both.socket.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        both.socket.accept()[0].close()


def test_every_interface_is_ipv6_and_ipv4(opened: Open) -> None:
    """`:8000` on a machine that clients reach by either."""
    (both,) = opened("*:0")
    port = both.socket.getsockname()[1]
    assert (both.name, both.dual, both.lacks_ipv6, both.public) == (f"http://[::]:{port}", True, False, True)
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port)):
            both.socket.accept()[0].close()


def test_every_interface_leaves_ipv4_to_another_address(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    found = opened(f"*:{port}", f"0.0.0.0:{port}")
    assert [(listener.socket.family, listener.dual) for listener in found] == [
        (socket.AF_INET6, False),
        (socket.AF_INET, False),
    ]


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_without_ipv6_every_interface_is_ipv4(opened: Open, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """ipv6.disable=1, or RestrictAddressFamilies= of the unit."""

    class OfIPv4(socket.socket):
        def bind(self, address: Any, /) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(number, os.strerror(number))
            super().bind(address)

    monkeypatch.setattr(socket, "socket", OfIPv4)
    (listener,) = opened("*:0")
    assert (listener.socket.family, listener.lacks_ipv6, listener.dual) == (socket.AF_INET, True, False)


def test_a_port_of_every_interface_in_use_is_told(opened: Open) -> None:
    (first,) = opened("*:0")
    port = first.socket.getsockname()[1]
    with pytest.raises(BindError, match=rf"cannot bind \*:{port}: address already in use"):
        opened(f"*:{port}")


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


def test_ipv6_and_ipv4_share_a_port(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    found = opened(f"0.0.0.0:{port}", f"[::]:{port}")
    assert [listener.socket.family for listener in found] == [socket.AF_INET, socket.AF_INET6]


def test_connections_inherit_what_makes_answers_quick(opened: Open) -> None:
    """No waiting for an ACK between two writes, and no megabytes copied at once for a client that reads slowly."""
    [listener] = opened("127.0.0.1:0")
    with socket.create_connection(listener.socket.getsockname()) as client:
        assert client
        accepted, _ = listener.socket.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 512 * 1024


# What cannot be bound


class Forbidden(socket.socket):
    """A socket whose address the kernel forbids."""

    def bind(self, address: Any, /) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("address", "least", "told"),
    [
        (
            "127.0.0.1:80",
            "1024\n",
            "cannot bind 127.0.0.1:80: permission denied, ports below 1024 are for root (CAP_NET_",
        ),
        (
            "127.0.0.1:80",
            "1024\n",
            "; choose one from 1024 on, such as --bind 127.0.0.1:8080, or have root install the ",
        ),
        ("[::1]:443", "1024\n", "such as --bind [::1]:8443, "),
        ("127.0.0.1:25", "1024\n", "such as --bind 127.0.0.1:8025, "),
        ("127.0.0.1:80", "9000\n", "choose one from 9000 on, such as --bind 127.0.0.1:9000, "),
        ("127.0.0.1:80", "no number", "ports below 1024 "),
        ("127.0.0.1:80", "80\n", "permission denied by a rule of this machine (SELinux, seccomp); choose another port"),
    ],
)
def test_an_ordinary_user_is_told_which_port_it_can_have(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, least: str, told: str
) -> None:
    """To start as root is no advice for those who cannot."""
    (tmp_path / "start").write_text(least)
    monkeypatch.setattr(tcp_socket, "_PORT_START", str(tmp_path / "start"))
    monkeypatch.setattr(socket, "socket", Forbidden)
    with pytest.raises(BindError) as caught:
        opened(address)
    assert told in str(caught.value)
    assert caught.value.errno == errno.EACCES


def test_without_the_kernels_word_the_usual_ports_are_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_socket, "_PORT_START", "/nowhere/at/all")
    assert tcp_socket._first_free_port() == 1024


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
    monkeypatch.setattr(socket, "socket", Forbidden)
    with pytest.raises(BindError, match=r"this user may not make files in .*; choose a folder of its own with --bind"):
        opened(f"unix:{tmp_path / 'x.sock'}")


# The owner of a Unix socket


@pytest.mark.as_root
def test_a_unix_socket_is_given_its_group(tmp_path: Path) -> None:
    """For a web server that is in that group and in no other of ours."""
    listener = unix_socket.bind_unix(str(tmp_path / "s"), 16, 0o660, Credentials(gid=12346))
    found = os.stat(tmp_path / "s")
    listener.close()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 12346, 0o660)


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
def test_what_was_put_in_the_place_of_a_socket_is_given_to_nobody(
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

    monkeypatch.setattr(socket, "socket", Swapped)
    monkeypatch.setattr(socket_file, "change_owner", lambda *arguments: given.append(arguments))
    with pytest.raises(BindError, match="another file was put there; choose"):
        unix_socket.bind_unix(str(path), 16, 0o660, Credentials(gid=12346))
    assert given == []


# In a folder that another user may change


@pytest.fixture
def foreign() -> Iterator[Path]:
    with reach.public_folder() as public:
        folder = public / "foreign"
        folder.mkdir()
        give(folder)
        yield folder


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
