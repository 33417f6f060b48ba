"""The control socket: no client delays the master, fills its memory, or gets at it without the right to."""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from forkserver.config import loading
from forkserver.config.invocation import Environment
from forkserver.config.settings import defaults
from forkserver.errors import BindError, ConfigError
from forkserver.linux import syscalls
from forkserver.logs.error_log import ErrorLog
from forkserver.master.control import listener as control_listener
from forkserver.master.control import socket as room
from forkserver.master.control.socket import (
    ANSWER_BYTES,
    CLIENT_SECONDS,
    MOST_CLIENTS,
    QUESTION_BYTES,
    ControlClient,
    ControlSocket,
)
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.resources.resources import Resources
from harness import BOUND, processes

NOW = 1000.0
STATUS = b'{"command": "status"}\n'


class Desk:
    """A control socket, and clients beside it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.control = ControlSocket(control_listener.listen(path))
        self.clients: list[socket.socket] = []

    def connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.connect(self.path)
        made.settimeout(20)
        self.clients.append(made)
        return made

    def turn(self, now: float = NOW) -> list[ControlClient]:
        """Turn until there is nothing to do."""
        asked: list[ControlClient] = []
        while select.select([self.control.fileno()], [], [], 0)[0]:
            asked += self.control.turn(now)
        return asked + self.control.turn(now)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.control.close()


@pytest.fixture
def handlers(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(str(tmp_path / "control.sock"))
    yield made
    made.close()


def heard(client: socket.socket) -> dict[str, Any]:
    """The whole answer, to the end of the connection."""
    data = b""
    while block := client.recv(65536):
        data += block
    found = json.loads(data)
    assert isinstance(found, dict)
    return found


def test_a_question_is_answered_and_the_connection_ends(handlers: Desk) -> None:
    client = handlers.connect()
    client.sendall(STATUS)
    (asked,) = handlers.turn()
    assert asked.line == STATUS.strip()
    asked.answer({"ok": True}, NOW)
    assert heard(client) == {"ok": True}
    assert handlers.control.next_look == NEVER or handlers.turn() == []


def test_only_its_owner_may_open_the_file(handlers: Desk) -> None:
    assert stat.S_IMODE(os.stat(handlers.path).st_mode) == 0o600


def test_another_user_is_refused_though_somebody_has_opened_the_file(
    handlers: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chmod is one command; the kernel says who asks."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(room, "_CREDENTIALS", _Foreign())
    client = handlers.connect()
    client.sendall(STATUS)
    assert handlers.turn() == []
    assert "only root and the user" in heard_to_reset(client)["error"]


class _Foreign:
    """Credentials of somebody who is neither root nor we."""

    size = room._CREDENTIALS.size

    @staticmethod
    def unpack(_data: bytes) -> tuple[int, int, int]:
        return (1, 4712, 4712)


def heard_to_reset(client: socket.socket) -> dict[str, Any]:
    """An answer to what was not read: the end of the connection may be a reset."""
    found = json.loads(client.recv(65536))
    assert isinstance(found, dict)
    return found


def test_who_says_nothing_is_let_go(handlers: Desk) -> None:
    client = handlers.connect()
    assert handlers.turn() == []
    assert handlers.control.next_look == NOW + CLIENT_SECONDS
    handlers.turn(NOW + CLIENT_SECONDS)
    assert client.recv(1) == b""
    assert handlers.control.next_look == NEVER


def test_a_drip_does_not_put_the_end_off(handlers: Desk) -> None:
    """The question has one deadline, not one for each byte."""
    client = handlers.connect()
    handlers.turn()
    client.sendall(b"{")
    handlers.turn(NOW + CLIENT_SECONDS - 1)
    client.sendall(b" ")
    handlers.turn(NOW + CLIENT_SECONDS)
    with pytest.raises(OSError, match="Broken pipe"):
        client.sendall(b"}")


def test_a_question_too_long_is_refused(handlers: Desk) -> None:
    client = handlers.connect()
    client.sendall(b"x" * (QUESTION_BYTES + 1))
    assert handlers.turn() == []
    assert "longer than 4096 bytes" in heard_to_reset(client)["error"]


def test_an_answer_that_nobody_takes_is_dropped(handlers: Desk) -> None:
    """A client that stops reading must not cost memory for ever, nor a moment of waiting."""
    client = handlers.connect()
    client.sendall(STATUS)
    (asked,) = handlers.turn()
    asked.answer({"ok": True, "text": "x" * (4 * 1024 * 1024)}, NOW)
    assert handlers.turn(NOW + 1) == []
    assert not asked.closed
    handlers.turn(NOW + CLIENT_SECONDS)
    assert asked.closed
    assert handlers.control.next_look == NEVER


def test_a_long_answer_arrives_whole_where_it_is_taken(handlers: Desk) -> None:
    client = handlers.connect()
    client.sendall(STATUS)
    (asked,) = handlers.turn()
    asked.answer({"ok": True, "text": "x" * 1_000_000}, NOW)
    data = b""
    while not data.endswith(b"\n"):
        data += client.recv(65536)
        handlers.turn()
    assert len(json.loads(data)["text"]) == 1_000_000


def test_an_answer_beyond_all_measure_is_not_made(handlers: Desk) -> None:
    client = handlers.connect()
    client.sendall(STATUS)
    (asked,) = handlers.turn()
    asked.answer({"ok": True, "text": "x" * ANSWER_BYTES}, NOW)
    assert "too many" in heard(client)["error"]


def test_who_waits_may_wait_for_long_and_may_go(handlers: Desk) -> None:
    """A reload takes its time; and a client that has gone is forgotten when that happens, not at the end."""
    client = handlers.connect()
    client.sendall(STATUS)
    (asked,) = handlers.turn()
    handlers.turn(NOW + 3600)
    assert not asked.closed
    client.close()
    handlers.turn(NOW + 3601)
    assert asked.closed
    asked.answer({"ok": True}, NOW + 3602)


def test_who_has_said_all_it_has_to_say_still_hears(handlers: Desk) -> None:
    """`nc -N` shuts its writing side down before it reads."""
    client = handlers.connect()
    client.sendall(STATUS)
    client.shutdown(socket.SHUT_WR)
    (asked,) = handlers.turn()
    handlers.turn()
    asked.answer({"ok": True}, NOW)
    assert heard(client) == {"ok": True}


def test_a_crowd_is_told_so_and_the_rest_goes_on(handlers: Desk) -> None:
    first = [handlers.connect() for _ in range(MOST_CLIENTS)]
    handlers.turn()
    late = handlers.connect()
    handlers.turn()
    assert "ask again later" in heard(late)["error"]
    first[0].sendall(STATUS)
    (asked,) = handlers.turn()
    asked.answer({"ok": True}, NOW)
    assert heard(first[0]) == {"ok": True}
    again = handlers.connect()
    again.sendall(STATUS)
    assert len(handlers.turn()) == 1


def test_without_descriptors_the_loop_does_not_spin(handlers: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that is readable and cannot be accepted from would wake the master at once, again and again."""
    client = handlers.connect()
    listener = handlers.control._listener
    assert listener is not None
    with monkeypatch.context() as patched:
        patched.setattr(listener, "socket", _Full(listener.fileno()))
        assert handlers.control.turn(NOW) == []
        assert not select.select([handlers.control.fileno()], [], [], 0)[0]
        assert handlers.control.next_look == NOW + 1
    handlers.control.turn(NOW + 1)
    client.sendall(STATUS)
    assert len(handlers.turn(NOW + 1)) == 1


def test_a_client_is_heard_although_no_descriptor_is_left(handlers: Desk) -> None:
    """In such a time an operator asks what is wrong. One is kept for that, and kept again when the client has left."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for now in (NOW, NOW + 1):  # between two such clients accepting is paused
        handlers.turn(now)
        client = handlers.connect()
        client.sendall(STATUS)
        highest = os.dup(0)  # the lowest that was free; what is open above it was opened before
        os.close(highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            (asked,) = handlers.control.turn(now) or handlers.control.turn(now)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
        asked.answer({"ok": True}, NOW)
        assert heard(client) == {"ok": True}
        client.close()


class _Full:
    """A listener while the process has no descriptor left."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def accept(self) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_stale_socket_is_replaced_and_a_live_one_refused(handlers: Desk) -> None:
    with pytest.raises(BindError, match=r"control_socket .*: a server is listening there; name another path"):
        ControlSocket(control_listener.listen(handlers.path))
    handlers.control.leave_behind()  # as a master that was killed: the file stays
    handlers.control = ControlSocket(control_listener.listen(handlers.path))
    handlers.connect()


def test_the_file_is_removed_at_the_end_unless_it_is_anothers(handlers: Desk) -> None:
    handlers.control.close()
    assert not os.path.exists(handlers.path)
    handlers.control = ControlSocket(control_listener.listen(handlers.path))
    os.rename(handlers.path, f"{handlers.path}.old")
    Path(handlers.path).write_text("another's")
    handlers.control.close()
    assert Path(handlers.path).read_text() == "another's"
    handlers.control = ControlSocket()


def test_a_client_that_waits_is_answered_by_the_next_program(handlers: Desk) -> None:
    """Its connection is carried over; one that has not asked yet is not."""
    client, silent = handlers.connect(), handlers.connect()
    client.sendall(b'{"command": "reload", "wait": true}\n')
    (asked,) = handlers.turn()
    assert handlers.control.waiting() == [asked.fileno()]
    after = ControlSocket()
    taken = after.adopt_client(os.dup(asked.fileno()), NOW)
    asked.leave_behind()  # as an exec does
    asked.closed = True
    assert after.turn(NOW) == []
    assert after.next_look == NEVER
    taken.answer({"ok": True}, NOW)
    assert heard(client) == {"ok": True}
    silent.close()
    after.close()


def test_no_new_code_is_loaded_where_the_environment_has_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where an upgrade could not come first: it would meet the dependencies of the old release."""
    resources = Resources(defaults(bind=["127.0.0.1:0"], spool_dir=str(tmp_path)), ErrorLog("-", "info"), [], {})
    try:
        (tmp_path / "current").symlink_to("release-2")
        resources.environment = Environment(str(tmp_path / "current"), str(tmp_path / "release-1"))
        with pytest.raises(ConfigError, match=r"leads to .*/release-2 by now, and the running program is that of .*-1"):
            resources.reload()
    finally:
        resources.tidy()
        os.close(resources.board.fd)


# Descriptors beside a question


class Lingering:
    """A connection with unsent data that lingers: its last close waits until the other end is closed."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.sending = socket.create_connection(listener.getsockname())
            self.other, _ = listener.accept()
        self.sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        self.sending.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.sending.send(bytes(1 << 16))
        self.waited = False
        self._watch = threading.Timer(BOUND, self._give_up)
        self._watch.start()

    def _give_up(self) -> None:
        self.waited = True
        self.other.close()

    def send_to(self, client: socket.socket) -> None:
        """Attach it to a question, and close our own copy, so that the queue's is the last."""
        socket.send_fds(client, [STATUS], [self.sending.fileno()])
        os.close(self.sending.detach())

    def close(self) -> None:
        self._watch.cancel()
        self._watch.join()
        self.other.close()
        while syscalls.reap():  # the child that was left to close it
            continue


@pytest.fixture
def lingering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lingering]:
    """On a kernel that does not refuse descriptors."""
    monkeypatch.setattr(syscalls, "refuse_descriptors", lambda _: None)
    made = Lingering()
    yield made
    made.close()


@pytest.fixture
def open_desk(lingering: Lingering, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(str(tmp_path / "open.sock"))
    yield made
    made.close()


def test_a_descriptor_that_lingers_does_not_hold_the_master(open_desk: Desk, lingering: Lingering) -> None:
    known = processes.children()
    client = open_desk.connect()
    lingering.send_to(client)
    assert open_desk.turn() == []
    with suppress(ConnectionResetError):  # what was not read is thrown away
        assert client.recv(100) == b""
    assert not lingering.waited
    processes.await_end_of_new(known)


def test_a_descriptor_of_a_client_that_nobody_accepted_does_not_hold_a_stop(
    open_desk: Desk, lingering: Lingering
) -> None:
    known = processes.children()
    lingering.send_to(open_desk.connect())
    open_desk.control.close()
    assert not lingering.waited
    processes.await_end_of_new(known)


def test_a_descriptor_stays_where_there_is_no_process_to_close_it(
    open_desk: Desk, lingering: Lingering, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    def no_process(sock: socket.socket) -> None:
        left.append(sock.fileno())
        raise BlockingIOError

    monkeypatch.setattr(syscalls, "close_in_child", no_process)
    lingering.send_to(open_desk.connect())
    assert open_desk.turn() == []
    assert not lingering.waited
    lingering.other.close()  # so that the last of it can be closed here
    os.close(left[0])


def test_a_kernel_that_can_refuses_descriptors(tmp_path: Path) -> None:
    handlers = Desk(str(tmp_path / "new.sock"))
    client = handlers.connect()
    try:
        client.setsockopt(socket.SOL_SOCKET, syscalls.SO_PASSRIGHTS, 0)
    except OSError:
        assert tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) < (6, 16)
    else:
        with pytest.raises(PermissionError):
            socket.send_fds(client, [STATUS], [0])
    handlers.close()


# What a reload changes


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resources]:
    """What a master holds, by the settings of forkserver.toml; ``rewrite`` changes them."""
    monkeypatch.chdir(tmp_path)
    rewrite("c.sock", "a.pid")
    given = loading.load([], {})
    made = Resources(given, ErrorLog("-", "info"), [], {})
    yield made
    made.tidy()
    os.close(made.board.fd)
    del made.board  # its memory has a descriptor of its own


def rewrite(control_socket: str, pidfile: str | None) -> None:
    lines = [f'app = "m:a"\nbind = "127.0.0.1:0"\ncontrol_socket = "{control_socket}"\n']
    lines += [f'pidfile = "{pidfile}"\n'] if pidfile else []
    Path("forkserver.toml").write_text("".join(lines))


def here() -> list[str]:
    return sorted(set(os.listdir()) - {"forkserver.toml", "run", "link"})


def test_a_reload_moves_control_socket_and_pid_file(held: Resources, capfd: pytest.CaptureFixture[str]) -> None:
    """And says where they are now; a client that has asked gets its answer yet."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("c.sock")
        client.sendall(STATUS)
        rewrite("d.sock", "b.pid")
        held.reload()
        assert here() == ["b.pid", "d.sock"]
        assert Path("b.pid").read_text() == f"{os.getpid()}\n"
        with socket.socket(socket.AF_UNIX) as other:
            other.connect("d.sock")
            other.sendall(STATUS)
            asked = []
            while len(asked) < 1:
                select.select([held.control.fileno()], [], [], BOUND)
                asked += held.control.turn(NOW)
    said = capfd.readouterr().err
    assert f"the control socket is now {os.getcwd()}/d.sock" in said
    assert f"the pid file is now {os.getcwd()}/b.pid" in said
    rewrite("off", None)
    held.reload()
    said = capfd.readouterr().err
    assert here() == []
    assert "no control socket any more" in said
    assert "no pid file any more" in said


def test_a_reload_that_is_refused_leaves_control_socket_and_pid_file(held: Resources) -> None:
    rewrite("missing/d.sock", "b.pid")
    with pytest.raises(BindError, match="there is no folder"):
        held.reload()
    assert here() == ["a.pid", "c.sock"]
    assert held.control.path == f"{os.getcwd()}/c.sock"


def test_a_reload_makes_what_was_removed_again(held: Resources, capfd: pytest.CaptureFixture[str]) -> None:
    for name in here():
        os.unlink(name)
    held.reload()
    assert here() == ["a.pid", "c.sock"]
    assert capfd.readouterr().err.count(" is now ") == 2


def test_a_reload_that_changes_neither_touches_neither(held: Resources, capfd: pytest.CaptureFixture[str]) -> None:
    """Nor where another path leads to the same file: /var/run is /run."""
    os.symlink(".", "link")
    before = [os.lstat(name).st_ino for name in here()]
    rewrite("link/c.sock", "link/a.pid")
    held.reload()
    assert [os.lstat(name).st_ino for name in here()] == before
    assert capfd.readouterr().err == ""
