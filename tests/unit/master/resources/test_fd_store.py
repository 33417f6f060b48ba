"""Which of the passed descriptors is what, and whether a listener counts as kept."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from forkserver.linux import systemd
from forkserver.linux.privileges import Credentials
from forkserver.linux.systemd import is_storable
from forkserver.logs.error_log import ErrorLog
from forkserver.master.resources.fd_store import FdStore, name_of
from forkserver.master.resources.listener_set import ListenerSet, Terms
from harness import processes

TERMS = Terms(16, 0o660, Credentials())
LOG = ErrorLog("-", "debug", "test")


class Manager:
    """A service manager's side of the store: ``kept`` by name, as long as ``room`` allows."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.kept: dict[str, int] = {}
        self.again: dict[str, list[int]] = {}  # what came under a name that is kept: systemd has both
        self.room = 8

    def hear(self) -> None:
        """Deal with every datagram that is there, in their order."""
        self.socket.setblocking(False)
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 4)
            except BlockingIOError:
                return
            lines = dict(line.partition("=")[::2] for line in data.decode().split("\n"))
            if "FDSTOREREMOVE" in lines and (old := self.kept.pop(lines["FDNAME"], None)) is not None:
                os.close(old)
                for number in self.again.pop(lines["FDNAME"], []):
                    os.close(number)
            elif lines.get("FDNAME") in self.kept and "FDSTORE" in lines:
                self.again.setdefault(lines["FDNAME"], []).append(descriptors.pop())
            elif "FDSTORE" in lines and len(self.kept) < self.room:
                self.kept[lines["FDNAME"]] = descriptors.pop()
            for number in descriptors:
                os.close(number)

    def close(self) -> None:
        self.socket.close()
        for number in self.kept.values():
            os.close(number)


class Told(systemd.Notifier):
    """A notifier whose manager deals with each datagram at once."""

    def __init__(self, manager: Manager) -> None:
        super().__init__({"NOTIFY_SOCKET": manager.address})
        self._manager = manager

    def _send(self, message: str, descriptors=(), waits: bool = True) -> bool:  # type: ignore[no-untyped-def]
        sent = super()._send(message, descriptors, waits)
        self._manager.hear()
        return sent


@pytest.fixture(autouse=True)
def _closed_listeners() -> Iterator[None]:
    """Those that were left to close a listener have ended."""
    known = processes.children()
    yield
    processes.await_end_of_new(known)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


def start(manager: Manager, bind: list[str], passed: dict[str, int] | None = None) -> ListenerSet:
    """As a master starts: what ``passed`` holds are copies of its own."""
    given = [(os.dup(number), name) for name, number in (passed or {}).items()]
    store = FdStore(given, Told(manager), LOG)
    return ListenerSet(bind, store.activated, TERMS, store)


def test_names_are_stable_and_such_as_systemd_takes() -> None:
    """A name with a colon is refused by systemd: it divides the names in LISTEN_FDNAMES."""
    for address in ("127.0.0.1:8000", "[::1]:8000", "unix:/run/app.sock", "unix:/run/ümlaut \n.sock", "unix:/\udcff"):
        name = name_of(address)
        assert name == name_of(address)
        assert name is not None
        assert is_storable(name)
    assert len({name_of("127.0.0.1:8000"), name_of("127.0.0.1:8001"), name_of("unix:/127.0.0.1:8000")}) == 3


@pytest.mark.parametrize("address", ["127.0.0.1:0", "fd://5", f"unix:/{'ü' * 50}"])
def test_what_has_no_stable_name_is_not_kept(address: str) -> None:
    assert name_of(address) is None


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_listener_is_kept_and_taken_back(manager: Manager, tmp_path: Path, kind: str) -> None:
    """A client that connects between the two masters is in the queue of the second."""
    address = f"unix:{tmp_path}/app.sock" if kind == "unix" else f"127.{os.getpid() % 200}.7.9:8021"
    first = start(manager, [address])
    assert list(manager.kept) == [name_of(address)]
    (listener,) = first.open
    assert listener.kept
    assert listener.told < 0
    listener.refuse_arrivals()
    first.close()
    where = f"{tmp_path}/app.sock" if kind == "unix" else tuple(address.split(":"))
    client = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    client.connect(where if isinstance(where, str) else (where[0], int(where[1])))
    second = start(manager, [address], manager.kept)
    (listener,) = second.open
    accepted, _ = listener.socket.accept()
    assert (listener.own, listener.kept) == (True, True)
    assert list(manager.kept) == [name_of(address)]
    for each in (accepted, client, second):
        each.close()


@pytest.mark.parametrize("room", [0, 1])
def test_what_may_not_be_kept_counts_as_ours_alone(manager: Manager, tmp_path: Path, room: int) -> None:
    """Without a spare place nobody knows whether the last one was taken; an undrained queue would be reset."""
    manager.room = room
    listener_set = start(manager, [f"unix:{tmp_path}/app.sock"])
    (listener,) = listener_set.open
    assert not listener.kept
    assert listener.told > 0
    assert manager.kept == {}
    listener_set.close()
    assert not (tmp_path / "app.sock").exists()


def test_without_a_manager_nothing_is_kept(tmp_path: Path) -> None:
    store = FdStore([], systemd.Notifier({}), LOG)
    listener_set = ListenerSet([f"unix:{tmp_path}/app.sock"], (), TERMS, store)
    assert not listener_set.open[0].kept
    listener_set.close()


def test_what_is_not_configured_any_more_is_given_up(manager: Manager, tmp_path: Path) -> None:
    one, other = f"unix:{tmp_path}/one.sock", f"unix:{tmp_path}/other.sock"
    start(manager, [one, other]).close()
    assert len(manager.kept) == 2
    listener_set = start(manager, [other], manager.kept)
    assert list(manager.kept) == [name_of(other)]
    listener_set.close()


def test_a_reload_that_is_taken_back_leaves_nothing_kept(manager: Manager, tmp_path: Path) -> None:
    one, other = f"unix:{tmp_path}/one.sock", f"unix:{tmp_path}/other.sock"
    listener_set = start(manager, [one])
    listener_set.change([one, other], TERMS)
    assert len(manager.kept) == 2
    listener_set.undo()
    assert list(manager.kept) == [name_of(one)]
    assert not (tmp_path / "other.sock").exists()
    listener_set.close()


def test_an_address_that_a_reload_drops_ends_with_us(manager: Manager, tmp_path: Path) -> None:
    one, other = f"unix:{tmp_path}/one.sock", f"unix:{tmp_path}/other.sock"
    listener_set = start(manager, [one, other])
    listener_set.change([one], TERMS)
    listener_set.settle(True, 0.0)
    assert list(manager.kept) == [name_of(one)]
    assert not (tmp_path / "other.sock").exists()
    listener_set.close()
    assert (tmp_path / "one.sock").exists(), "a kept socket is the successor's"


def test_another_mode_is_bound_anew(manager: Manager, tmp_path: Path) -> None:
    """socket_mode takes effect with a restart, whoever keeps the socket meanwhile."""
    address = f"unix:{tmp_path}/app.sock"
    start(manager, [address]).close()
    os.chmod(tmp_path / "app.sock", 0o600)
    listener_set = start(manager, [address], manager.kept)
    assert (tmp_path / "app.sock").stat().st_mode & 0o777 == 0o660
    listener_set.close()


def test_a_socket_unit_and_strangers_are_told_apart(manager: Manager, tmp_path: Path) -> None:
    """What a .socket unit gives is served; a file, and what was stored without a name, is left alone."""
    with socket.create_server(("127.0.0.1", 0)) as of_unit, open(os.devnull) as file:
        passed = {"app.socket": of_unit.fileno(), "state": file.fileno(), "stored": file.fileno()}
        listener_set = start(manager, ["127.0.0.1:1"], passed)
        assert [each.socket.getsockname() for each in listener_set.open] == [of_unit.getsockname()]
        assert not listener_set.open[0].own
        listener_set.close()


def test_a_listener_that_is_no_listener_is_bound_anew(manager: Manager, tmp_path: Path) -> None:
    """Whatever stands under our name, we serve."""
    address = f"unix:{tmp_path}/app.sock"
    name = name_of(address)
    assert name is not None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        listener_set = start(manager, [address], {name: other.fileno()})
    assert listener_set.open[0].kept
    assert (tmp_path / "app.sock").exists()
    listener_set.close()


def test_a_socket_that_was_made_again_is_kept_under_its_name(manager: Manager, tmp_path: Path) -> None:
    """systemd forgets everything under one name together, and the old socket has the same."""
    address = f"unix:{tmp_path}/app.sock"
    listener_set = start(manager, [address])
    os.unlink(tmp_path / "app.sock")
    listener_set.change([address], TERMS)
    listener_set.settle(True, 0.0)
    listener_set.drop()
    (listener,) = listener_set.open
    assert (listener.kept, list(manager.kept), manager.again) == (True, [name_of(address)], {})
    assert os.fstat(manager.kept[str(name_of(address))]).st_ino == os.fstat(listener.fileno()).st_ino
    listener_set.close()


def test_an_abstract_socket_is_kept_and_taken_back(manager: Manager) -> None:
    address = f"unix:@forkserver-test-{os.getpid()}"
    start(manager, [address]).close()
    assert list(manager.kept) == [name_of(address)]
    listener_set = start(manager, [address], manager.kept)
    (listener,) = listener_set.open
    assert (listener.name, listener.kept) == (address, True)
    listener_set.close()


def test_what_was_kept_for_ipv4_goes_on_serving_every_interface(manager: Manager) -> None:
    """:PORT meant IPv4 alone in the version before; its listener must not be in the way of the next start."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    start(manager, [f"0.0.0.0:{port}"]).close()
    listener_set = start(manager, [f"*:{port}"], manager.kept)
    (listener,) = listener_set.open
    assert (listener.name, listener.lacks_ipv6) == (f"http://0.0.0.0:{port}", True)
    assert list(manager.kept) == [name_of(f"0.0.0.0:{port}")]
    listener_set.close()


def test_a_name_is_the_address_with_what_systemd_forbids_written_as_its_bytes() -> None:
    """As urllib.parse.quote writes it: earlier programs have stored listeners under such names."""
    for address in ("unix:/run/a b.sock", "unix:/ö:%\x7f\t", "[::1]:80", "unix:@a,b=~c+d_-."):
        assert name_of(address) == "forkserver=" + quote(os.fsencode(address), safe="/[]@+=,~ ")
