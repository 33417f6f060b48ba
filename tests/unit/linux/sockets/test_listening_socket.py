"""A listening socket: its names, what ends with it, and what belongs to other processes."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from forkserver.linux import syscalls
from forkserver.linux.sockets import listening_socket, syn_filter
from forkserver.linux.sockets.listening_socket import ListeningSocket, next_number, number_beyond
from harness.listening import Connect, Open

NEVER_SHORT = 30.0


def test_names_are_what_a_person_types(opened: Open, tmp_path: Path) -> None:
    tcp, unix = opened("127.0.0.1:0", f"unix:{tmp_path}/s")
    assert tcp.name == f"http://127.0.0.1:{tcp.socket.getsockname()[1]}"
    assert unix.name == f"unix:{tmp_path}/s"


def test_only_a_listener_on_every_interface_is_public(opened: Open, tmp_path: Path) -> None:
    everywhere, here, unix = opened("0.0.0.0:0", "127.0.0.1:0", f"unix:{tmp_path}/s")
    assert [listener.public for listener in (everywhere, here, unix)] == [True, False, False]


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


def test_a_client_in_the_queue_is_accepted_after_arrivals_are_refused(
    opened: Open, connect: Connect, tmp_path: Path
) -> None:
    """The order of a stop: refuse, drain, close; then no client is reset."""
    for listener in opened("127.0.0.1:0", f"unix:{tmp_path}/s"):
        client = connect(listener)
        client.sendall(b"early")
        listener.refuse_arrivals()
        accepted, _ = listener.socket.accept()
        with accepted:
            accepted.setblocking(True)
            assert accepted.recv(5) == b"early"


def test_no_client_joins_a_unix_queue_after_arrivals_are_refused(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    (listener,) = opened(f"unix:{path}")
    listener.refuse_arrivals()
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(str(path))


def test_a_listener_ended_for_every_process_frees_its_address(opened: Open) -> None:
    """Another process still holds it, as a worker in a call does when its master was killed."""
    (listener,) = opened("127.0.0.1:0")
    held = listener.socket.dup()
    address = "{}:{}".format(*listener.socket.getsockname())
    listener.end_everywhere()
    opened(address)
    held.close()


def test_a_kept_unix_socket_outlives_the_service(opened: Open, tmp_path: Path) -> None:
    """The service manager holds it for the next start: its file stays, and its queue is left to the next server."""
    (listener,) = opened(f"unix:{tmp_path}/s")
    listener.kept = True
    listener.refuse_arrivals()
    listener.unlink()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")


def test_workers_are_told_which_queues_to_empty(opened: Open) -> None:
    (listener,) = opened("127.0.0.1:0")
    assert listener.told == listener.number > 0
    listener.kept = True
    assert listener.told == -listener.number


def test_a_number_is_never_given_again(opened: Open) -> None:
    """Also where the program before has given numbers of which this one has no listener left."""
    first, second = opened("127.0.0.1:0", "127.0.0.1:0")
    assert first.number < second.number < next_number()
    number_beyond(second.number + 50)
    assert next_number() > second.number + 50


def test_a_unix_socket_whose_file_was_removed_or_replaced_is_gone(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    (listener,) = opened(f"unix:{path}")
    assert not listener.gone
    path.unlink()
    assert listener.gone
    path.touch()
    assert listener.gone


def test_a_unix_socket_that_systemd_has_made_is_gone_with_its_file(opened: Open, tmp_path: Path) -> None:
    """Over an upgrade, too; but not where the file was never seen, as in a container that is given a descriptor."""
    path = tmp_path / "s"
    (made,) = opened(f"unix:{path}")
    given = ListeningSocket(made.socket.dup(), own=False)
    assert not given.gone
    path.rename(tmp_path / "away")
    unseen = ListeningSocket(made.socket.dup(), own=False)
    after = ListeningSocket.from_snapshot(given.snapshot()._replace(descriptor=os.dup(made.fileno())))
    assert [given.gone, after.gone, unseen.gone] == [True, True, False]
    for each in (given, unseen, after):
        each.unlink()
        each.close()
    assert (tmp_path / "away").exists()


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix:s"])
def test_a_listener_that_another_process_has_shut_down_is_ended(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (listener,) = opened(bind)
    assert not listener.ended
    with listener.socket.dup() as of_another:
        of_another.shutdown(socket.SHUT_RDWR)
    assert listener.ended
    listener.end_everywhere()  # a second time is no fault


def test_the_next_program_goes_on_with_the_very_listener(opened: Open, tmp_path: Path) -> None:
    """By its descriptor and its number; the file of a Unix socket is still its own to remove."""
    (listener,) = opened(f"unix:{tmp_path}/s")
    listener.kept = True
    told = listener.snapshot()._replace(descriptor=os.dup(listener.fileno()))
    after = ListeningSocket.from_snapshot(told)
    assert after.snapshot() == told
    assert after.socket.gettimeout() == 0
    after.kept = False
    after.unlink()
    after.close()
    assert os.listdir(tmp_path) == []


def test_the_next_program_leaves_a_file_that_took_the_place_of_its_socket(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    (listener,) = opened(f"unix:{path}")
    told = listener.snapshot()._replace(descriptor=os.dup(listener.fileno()))
    path.unlink()
    path.touch()
    after = ListeningSocket.from_snapshot(told)
    assert after.gone
    after.unlink()
    after.close()
    assert path.exists()


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::]:0", "unix:s", "unix:@forkserver-{pid}-told"])
def test_the_next_program_asks_the_kernel_nothing_of_a_listener(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bind: str
) -> None:
    """A process of the application may hold the socket's lock: what needs it would hold the master, too."""
    monkeypatch.chdir(tmp_path)
    (listener,) = opened(bind.format(pid=os.getpid()))
    told = listener.snapshot()._replace(descriptor=os.dup(listener.fileno()))

    def asked(**_: int) -> socket.socket:
        raise AssertionError("a socket object is made by a getsockname")

    with monkeypatch.context() as patched:
        patched.setattr(listening_socket, "PlainSocket", asked)
        patched.setattr(syscalls, "refuse_descriptors", asked)
        after = ListeningSocket.from_snapshot(told)
        facts = [(each.name, each.port, each.path, each.dual, each.public, each.abstract) for each in (listener, after)]
        assert facts[0] == facts[1]
        assert not after.ended
        assert after.snapshot() == told
    assert after.socket.getsockname() == listener.socket.getsockname()
    after.close()
    assert after.fileno() == -1


def test_the_kernel_tells_the_address_that_an_older_program_did_not(opened: Open) -> None:
    (listener,) = opened("[::]:0")
    told = listener.snapshot()._replace(descriptor=os.dup(listener.fileno()), address=None)
    after = ListeningSocket.from_snapshot(told)
    assert after.address == listener.address
    after.close()


def test_a_listener_that_is_let_go_of_stays_open(opened: Open) -> None:
    (listener,) = opened("127.0.0.1:0")
    number = listener.detach()
    assert (listener.fileno(), listener.detach()) == (-1, -1)
    listener.close()
    os.close(number)  # it is open yet


def test_a_child_has_tcp_and_unix_listeners_refuse_arrivals(opened: Open, tmp_path: Path) -> None:
    listeners = opened("127.0.0.1:0", f"unix:{tmp_path}/s", "127.0.0.1:0")
    assert listening_socket.refuse_arrivals(listeners, NEVER_SHORT)
    os.waitpid(-1, 0)
    assert all(syn_filter.blocked(each.socket) for each in listeners if not each.unix)
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(f"{tmp_path}/s")


def test_a_listener_whose_lock_is_held_does_not_hold_the_master(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child that waits for it is killed, and has no descriptor of the master's but the listeners."""
    (listener,) = opened("127.0.0.1:0")
    monkeypatch.setattr(syn_filter, "block_new_connections", lambda _: signal.pause())
    assert not listening_socket.refuse_arrivals([listener], 0.0)
    assert os.WTERMSIG(os.waitpid(-1, 0)[1]) == signal.SIGKILL


def test_without_a_process_a_stop_goes_on(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    (listener,) = opened("127.0.0.1:0")

    def none() -> int:
        raise BlockingIOError

    monkeypatch.setattr(syscalls, "fork", none)
    assert not listening_socket.refuse_arrivals([listener])
