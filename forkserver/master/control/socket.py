"""The control socket: one line is asked and one is answered, on a Unix socket for root and the master's own user.

No client delays the master or fills its memory: nothing here waits, a question is bounded in size and time, an answer
that the client does not take is dropped, and the number of clients is bounded.
A client of another user can attach a descriptor to its question, and the kernel closes it in the context of the master.
Where Linux cannot refuse it (before 6.16), what has one beside it is not read but left to a child that ends.

Source: unix(7), SO_PEERCRED and SCM_RIGHTS; epoll(7): an epoll descriptor is itself readable when one of its own is.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from forkserver.linux import syscalls
from forkserver.linux.sockets import listening_socket
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.master.model.lifecycle import NEVER

KIB: Final = 1024
QUESTION_BYTES: Final = 4 * KIB
ANSWER_BYTES: Final = 8 * KIB * KIB  # the status of thousands of workers has two
MOST_CLIENTS: Final = 32
CLIENT_SECONDS: Final = 5.0  # for a question to come, and for an answer to be taken

_RETRY_SECONDS: Final = 1.0
_ACCEPTS: Final = 8  # of one turn
_MOST_QUEUED: Final = 2 * MOST_CLIENTS
_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class LineError(Exception):
    """What came is no question: too long, or more than one line."""


class Question:
    """Bytes as they come, to one line."""

    def __init__(self) -> None:
        self._came = b""

    def feed(self, data: bytes) -> bytes | None:
        """The line without its end, once it is whole; empty ``data`` is the end of the client's bytes.

        Raises LineError.
        """
        self._came += data
        line, ended, rest = self._came.partition(b"\n")
        if rest:
            raise LineError("more than one line; ask one question on a connection")
        if len(line) > QUESTION_BYTES:
            raise LineError(f"longer than {QUESTION_BYTES} bytes; no command needs so much")
        return line.removesuffix(b"\r") if ended or not data else None


class ControlClient:
    """One connection. ``line`` is its question, once it is there; ``answer`` ends it."""

    def __init__(self, sock: socket.socket, epoll: select.epoll, now: float) -> None:
        self.line = b""
        self.deadline = now + CLIENT_SECONDS
        self.closed = False
        self._socket = sock
        self._epoll = epoll
        self._question: Question | None = Question()
        self._unsent: memoryview | None = None
        self._beside: tuple[int, ...] = ()  # descriptors that go with the first byte
        self._epoll.register(sock, select.EPOLLIN)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def waiting(self) -> bool:
        """Whether it has asked, and is not answered yet."""
        return not self.closed and self._question is None and self._unsent is None

    def wait(self) -> None:
        """It has asked already, the program before: nothing is read any more, only its end is told."""
        self._question, self.deadline = None, NEVER
        self._epoll.modify(self._socket, 0)

    @property
    def entitled(self) -> bool:
        """Whether it is root or our own user. The file's mode says so already; this holds where that was changed."""
        data = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return _CREDENTIALS.unpack(data)[1] in (0, os.geteuid())

    def turn(self, event: int, now: float) -> bool:
        """Read or send what can be; whether the question is there now."""
        if self._unsent is not None:
            self._send()
        elif self._question is not None:
            return self._read(self._question, now)
        elif event & (select.EPOLLHUP | select.EPOLLERR):
            self.close()  # the client does not wait for the answer any more
        return False

    def _read(self, question: Question, now: float) -> bool:
        try:
            data, _, flags, _ = self._socket.recvmsg(QUESTION_BYTES, 0, socket.MSG_PEEK)
            if flags & socket.MSG_CTRUNC:  # a descriptor is beside it, which is closed where it is taken
                self.close()
                return False
            line = question.feed(self._socket.recv(len(data)) if data else b"")
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        except LineError as error:
            self.answer({"ok": False, "error": str(error)}, now)
            return False
        if line is None:
            return False
        if not line:
            self.close()
            return False
        self.line = line
        self.wait()
        return True

    def answer(self, reply: Mapping[str, Any], now: float, descriptors: Sequence[int] = ()) -> None:
        """Send ``reply`` and close; a client that has gone gets nothing. ``descriptors`` go with it, and are closed."""
        self._beside = tuple(descriptors)
        if self.closed:
            self._close_beside()
            return
        data = json.dumps(reply).encode() + b"\n"
        if len(data) > ANSWER_BYTES:
            data = json.dumps({"ok": False, "error": f"the answer has {len(data)} bytes, too many"}).encode() + b"\n"
        self._question, self._unsent = None, memoryview(data)
        self.deadline = now + CLIENT_SECONDS
        self._epoll.modify(self._socket, select.EPOLLOUT)
        self._send()

    def _send(self) -> None:
        assert self._unsent is not None
        try:
            beside = syscalls.control_messages(self._beside)
            self._unsent = self._unsent[self._socket.sendmsg([self._unsent], beside, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._close_beside()
        if not self._unsent:
            self.close()

    def _close_beside(self) -> None:
        """Close our copies of what has been sent, or cannot be."""
        numbers, self._beside = self._beside, ()
        for number in numbers:
            os.close(number)

    def close(self) -> None:
        """Give everything back. Closing twice is once."""
        self._close_beside()
        if not self.closed:
            self.closed = True
            self._epoll.unregister(self._socket)  # before the close: a child just forked may hold it, too
            _discard(self._socket)

    def leave_behind(self) -> None:
        """In a child: close its copy, and leave the master's alone."""
        self._close_beside()
        self._socket.close()


class ControlSocket:
    """A control socket that listens at ``listener``, or nowhere.

    ``next_look`` is when ``turn`` has to be called although nothing is readable.
    """

    def __init__(self, listener: ListeningSocket | None = None) -> None:
        self._epoll = select.epoll()
        self._clients: dict[int, ControlClient] = {}
        self._paused_until = NEVER
        self._spare = -1  # a descriptor for a client that asks what is wrong where none is left
        self._listener: ListeningSocket | None = None
        self.move(listener)

    def move(self, listener: ListeningSocket | None) -> None:
        """Listen at ``listener`` from now on, or nowhere; clients that are connected already get their answers."""
        before, self._listener, self._paused_until = self._listener, listener, NEVER
        if listener is not None:
            self._epoll.register(listener.fileno(), select.EPOLLIN)
        if before is not None:
            self._epoll.unregister(before.fileno())
            give_up(before)

    @property
    def gone(self) -> bool:
        """Whether its file was removed, so that no client finds it."""
        return self._listener is not None and self._listener.gone

    def snapshot(self) -> listening_socket.ListenerSnapshot | None:
        """What the next program is told of the listener."""
        return None if self._listener is None else self._listener.snapshot()

    def waiting(self) -> list[int]:
        """The descriptors of clients that wait for an answer; the others ask the next program again."""
        return [client.fileno() for client in self._clients.values() if client.waiting]

    def adopt_client(self, number: int, now: float) -> ControlClient:
        """The client of that descriptor, which waits for an answer of the program before."""
        client = ControlClient(PlainSocket(fileno=number), self._epoll, now)
        client.wait()
        self._clients[number] = client
        return client

    @classmethod
    def restore(cls, snapshot: listening_socket.ListenerSnapshot, service: int = -1) -> ControlSocket:
        """The socket on which the program before listened."""
        return cls(ListeningSocket.from_snapshot(snapshot, service=service))

    @property
    def path(self) -> str | None:
        """Where it listens."""
        return self._listener.path if self._listener is not None else None

    def fileno(self) -> int:
        """Readable when there is something to do."""
        return self._epoll.fileno()

    @property
    def next_look(self) -> float:
        """When a client has taken too long, or accepting is tried again."""
        return min([self._paused_until, *(client.deadline for client in self._clients.values())])

    def turn(self, now: float) -> list[ControlClient]:
        """Do what can be done without waiting; returns those whose question has come."""
        asked = []
        for number, event in self._epoll.poll(0):
            if self._listener is not None and number == self._listener.fileno():
                self._accept(now)
            elif (client := self._clients.get(number)) is not None and client.turn(event, now):
                asked.append(client)
        self._end_overdue(now)
        return asked

    def _end_overdue(self, now: float) -> None:
        for client in self._clients.values():
            if now >= client.deadline:
                client.close()
        self._clients = {number: client for number, client in self._clients.items() if not client.closed}
        if self._spare < 0:
            with suppress(OSError):  # none is free yet
                self._spare = os.dup(self._epoll.fileno())
        if now >= self._paused_until and self._listener is not None:
            self._paused_until = NEVER
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN)

    def _accept(self, now: float) -> None:
        assert self._listener is not None
        for _ in range(_ACCEPTS):
            try:
                sock, _ = self._listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED and self._spare >= 0:
                    self._give_spare()
                    continue
                if error.errno in _EXHAUSTED:  # it would wake us again at once
                    self._epoll.modify(self._listener.fileno(), 0)
                    self._paused_until = now + _RETRY_SECONDS
                return
            sock.setblocking(False)
            self._welcome(ControlClient(sock, self._epoll, now), now)

    def _welcome(self, client: ControlClient, now: float) -> None:
        if not client.entitled:
            client.answer({"ok": False, "error": "only root and the user that forkserver runs as may ask"}, now)
        elif sum(not each.closed for each in self._clients.values()) >= MOST_CLIENTS:
            client.answer({"ok": False, "error": f"{MOST_CLIENTS} clients are here already; ask again later"}, now)
        if not client.closed:
            self._clients[client.fileno()] = client

    def leave_behind(self) -> None:
        """In a process just forked: close every descriptor, and leave the master's own alone."""
        for client in self._clients.values():
            client.leave_behind()
        if self._listener is not None:
            self._listener.close()
        self._give_spare()
        self._epoll.close()

    def close(self) -> None:
        """Close everything, and remove the socket's file."""
        for client in self._clients.values():
            client.close()
        if self._listener is not None:
            give_up(self._listener)
        self._listener, self._clients = None, {}
        self._give_spare()
        self._epoll.close()

    def _give_spare(self) -> None:
        """Close the descriptor that is kept for a client, so that there is one."""
        number, self._spare = self._spare, -1
        if number >= 0:
            os.close(number)


def _discard(sock: socket.socket) -> None:
    """Close ``sock`` without waiting for anything that its client has sent.

    A descriptor may be on its way to us: it would be closed in our context, and one that lingers would hold us.
    """
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)  # nothing comes any more
    if not syscalls.holds_descriptors(sock):
        sock.close()
        return
    try:
        syscalls.close_in_child(sock)
    except OSError:
        sock.detach()  # no process to be had: better that a descriptor stays than that the master waits


def give_up(listener: ListeningSocket) -> None:
    """Remove a control socket's file and close it; clients that wait in its queue are closed as any other."""
    listener.unlink()
    for _ in range(_MOST_QUEUED):
        try:
            sock, _ = listener.socket.accept()
        except OSError:  # none is there
            break
        _discard(sock)
    listener.close()
