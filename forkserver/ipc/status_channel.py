"""The channel on which the admin process asks the master for the status of the service, and can ask nothing else.

A question is a count added to an eventfd: it has no content, so there is nothing in it to believe, and it can carry no
descriptor. An answer is a line of JSON on a stream socket, which the master only writes to: its end is shut for
reading, and it sends what the socket takes without waiting. The master answers at most once in ``PAUSE_SECONDS``, and
holds one answer at a time, which is to be taken within ``TAKE_SECONDS``.

Source: eventfd(2), unix(7), shutdown(2).
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Mapping
from typing import Any, Final

from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.sockets.plain_socket import PlainSocket, socketpair

KIB: Final = 1024
ANSWER_BYTES: Final = 8 * KIB * KIB  # the status of thousands of workers has two
PAUSE_SECONDS: Final = 0.2  # the admin process itself asks at most four times a second
TAKE_SECONDS: Final = 5.0

_CHUNK_BYTES: Final = 256 * KIB
_NEVER: Final = float("inf")


class NoStatusError(Exception):
    """The master has not answered in time; its text says so."""


class ClosedError(Exception):
    """The master has gone, or has closed its end."""


class StatusEnds(NamedTuple):
    """What the admin process is given: the descriptor to ring, and the socket that answers come on."""

    bell: int
    answers: PlainSocket

    def close(self) -> None:
        os.close(self.bell)
        self.answers.close()


class StatusAnswers:
    """The master's end. ``fileno`` is readable when ``turn`` has something to do."""

    def __init__(self, bell: int, answers: socket.socket) -> None:
        self._bell = bell
        self._answers = answers
        self._epoll = select.epoll()
        self._epoll.register(bell, select.EPOLLIN)
        self._unsent = memoryview(b"")
        self._next = _NEVER  # when questions are heard again
        self._deadline = _NEVER  # by when the answer is to be taken

    @classmethod
    def pair(cls) -> tuple[StatusAnswers, StatusEnds]:
        """A new channel, and what the admin process is given. Raises OSError."""
        bell = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            ours, theirs = socketpair(socket.SOCK_STREAM)
        except BaseException:
            os.close(bell)
            raise
        ours.shutdown(socket.SHUT_RD)
        return cls(bell, ours), StatusEnds(os.dup(bell), theirs)

    def fileno(self) -> int:
        return self._epoll.fileno()

    @property
    def next_look(self) -> float:
        """When ``turn`` is due although nothing is readable."""
        return min(self._next, self._deadline)

    def asked(self, now: float) -> bool:
        """Whether a question waits for its ``answer``. Sends first what is left of the last one; raises ClosedError."""
        if self._unsent:
            self._send()
            if now >= self._deadline:
                raise ClosedError("an answer was not taken in time")
            return False
        if self._next != _NEVER:
            if now < self._next:
                return False
            self._next = _NEVER
            self._epoll.register(self._bell, select.EPOLLIN)
        return bool(syscalls.take_count(self._bell))

    def answer(self, status: Mapping[str, Any], now: float) -> None:
        """Send ``status``, as much as is taken now. Raises ClosedError."""
        data = json.dumps(status).encode() + b"\n"
        if len(data) > ANSWER_BYTES:
            data = json.dumps({"ok": False, "error": f"the status has {len(data)} bytes, too many"}).encode() + b"\n"
        self._unsent = memoryview(data)
        self._deadline, self._next = now + TAKE_SECONDS, now + PAUSE_SECONDS
        self._epoll.unregister(self._bell)
        self._epoll.register(self._answers, select.EPOLLOUT)
        self._send()

    def _send(self) -> None:
        try:
            self._unsent = self._unsent[syscalls.send_now(self._answers.fileno(), self._unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            raise ClosedError(f"the other end is closed: {error.strerror}") from None
        if not self._unsent:
            self._deadline = _NEVER
            self._epoll.unregister(self._answers)

    def close(self) -> None:
        """Close everything; in a process just forked this leaves the master's own copies alone."""
        self._epoll.close()
        os.close(self._bell)
        self._answers.close()


class StatusQuestions:
    """The end of the admin process, made of ``ends``, which it takes over."""

    def __init__(self, ends: StatusEnds) -> None:
        self._bell = ends.bell
        self._answers = ends.answers
        self._answers.setblocking(False)
        self._waiting = False  # a question is not answered yet
        self._came = bytearray()

    def fileno(self) -> int:
        """Readable when something has come, or the master has closed its end."""
        return self._answers.fileno()

    def ask(self, seconds: float) -> dict[str, Any]:
        """The status of the service. Raises NoStatusError where it does not come within ``seconds``.

        After that the same question is still open, and until its answer comes it is only looked for, without a wait.
        """
        until = syscalls.clock()
        if not self._waiting:
            self._came.clear()  # what came when no client waited any longer is old by now
            os.eventfd_write(self._bell, 1)
            self._waiting = True
            until += seconds
        while self._waiting:
            if not syscalls.has_event(self.fileno(), select.POLLIN, max(0.0, until - syscalls.clock())):
                raise NoStatusError(f"the master has not answered within {seconds:g} s")
            try:
                self.receive()
            except ClosedError as error:
                raise NoStatusError(str(error)) from None
        line, self._came = bytes(self._came), bytearray()
        status = json.loads(line)
        if not isinstance(status, dict) or not status.get("ok"):
            raise NoStatusError(str(status.get("error", status)) if isinstance(status, dict) else "not a status")
        return status

    def receive(self) -> None:
        """Take what has come, as far as it is there. Raises ClosedError."""
        try:
            data = self._answers.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except ConnectionError as error:
            raise ClosedError(f"the master is gone: {error.strerror}") from None
        if not data:
            raise ClosedError("the master has closed its end")
        self._came += data
        if data.endswith(b"\n"):  # an answer is one line, and the next one follows the next question
            self._waiting = False

    def close(self) -> None:
        os.close(self._bell)
        self._answers.close()
