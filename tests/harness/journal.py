"""Entries in their order of arrival, and a way to wait for the one that matters.

A journal refuses to know where its entries come from: ``from_lines`` feeds it a program's log, ``Manager``
what a service says to systemd. Each is fed by a thread of its own, so the program under test is never held up.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from harness import BOUND

_LOOK = 0.1  # seconds between two looks at what no entry tells of


class Entry(NamedTuple):
    at: float  # time.monotonic when it arrived here
    text: str


class Journal:
    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: list[Entry] = []
        self.ended = False
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, text: str) -> None:
        with self._news:
            self.entries.append(Entry(time.monotonic(), text))
            self._news.notify_all()

    def end(self) -> None:
        with self._news:
            self.ended = True
            self._news.notify_all()

    def mark(self) -> int:
        """Where the journal ends now; give it to ``wait`` as ``since`` to look only at what comes after."""
        with self._news:
            return len(self.entries)

    def find(self, pattern: str, since: int = 0) -> Entry | None:
        sought = re.compile(pattern)
        return next((entry for entry in self.entries[since:] if sought.search(entry.text)), None)

    def wait(self, pattern: str, since: int = 0) -> Entry:
        """The first entry since ``since`` that holds ``pattern``; AssertionError where none can come any more."""
        self.until(lambda: self.ended or self.find(pattern, since) is not None, f"an entry matching {pattern!r}")
        entry = self.find(pattern, since)
        assert entry, f"{self.name} ended without {pattern!r}; it holds:\n{self.text()}"
        return entry

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition`` holds, looking again after each entry, and meanwhile: who leaves writes nothing."""
        end = time.monotonic() + BOUND
        with self._news:
            while not (met := condition()) and time.monotonic() < end:
                self._news.wait(_LOOK)
        assert met, f"{what} never came; {self.name} holds:\n{self.text()}"

    def text(self) -> str:
        return "\n".join(entry.text for entry in self.entries)

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(BOUND)
            assert not self._thread.is_alive(), f"{self.name} has no end: a process still holds it open"

    def start(self, feed: Callable[[], None]) -> Journal:
        self._thread = threading.Thread(target=feed, name=self.name, daemon=True)
        self._thread.start()
        return self


def from_lines(name: str, descriptor: int, then: Callable[[], None] = lambda: None) -> Journal:
    """Read ``descriptor`` line by line until end-of-file, then close it and call ``then``."""
    journal = Journal(name)

    def feed() -> None:
        with os.fdopen(descriptor, encoding="utf-8", errors="backslashreplace") as lines:
            for line in lines:
                journal.add(line.rstrip("\n"))
        journal.end()
        then()

    return journal.start(feed)


class Manager:
    """The socket to which a service under systemd reports; ``said`` is the journal of its datagrams."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("")  # autobind: an abstract name that the kernel picks, see unix(7)
        self._name: bytes = self._socket.getsockname()
        self.said = Journal("what the service told its manager").start(self._feed)

    @property
    def address(self) -> str:
        """What belongs in NOTIFY_SOCKET."""
        return "@" + self._name[1:].decode()

    def _feed(self) -> None:
        while datagram := self._socket.recv(65536):
            self.said.add(datagram.decode())
        self.said.end()

    def close(self) -> None:
        self._socket.sendto(b"", self._name)  # an empty datagram is our own end mark
        self.said.join()
        self._socket.close()
