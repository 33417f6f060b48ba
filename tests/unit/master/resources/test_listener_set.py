"""Which listeners are open, while a reload adds some and takes others away."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from forkserver.errors import BindError, ConfigError
from forkserver.linux import syscalls
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets.listening_socket import SYN_SECONDS, ListeningSocket
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.resources.listener_set import ListenerSet, Terms
from harness import BOUND, processes
from harness.program import own_address

TERMS = Terms(16, 0o660, Credentials())
Bind = Callable[..., ListenerSet]


@pytest.fixture
def bound() -> Iterator[Bind]:
    made: list[ListenerSet] = []
    known = processes.children()

    def start(*bind: str, given: list[tuple[int, str]] | None = None) -> ListenerSet:
        made.append(ListenerSet(bind, given or [], TERMS))
        return made[-1]

    yield start
    for each in made:
        each.close()
    processes.await_end_of_new(known)  # those that were left to close a listener


def unix(folder: Path, *names: str) -> list[str]:
    return [f"unix:{folder}/{name}" for name in names]


def names(opened: list[ListeningSocket]) -> list[str]:
    return [os.path.basename(listener.name) for listener in opened]


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_what_is_new_is_open_beside_what_was(bound: Bind, tmp_path: Path) -> None:
    """Until the new code serves, the old set is served too: workers get all of it, the wanted ones first."""
    listener_set = bound(*unix(tmp_path, "a", "b"))
    listener_set.change(unix(tmp_path, "c", "b"), TERMS)
    assert listener_set.changing
    assert names(listener_set.open) == ["c", "b", "a"]
    assert all(answers(tmp_path / name) for name in "abc")


def test_a_reload_that_took_over_gives_up_what_it_does_not_name(bound: Bind, tmp_path: Path) -> None:
    """No client can join its queue any more, and the workers are told only when those that had begun are in."""
    listener_set = bound(*unix(tmp_path, "a", "b"))
    (going,) = [listener for listener in listener_set.open if listener.name.endswith("a")]
    listener_set.change(unix(tmp_path, "b", "c"), TERMS)
    assert names(listener_set.settle(True, 100.0)) == ["c"]
    assert not (tmp_path / "a").exists()
    assert listener_set.drop_at == 100.0 + SYN_SECONDS
    assert names(listener_set.open) == ["b", "c", "a"], "workers empty its queue yet"
    assert listener_set.drop() == [(going.number, f"unix:{tmp_path}/a")]
    assert names(listener_set.open) == ["b", "c"]
    assert (listener_set.changing, listener_set.drop_at, going.fileno()) == (False, NEVER, -1)


def test_a_reload_that_failed_gives_back_what_it_has_added(bound: Bind, tmp_path: Path) -> None:
    """The old set holds, the addresses that it was to lose too."""
    listener_set = bound(*unix(tmp_path, "a"))
    listener_set.change(unix(tmp_path, "b"), TERMS)
    assert listener_set.settle(False, 100.0) == []
    assert [name for _, name in listener_set.drop()] == [f"unix:{tmp_path}/b"]
    assert names(listener_set.open) == ["a"]
    assert answers(tmp_path / "a")
    assert not answers(tmp_path / "b")


def test_a_reload_that_changes_nothing_has_nothing_to_drop(bound: Bind, tmp_path: Path) -> None:
    """The master must not wake for it."""
    listener_set = bound(*unix(tmp_path, "a"))
    before = listener_set.open
    listener_set.change(unix(tmp_path, "a"), TERMS)
    assert listener_set.settle(True, 100.0) == []
    assert (listener_set.open, listener_set.drop_at) == (before, NEVER)


def test_an_address_that_cannot_be_bound_leaves_all_as_it_was(bound: Bind, tmp_path: Path) -> None:
    """Those that could be bound before it are closed again, their files removed."""
    listener_set = bound(*unix(tmp_path, "a"))
    before = listener_set.open
    (tmp_path / "taken").write_text("a file of another program")
    with pytest.raises(BindError, match="taken"):
        listener_set.change(unix(tmp_path, "b", "taken"), TERMS)
    assert not listener_set.changing
    assert listener_set.open == before
    assert not (tmp_path / "b").exists()


def test_undo_closes_what_was_opened(bound: Bind, tmp_path: Path) -> None:
    """A reload may be refused for another reason after that."""
    listener_set = bound(*unix(tmp_path, "a"))
    listener_set.change(unix(tmp_path, "a", "b"), TERMS)
    listener_set.undo()
    assert names(listener_set.open) == ["a"]
    assert not (tmp_path / "b").exists()
    assert answers(tmp_path / "a")


def test_a_port_that_the_kernel_chose_stays(bound: Bind) -> None:
    """Its number is in a proxy's configuration by now; a second one is another."""
    listener_set = bound("127.0.0.1:0")
    (first,) = listener_set.open
    listener_set.change(["127.0.0.1:0", "127.0.0.1:0"], TERMS)
    (second,) = listener_set.settle(True, 0.0)
    assert listener_set.open == [first, second]
    assert listener_set.drop() == []


def test_a_descriptor_cannot_be_added(bound: Bind, tmp_path: Path) -> None:
    """What has that number by now is something else."""
    listener_set = bound(*unix(tmp_path, "a"))
    with pytest.raises(ConfigError, match="bind fd://7: a descriptor is inherited at the start, not in a reload; rest"):
        listener_set.change([*unix(tmp_path, "a"), "fd://7"], TERMS)
    assert not listener_set.changing


def test_a_descriptor_that_was_given_can_be_taken_away_and_its_file_stays(bound: Bind, tmp_path: Path) -> None:
    """It is another program's: its queue is not cut off, and nothing is unlinked."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "given"))
        made.listen()
        listener_set = bound(f"fd://{os.dup(made.fileno())}", *unix(tmp_path, "a"))
        listener_set.change(unix(tmp_path, "a"), TERMS)
        listener_set.settle(True, 0.0)
        listener_set.drop()
        assert names(listener_set.open) == ["a"]
        assert answers(tmp_path / "given")


def test_an_own_address_that_is_in_the_way_is_named(bound: Bind) -> None:
    """From one address to every address of the same port is a usual step, and not one for a single reload."""
    host, port = own_address()
    listener_set = bound(f"{host}:{port}")
    with pytest.raises(BindError) as caught:
        listener_set.change([f"0.0.0.0:{port}"], TERMS)
    assert str(caught.value) == (
        f"cannot bind 0.0.0.0:{port}: address already in use, by our own {host}:{port}, which is served until the "
        f"new code is; restart, or reload once without {host}:{port}"
    )


def test_the_address_of_another_program_is_not_taken_for_our_own(bound: Bind) -> None:
    """The same port of another address is no reason to restart."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        listener_set = bound(f"127.0.0.2:{port}")
        with pytest.raises(BindError, match="stop the process that holds it"):
            listener_set.change([f"127.0.0.2:{port}", f"127.0.0.1:{port}"], TERMS)


def test_listeners_of_systemd_stay_whatever_bind_says(bound: Bind, tmp_path: Path) -> None:
    """It has the say about them."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "given"))
        made.listen()
        listener_set = bound(given=[(os.dup(made.fileno()), "http")])
        before = listener_set.open
        listener_set.change(unix(tmp_path, "b"), TERMS)
        assert not listener_set.changing
        assert listener_set.open == before
        assert not (tmp_path / "b").exists()


def test_a_relative_path_means_where_it_was_bound(bound: Bind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link switched to another release makes it another address."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    listener_set = bound("unix:s")
    listener_set.change(["unix:s"], TERMS)
    assert listener_set.settle(True, 0.0) == listener_set.drop() == []
    monkeypatch.chdir(tmp_path / "two")
    listener_set.change(["unix:s"], TERMS)
    assert [listener.path for listener in listener_set.settle(True, 0.0)] == [str(tmp_path / "two" / "s")]
    assert [name for _, name in listener_set.drop()] == [f"unix:{tmp_path}/one/s"]


@pytest.mark.process
def test_no_number_is_used_twice(bound: Bind, tmp_path: Path) -> None:
    """A late order would mean another listener."""
    listener_set = bound(*unix(tmp_path, "a"))
    seen = [listener.number for listener in listener_set.open]
    for name in ("b", "a", "b"):
        listener_set.change(unix(tmp_path, name), TERMS)
        listener_set.settle(True, 0.0)
        listener_set.drop()
        seen += [listener.number for listener in listener_set.open]
    assert len(set(seen)) == len(seen) == 4


def test_a_socket_whose_file_was_removed_is_made_again(bound: Bind, tmp_path: Path) -> None:
    """A cleaner of /tmp, or a person: no client could connect until the next start."""
    listener_set = bound(*unix(tmp_path, "a", "b"))
    (old, kept) = listener_set.open
    os.unlink(tmp_path / "a")
    listener_set.change(unix(tmp_path, "a", "b"), TERMS)
    assert answers(tmp_path / "a")
    listener_set.settle(True, 0.0)
    assert listener_set.drop() == [(old.number, f"unix:{tmp_path}/a")]
    (new, still) = listener_set.open
    assert (new is old, still is kept) == (False, True)
    assert answers(tmp_path / "a"), "the end of the old one does not remove the file of the new one"


def test_a_socket_that_another_program_has_replaced_is_not_taken_for_ours(bound: Bind, tmp_path: Path) -> None:
    """Nor is a live one stolen: its clients would be another's. Once that server has ended, the next reload binds."""
    listener_set = bound(*unix(tmp_path, "a"))
    before = listener_set.open
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "b"))
        other.listen()
        os.rename(tmp_path / "b", tmp_path / "a")
        with pytest.raises(BindError) as caught:
            listener_set.change(unix(tmp_path, "a"), TERMS)
        assert str(caught.value) == (
            f"cannot bind unix:{tmp_path}/a: a server is listening there, which has replaced our own socket, so "
            "clients reach that server and not this one; stop it and reload again, or choose another path"
        )
        assert (listener_set.open, listener_set.changing) == (before, False)
    listener_set.change(unix(tmp_path, "a"), TERMS)
    listener_set.settle(True, 0.0)
    assert answers(tmp_path / "a")


def test_a_file_in_place_of_our_socket_refuses_a_reload(bound: Bind, tmp_path: Path) -> None:
    listener_set = bound(*unix(tmp_path, "a"))
    os.unlink(tmp_path / "a")
    (tmp_path / "a").write_text("precious")
    with pytest.raises(BindError, match="a file of another kind is there; move it or choose another path"):
        listener_set.change(unix(tmp_path, "a"), TERMS)
    listener_set.close()
    assert (tmp_path / "a").read_text() == "precious"


def test_a_reload_that_fails_leaves_a_removed_socket_as_it_was(bound: Bind, tmp_path: Path) -> None:
    listener_set = bound(*unix(tmp_path, "a"))
    os.unlink(tmp_path / "a")
    listener_set.change(unix(tmp_path, "a"), TERMS)
    listener_set.undo()
    assert (names(listener_set.open), os.listdir(tmp_path)) == (["a"], [])


def test_an_abstract_socket_stays_over_a_reload_and_ends_with_its_descriptors(bound: Bind) -> None:
    address = f"unix:@forkserver-test-{os.getpid()}"
    listener_set = bound(address)
    before = listener_set.open
    listener_set.change([address], TERMS)
    listener_set.settle(True, 0.0)
    assert (listener_set.open, before[0].name) == (before, address)
    listener_set.close()
    with socket.socket(socket.AF_UNIX) as client:
        assert client.connect_ex(f"\0{address[6:]}") != 0


def test_an_ipv4_listener_of_before_goes_on_serving_every_interface(bound: Bind) -> None:
    """:PORT meant IPv4 alone in the version before: an upgrade in place must not fail at its own listener."""
    with socket.create_server(("0.0.0.0", 0)) as held:  # another test may have the same port at an address of its own
        port = held.getsockname()[1]
    listener_set = bound(f"0.0.0.0:{port}")
    before = listener_set.open
    assert listener_set.change([f"*:{port}"], TERMS) == [f"*:{port}"]
    listener_set.settle(True, 0.0)
    assert listener_set.open == before


def test_every_interface_in_the_way_of_one_is_named(bound: Bind) -> None:
    listener_set = bound("*:0")
    port = listener_set.open[0].socket.getsockname()[1]
    listener_set._served[0] = listener_set._served[0]._replace(address=f"*:{port}")
    with pytest.raises(BindError, match=rf"by our own \*:{port}, which is served until the new code is"):
        listener_set.change([f"127.0.0.1:{port}"], TERMS)


# What the application does with the listeners, which it has too


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_an_address_that_the_application_has_shut_is_opened_anew(bound: Bind, tmp_path: Path, kind: str) -> None:
    """Else no client could connect until a restart, and every reload would say that it serves."""
    bind = [f"127.0.0.1:{own_address()[1]}"] if kind == "tcp" else unix(tmp_path, "a")
    listener_set = bound(*bind)
    (before,) = listener_set.open
    with socket.socket(fileno=os.dup(before.fileno())) as shut:
        shut.shutdown(socket.SHUT_RDWR)
    listener_set.change(bind, TERMS)
    (after,) = listener_set.settle(True, 100.0)
    listener_set.drop()
    assert listener_set.open == [after]
    with socket.socket(after.socket.family) as client:
        assert client.connect_ex(after.socket.getsockname()) == 0


class Lingering:
    """Connections with unsent data that linger: a last close waits until the other end is closed."""

    def __init__(self) -> None:
        self.taking = socket.create_server(("127.0.0.1", 0))
        self.others: list[socket.socket] = []
        self.waited = False
        self._watch = threading.Timer(BOUND, self._give_up)
        self._watch.start()

    def fill(self, sending: socket.socket) -> None:
        sending.setblocking(True)
        sending.connect(self.taking.getsockname())
        self.others.append(self.taking.accept()[0])
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        sending.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                sending.send(bytes(1 << 16))

    def _give_up(self) -> None:
        self.waited = True
        self._end()

    def _end(self) -> None:
        for each in (self.taking, *self.others):
            each.close()

    def close(self) -> None:
        self._watch.cancel()
        self._watch.join()
        self._end()


@pytest.fixture
def lingering() -> Iterator[Lingering]:
    made = Lingering()
    yield made
    made.close()


def test_a_listener_that_was_made_a_connection_does_not_hold_the_master(bound: Bind, lingering: Lingering) -> None:
    listener_set = bound("127.0.0.1:0")
    with socket.socket(fileno=os.dup(listener_set.open[0].fileno())) as taken:
        taken.shutdown(socket.SHUT_RDWR)
        lingering.fill(taken)
    listener_set.close()
    assert not lingering.waited


def test_a_descriptor_in_the_queue_of_a_listener_does_not_hold_the_master(
    bound: Bind, lingering: Lingering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application can have its clients send one, also where the kernel has them refused (SO_PASSRIGHTS)."""
    monkeypatch.setattr(syscalls, "refuse_descriptors", lambda _: None)
    listener_set = bound(*unix(tmp_path, "a"))
    with socket.socket(socket.AF_UNIX) as client, socket.socket() as passed:
        lingering.fill(passed)
        client.connect(str(tmp_path / "a"))
        socket.send_fds(client, [b"GET"], [passed.fileno()])
    listener_set.close()
    assert not lingering.waited


def test_a_stop_during_a_reload_closes_what_both_sets_have_once(bound: Bind, tmp_path: Path) -> None:
    listener_set = bound("127.0.0.1:0", *unix(tmp_path, "a"))
    listener_set.change(["127.0.0.1:0", *unix(tmp_path, "a")], TERMS)
    listener_set.close()
    assert listener_set.open == []


def test_without_a_process_to_close_them_descriptors_stay(
    bound: Bind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better than that the master waits."""
    listener_set = bound(*unix(tmp_path, "a"))
    number = listener_set.open[0].fileno()

    def no_process(*_: socket.socket) -> None:
        raise BlockingIOError

    monkeypatch.setattr(syscalls, "close_in_child", no_process)
    listener_set.close()
    os.close(number)  # it is open yet
