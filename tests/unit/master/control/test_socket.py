"""The control socket: no client delays the master, fills its memory, or gets at it without the right to."""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from forkserver.errors import BindError
from forkserver.master.control import listener as control_listener
from forkserver.master.control import socket as room
from forkserver.master.control.socket import (
    ANSWER_BYTES,
    CLIENT_SECONDS,
    MOST_CLIENTS,
    QUESTION_BYTES,
    ControlSocket,
)
from forkserver.master.model.lifecycle import NEVER
from harness.control_clients import NOW, STATUS, ControlClients, heard


def test_a_question_is_answered_and_the_connection_ends(clients: ControlClients) -> None:
    client = clients.connect()
    client.sendall(STATUS)
    (asked,) = clients.turn()
    assert asked.line == STATUS.strip()
    asked.answer({"ok": True}, NOW)
    assert heard(client) == {"ok": True}
    assert clients.control.next_look == NEVER or clients.turn() == []


def test_only_its_owner_may_open_the_file(clients: ControlClients) -> None:
    assert stat.S_IMODE(os.stat(clients.path).st_mode) == 0o600


def test_another_user_is_refused_though_the_file_is_open_to_all(
    clients: ControlClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chmod is one command; the kernel says who asks."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(room, "_CREDENTIALS", _Foreign())
    client = clients.connect()
    client.sendall(STATUS)
    assert clients.turn() == []
    assert "only root and the user" in heard_to_reset(client)["error"]


class _Foreign:
    """Credentials of a user that is neither root nor ours."""

    size = room._CREDENTIALS.size

    @staticmethod
    def unpack(_data: bytes) -> tuple[int, int, int]:
        return (1, 4712, 4712)


def heard_to_reset(client: socket.socket) -> dict[str, Any]:
    """An answer to what was not read: the end of the connection may be a reset."""
    found = json.loads(client.recv(65536))
    assert isinstance(found, dict)
    return found


def test_who_says_nothing_is_let_go(clients: ControlClients) -> None:
    client = clients.connect()
    assert clients.turn() == []
    assert clients.control.next_look == NOW + CLIENT_SECONDS
    clients.turn(NOW + CLIENT_SECONDS)
    assert client.recv(1) == b""
    assert clients.control.next_look == NEVER


def test_a_drip_does_not_put_the_end_off(clients: ControlClients) -> None:
    """The question has one deadline, not one for each byte."""
    client = clients.connect()
    clients.turn()
    client.sendall(b"{")
    clients.turn(NOW + CLIENT_SECONDS - 1)
    client.sendall(b" ")
    clients.turn(NOW + CLIENT_SECONDS)
    with pytest.raises(OSError, match="Broken pipe"):
        client.sendall(b"}")


def test_a_question_too_long_is_refused(clients: ControlClients) -> None:
    client = clients.connect()
    client.sendall(b"x" * (QUESTION_BYTES + 1))
    assert clients.turn() == []
    assert "longer than 4096 bytes" in heard_to_reset(client)["error"]


def test_an_answer_that_nobody_takes_is_dropped(clients: ControlClients) -> None:
    """A client that stops reading must not cost memory for ever, nor a moment of waiting."""
    client = clients.connect()
    client.sendall(STATUS)
    (asked,) = clients.turn()
    asked.answer({"ok": True, "text": "x" * (4 * 1024 * 1024)}, NOW)
    assert clients.turn(NOW + 1) == []
    assert not asked.closed
    clients.turn(NOW + CLIENT_SECONDS)
    assert asked.closed
    assert clients.control.next_look == NEVER


def test_a_long_answer_arrives_whole_where_it_is_taken(clients: ControlClients) -> None:
    client = clients.connect()
    client.sendall(STATUS)
    (asked,) = clients.turn()
    asked.answer({"ok": True, "text": "x" * 1_000_000}, NOW)
    data = b""
    while not data.endswith(b"\n"):
        data += client.recv(65536)
        clients.turn()
    assert len(json.loads(data)["text"]) == 1_000_000


def test_an_answer_beyond_all_measure_is_not_made(clients: ControlClients) -> None:
    client = clients.connect()
    client.sendall(STATUS)
    (asked,) = clients.turn()
    asked.answer({"ok": True, "text": "x" * ANSWER_BYTES}, NOW)
    assert "too many" in heard(client)["error"]


def test_who_waits_may_wait_for_long_and_may_go(clients: ControlClients) -> None:
    """A reload takes its time; and a client that has gone is forgotten when that happens, not at the end."""
    client = clients.connect()
    client.sendall(STATUS)
    (asked,) = clients.turn()
    clients.turn(NOW + 3600)
    assert not asked.closed
    client.close()
    clients.turn(NOW + 3601)
    assert asked.closed
    asked.answer({"ok": True}, NOW + 3602)


def test_who_has_said_all_it_has_to_say_still_hears(clients: ControlClients) -> None:
    """`nc -N` shuts its writing side down before it reads."""
    client = clients.connect()
    client.sendall(STATUS)
    client.shutdown(socket.SHUT_WR)
    (asked,) = clients.turn()
    clients.turn()
    asked.answer({"ok": True}, NOW)
    assert heard(client) == {"ok": True}


def test_a_crowd_is_told_so_and_the_rest_goes_on(clients: ControlClients) -> None:
    first = [clients.connect() for _ in range(MOST_CLIENTS)]
    clients.turn()
    late = clients.connect()
    clients.turn()
    assert "ask again later" in heard(late)["error"]
    first[0].sendall(STATUS)
    (asked,) = clients.turn()
    asked.answer({"ok": True}, NOW)
    assert heard(first[0]) == {"ok": True}
    again = clients.connect()
    again.sendall(STATUS)
    assert len(clients.turn()) == 1


def test_without_descriptors_the_loop_does_not_spin(clients: ControlClients, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that is readable and cannot be accepted from would wake the master at once, again and again."""
    client = clients.connect()
    listener = clients.control._listener
    assert listener is not None
    with monkeypatch.context() as patched:
        patched.setattr(listener, "_socket", _Full(listener.fileno()))
        assert clients.control.turn(NOW) == []
        assert not select.select([clients.control.fileno()], [], [], 0)[0]
        assert clients.control.next_look == NOW + 1
    clients.control.turn(NOW + 1)
    client.sendall(STATUS)
    assert len(clients.turn(NOW + 1)) == 1


def test_a_client_is_heard_although_no_descriptor_is_left(clients: ControlClients) -> None:
    """In such a time an operator asks what is wrong. One is kept for that, and kept again when the client has left."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for now in (NOW, NOW + 1):  # between two such clients accepting is paused
        clients.turn(now)
        client = clients.connect()
        client.sendall(STATUS)
        highest = os.dup(0)  # the lowest that was free; what is open above it was opened before
        os.close(highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            (asked,) = clients.control.turn(now) or clients.control.turn(now)
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


def test_a_stale_socket_is_replaced_and_a_live_one_refused(clients: ControlClients) -> None:
    with pytest.raises(BindError, match=r"control_socket .*: a server is listening there; name another path"):
        ControlSocket(control_listener.listen(clients.path))
    clients.control.leave_behind()  # as a master that was killed: the file stays
    clients.control = ControlSocket(control_listener.listen(clients.path))
    clients.connect()


def test_the_file_is_removed_at_the_end_unless_it_is_anothers(clients: ControlClients) -> None:
    clients.control.close()
    assert not os.path.exists(clients.path)
    clients.control = ControlSocket(control_listener.listen(clients.path))
    os.rename(clients.path, f"{clients.path}.old")
    Path(clients.path).write_text("another's")
    clients.control.close()
    assert Path(clients.path).read_text() == "another's"
    clients.control = ControlSocket()


def test_a_client_that_waits_is_answered_by_the_next_program(clients: ControlClients) -> None:
    """Its connection is carried over; one that has not asked yet is not."""
    client, silent = clients.connect(), clients.connect()
    client.sendall(b'{"command": "reload", "wait": true}\n')
    (asked,) = clients.turn()
    assert clients.control.waiting() == [asked.fileno()]
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
