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

from forkserver.linux import syscalls
from forkserver.errors import BindError, ConfigError
from forkserver.master.resources.listener_set import Bindings, Terms
from forkserver.linux.sockets.listening_socket import SYN_SECONDS, Listener
from forkserver.master.model.lifecycle import NEVER
from forkserver.linux.privileges import Rights
from harness import BOUND, processes
from harness.program import own_address

TERMS = Terms(16, 0o660, Rights())
Bind = Callable[..., Bindings]


@pytest.fixture
def bound() -> Iterator[Bind]:
    made: list[Bindings] = []
    known = processes.children()

    def start(*bind: str, given: list[tuple[int, str]] | None = None) -> Bindings:
        made.append(Bindings(bind, given or [], TERMS))
        return made[-1]

    yield start
    for each in made:
        each.close()
    processes.await_end_of_new(known)  # those that were left to close a listener


def unix(folder: Path, *names: str) -> list[str]:
    return [f"unix:{folder}/{name}" for name in names]


def names(opened: list[Listener]) -> list[str]:
    return [os.path.basename(listener.name) for listener in opened]


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_what_is_new_is_open_beside_what_was(bound: Bind, tmp_path: Path) -> None:
    """Until the new code serves, the old set is served too: workers get all of it, the wanted ones first."""
    bindings = bound(*unix(tmp_path, "a", "b"))
    bindings.change(unix(tmp_path, "c", "b"), TERMS)
    assert bindings.changing
    assert names(bindings.open) == ["c", "b", "a"]
    assert all(answers(tmp_path / name) for name in "abc")


def test_a_reload_that_took_over_gives_up_what_it_does_not_name(bound: Bind, tmp_path: Path) -> None:
    """Nobody can join its queue any more, and the workers are told only when who had begun is in."""
    bindings = bound(*unix(tmp_path, "a", "b"))
    (going,) = [listener for listener in bindings.open if listener.name.endswith("a")]
    bindings.change(unix(tmp_path, "b", "c"), TERMS)
    assert names(bindings.settle(True, 100.0)) == ["c"]
    assert not (tmp_path / "a").exists()
    assert bindings.drop_at == 100.0 + SYN_SECONDS
    assert names(bindings.open) == ["b", "c", "a"], "workers empty its queue yet"
    assert bindings.drop() == [(going.number, f"unix:{tmp_path}/a")]
    assert names(bindings.open) == ["b", "c"]
    assert (bindings.changing, bindings.drop_at, going.fileno()) == (False, NEVER, -1)


def test_a_reload_that_failed_gives_back_what_it_has_added(bound: Bind, tmp_path: Path) -> None:
    """The old set holds, the addresses that it was to lose too."""
    bindings = bound(*unix(tmp_path, "a"))
    bindings.change(unix(tmp_path, "b"), TERMS)
    assert bindings.settle(False, 100.0) == []
    assert [name for _, name in bindings.drop()] == [f"unix:{tmp_path}/b"]
    assert names(bindings.open) == ["a"]
    assert answers(tmp_path / "a")
    assert not answers(tmp_path / "b")


def test_a_reload_that_changes_nothing_has_nothing_to_drop(bound: Bind, tmp_path: Path) -> None:
    """The master must not wake for it."""
    bindings = bound(*unix(tmp_path, "a"))
    before = bindings.open
    bindings.change(unix(tmp_path, "a"), TERMS)
    assert bindings.settle(True, 100.0) == []
    assert (bindings.open, bindings.drop_at) == (before, NEVER)


def test_an_address_that_cannot_be_bound_leaves_all_as_it_was(bound: Bind, tmp_path: Path) -> None:
    """Those that could be bound before it are closed again, their files removed."""
    bindings = bound(*unix(tmp_path, "a"))
    before = bindings.open
    (tmp_path / "taken").write_text("a file of somebody")
    with pytest.raises(BindError, match="taken"):
        bindings.change(unix(tmp_path, "b", "taken"), TERMS)
    assert not bindings.changing
    assert bindings.open == before
    assert not (tmp_path / "b").exists()


def test_undo_closes_what_was_opened(bound: Bind, tmp_path: Path) -> None:
    """A reload may be refused for another reason after that."""
    bindings = bound(*unix(tmp_path, "a"))
    bindings.change(unix(tmp_path, "a", "b"), TERMS)
    bindings.undo()
    assert names(bindings.open) == ["a"]
    assert not (tmp_path / "b").exists()
    assert answers(tmp_path / "a")


def test_a_port_that_the_kernel_chose_stays(bound: Bind) -> None:
    """Its number is in somebody's configuration by now; a second one is another."""
    bindings = bound("127.0.0.1:0")
    (first,) = bindings.open
    bindings.change(["127.0.0.1:0", "127.0.0.1:0"], TERMS)
    (second,) = bindings.settle(True, 0.0)
    assert bindings.open == [first, second]
    assert bindings.drop() == []


def test_a_descriptor_cannot_be_added(bound: Bind, tmp_path: Path) -> None:
    """What has that number by now is something else."""
    bindings = bound(*unix(tmp_path, "a"))
    with pytest.raises(ConfigError, match="bind fd://7: a descriptor is inherited at the start, not in a reload; rest"):
        bindings.change([*unix(tmp_path, "a"), "fd://7"], TERMS)
    assert not bindings.changing


def test_a_descriptor_that_was_given_can_be_taken_away_and_its_file_stays(bound: Bind, tmp_path: Path) -> None:
    """It is somebody else's: its queue is not cut off, and nothing is unlinked."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "given"))
        made.listen()
        bindings = bound(f"fd://{os.dup(made.fileno())}", *unix(tmp_path, "a"))
        bindings.change(unix(tmp_path, "a"), TERMS)
        bindings.settle(True, 0.0)
        bindings.drop()
        assert names(bindings.open) == ["a"]
        assert answers(tmp_path / "given")


def test_an_own_address_that_is_in_the_way_is_named(bound: Bind) -> None:
    """From one address to every address of the same port is a usual step, and not one for a single reload."""
    host, port = own_address()
    bindings = bound(f"{host}:{port}")
    with pytest.raises(BindError) as caught:
        bindings.change([f"0.0.0.0:{port}"], TERMS)
    assert str(caught.value) == (
        f"cannot bind 0.0.0.0:{port}: address already in use, by our own {host}:{port}, which is served until the "
        f"new code is; restart, or reload once without {host}:{port}"
    )


def test_somebody_elses_address_is_not_taken_for_our_own(bound: Bind) -> None:
    """The same port of another address is no reason to restart."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        bindings = bound(f"127.0.0.2:{port}")
        with pytest.raises(BindError, match="stop who holds it"):
            bindings.change([f"127.0.0.2:{port}", f"127.0.0.1:{port}"], TERMS)


def test_listeners_of_systemd_stay_whatever_bind_says(bound: Bind, tmp_path: Path) -> None:
    """It has the say about them."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "given"))
        made.listen()
        bindings = bound(given=[(os.dup(made.fileno()), "http")])
        before = bindings.open
        bindings.change(unix(tmp_path, "b"), TERMS)
        assert not bindings.changing
        assert bindings.open == before
        assert not (tmp_path / "b").exists()


def test_a_relative_path_means_where_it_was_bound(bound: Bind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link switched to another release makes it another address."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    bindings = bound("unix:s")
    bindings.change(["unix:s"], TERMS)
    assert bindings.settle(True, 0.0) == bindings.drop() == []
    monkeypatch.chdir(tmp_path / "two")
    bindings.change(["unix:s"], TERMS)
    assert [listener.path for listener in bindings.settle(True, 0.0)] == [str(tmp_path / "two" / "s")]
    assert [name for _, name in bindings.drop()] == [f"unix:{tmp_path}/one/s"]


def test_no_number_is_used_twice(bound: Bind, tmp_path: Path) -> None:
    """A late order would mean another listener."""
    bindings = bound(*unix(tmp_path, "a"))
    seen = [listener.number for listener in bindings.open]
    for name in ("b", "a", "b"):
        bindings.change(unix(tmp_path, name), TERMS)
        bindings.settle(True, 0.0)
        bindings.drop()
        seen += [listener.number for listener in bindings.open]
    assert len(set(seen)) == len(seen) == 4


def test_a_socket_whose_file_was_removed_is_made_again(bound: Bind, tmp_path: Path) -> None:
    """A cleaner of /tmp, or a person: nobody could connect until the next start."""
    bindings = bound(*unix(tmp_path, "a", "b"))
    (old, kept) = bindings.open
    os.unlink(tmp_path / "a")
    bindings.change(unix(tmp_path, "a", "b"), TERMS)
    assert answers(tmp_path / "a")
    bindings.settle(True, 0.0)
    assert bindings.drop() == [(old.number, f"unix:{tmp_path}/a")]
    (new, still) = bindings.open
    assert (new is old, still is kept) == (False, True)
    assert answers(tmp_path / "a"), "the end of the old one does not remove the file of the new one"


def test_a_socket_that_another_program_has_replaced_is_not_taken_for_ours(bound: Bind, tmp_path: Path) -> None:
    """Nor is a live one stolen: its clients would be another's. Once that server has ended, the next reload binds."""
    bindings = bound(*unix(tmp_path, "a"))
    before = bindings.open
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "b"))
        other.listen()
        os.rename(tmp_path / "b", tmp_path / "a")
        with pytest.raises(BindError) as caught:
            bindings.change(unix(tmp_path, "a"), TERMS)
        assert str(caught.value) == (
            f"cannot bind unix:{tmp_path}/a: a server is listening there, which has replaced our own socket, so "
            "clients reach that server and not this one; stop it and reload again, or choose another path"
        )
        assert (bindings.open, bindings.changing) == (before, False)
    bindings.change(unix(tmp_path, "a"), TERMS)
    bindings.settle(True, 0.0)
    assert answers(tmp_path / "a")


def test_a_file_in_place_of_our_socket_refuses_a_reload(bound: Bind, tmp_path: Path) -> None:
    bindings = bound(*unix(tmp_path, "a"))
    os.unlink(tmp_path / "a")
    (tmp_path / "a").write_text("precious")
    with pytest.raises(BindError, match="a file of another kind is there; move it or choose another path"):
        bindings.change(unix(tmp_path, "a"), TERMS)
    bindings.close()
    assert (tmp_path / "a").read_text() == "precious"


def test_a_reload_that_fails_leaves_a_removed_socket_as_it_was(bound: Bind, tmp_path: Path) -> None:
    bindings = bound(*unix(tmp_path, "a"))
    os.unlink(tmp_path / "a")
    bindings.change(unix(tmp_path, "a"), TERMS)
    bindings.undo()
    assert (names(bindings.open), os.listdir(tmp_path)) == (["a"], [])


def test_an_abstract_socket_stays_over_a_reload_and_ends_with_its_descriptors(bound: Bind) -> None:
    address = f"unix:@forkserver-test-{os.getpid()}"
    bindings = bound(address)
    before = bindings.open
    bindings.change([address], TERMS)
    bindings.settle(True, 0.0)
    assert (bindings.open, before[0].name) == (before, address)
    bindings.close()
    with socket.socket(socket.AF_UNIX) as client:
        assert client.connect_ex(f"\0{address[6:]}") != 0


def test_an_ipv4_listener_of_before_goes_on_serving_every_interface(bound: Bind) -> None:
    """:PORT meant IPv4 alone in the version before: an upgrade in place must not fail at its own listener."""
    with socket.create_server(("0.0.0.0", 0)) as held:  # another test may have the same port at an address of its own
        port = held.getsockname()[1]
    bindings = bound(f"0.0.0.0:{port}")
    before = bindings.open
    assert bindings.change([f"*:{port}"], TERMS) == [f"*:{port}"]
    bindings.settle(True, 0.0)
    assert bindings.open == before


def test_every_interface_in_the_way_of_one_is_named(bound: Bind) -> None:
    bindings = bound("*:0")
    port = bindings.open[0].socket.getsockname()[1]
    bindings._served[0] = bindings._served[0]._replace(address=f"*:{port}")
    with pytest.raises(BindError, match=rf"by our own \*:{port}, which is served until the new code is"):
        bindings.change([f"127.0.0.1:{port}"], TERMS)


# What the application does with the listeners, which it has too


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_an_address_that_the_application_has_shut_is_opened_anew(bound: Bind, tmp_path: Path, kind: str) -> None:
    """Else nobody could connect until a restart, and every reload would say that it serves."""
    bind = [f"127.0.0.1:{own_address()[1]}"] if kind == "tcp" else unix(tmp_path, "a")
    bindings = bound(*bind)
    (before,) = bindings.open
    with socket.socket(fileno=os.dup(before.fileno())) as shut:
        shut.shutdown(socket.SHUT_RDWR)
    bindings.change(bind, TERMS)
    (after,) = bindings.settle(True, 100.0)
    bindings.drop()
    assert bindings.open == [after]
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
    bindings = bound("127.0.0.1:0")
    with socket.socket(fileno=os.dup(bindings.open[0].fileno())) as taken:
        taken.shutdown(socket.SHUT_RDWR)
        lingering.fill(taken)
    bindings.close()
    assert not lingering.waited


def test_a_descriptor_in_the_queue_of_a_listener_does_not_hold_the_master(
    bound: Bind, lingering: Lingering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application can have its clients send one, also where the kernel has them refused (SO_PASSRIGHTS)."""
    monkeypatch.setattr(syscalls, "refuse_descriptors", lambda _: None)
    bindings = bound(*unix(tmp_path, "a"))
    with socket.socket(socket.AF_UNIX) as client, socket.socket() as passed:
        lingering.fill(passed)
        client.connect(str(tmp_path / "a"))
        socket.send_fds(client, [b"GET"], [passed.fileno()])
    bindings.close()
    assert not lingering.waited


def test_a_stop_during_a_reload_closes_what_both_sets_have_once(bound: Bind, tmp_path: Path) -> None:
    bindings = bound("127.0.0.1:0", *unix(tmp_path, "a"))
    bindings.change(["127.0.0.1:0", *unix(tmp_path, "a")], TERMS)
    bindings.close()
    assert bindings.open == []


def test_without_a_process_to_close_them_descriptors_stay(
    bound: Bind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better than that the master waits."""
    bindings = bound(*unix(tmp_path, "a"))
    number = bindings.open[0].fileno()

    def no_process(*_: socket.socket) -> None:
        raise BlockingIOError

    monkeypatch.setattr(syscalls, "close_in_child", no_process)
    bindings.close()
    os.close(number)  # it is open yet
