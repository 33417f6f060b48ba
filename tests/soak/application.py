"""What is served while it soaks: /KIND/NUMBER/ARGUMENT, each answer with its request's number, and a journal of calls.

It promises that a call is in the journal before anything of it can be answered. A line is one write(2) to a file opened
with O_APPEND, so lines of several workers never mix, and a worker that is killed leaves its lines behind.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from soak import lies, material

FOLDER = "SOAK_FOLDER"  # the variable that names the folder of the pool and of the journal
POOL = "pool"
JOURNAL = "journal"
SEGMENT_SECONDS = 60  # the journal is many files, so that those that were read can be removed
BEGUN, ENDED, DYING = "b", "e", "d"
BLOCK = 64 * 1024
Environ = dict[str, Any]
Headers = list[tuple[str, str]]
_FULL = frozenset((errno.EMFILE, errno.ENFILE))
_GENERATION = re.compile(rb"forkserver: worker \d+ gen (\d+) ")


class Journal:
    """The calls of this process."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._segment = self._now()
        # At once: a worker that inherits it can write even when it has no descriptor left.
        self._fd = self._open(self._segment)

    def note(self, what: str, number: str) -> None:
        if self._now() != self._segment:
            self._turn_over()
        os.write(self._fd, f"{what} {number} {os.getpid()} {time.monotonic():.6f}\n".encode())

    @staticmethod
    def _now() -> int:
        return int(time.monotonic() // SEGMENT_SECONDS)

    def _open(self, segment: int) -> int:
        return os.open(f"{self._folder}/{JOURNAL}.{segment}", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)

    def _turn_over(self) -> None:
        segment = self._now()
        try:
            fresh = self._open(segment)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            return  # the old segment does as well for as long
        os.dup2(fresh, self._fd, inheritable=False)  # the number stays: another thread may be about to write
        os.close(fresh)
        self._segment = segment


class Application:
    """One release of the code; every answer says ``version``."""

    def __init__(self, version: int) -> None:
        self._version = str(version)
        self._folder = os.environ[FOLDER]
        self._journal = Journal(self._folder)
        self._grown: list[bytearray] = []
        self._generations: dict[int, str] = {}
        material.pool()  # made before the fork, it is shared

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        _, kind, number, argument = environ["PATH_INFO"].split("/")
        self._journal.note(BEGUN, number)
        headers = [("X-Number", number), ("X-Pid", str(os.getpid())), ("X-Version", self._version)]
        try:
            headers.append(("X-Generation", self._generation()))
            body, more = getattr(self, f"_{kind}")(environ, int(number), argument)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            headers += [("X-Short-Of", "descriptors"), ("Content-Length", "0")]
            start_response("503 Service Unavailable", headers)
            self._journal.note(ENDED, number)
            return []
        start_response("200 OK", [*headers, ("Content-Type", "application/octet-stream"), *more])
        if kind == "stream":
            return self._until_ended(body, number)
        self._journal.note(ENDED, number)
        return body  # type: ignore[no-any-return]

    def _generation(self) -> str:
        """As this worker's title shows it; the import may have happened in its template."""
        pid = os.getpid()
        if pid not in self._generations:
            found = _GENERATION.search(Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" "))
            self._generations = {pid: found[1].decode() if found else "0"}
        return self._generations[pid]

    def _until_ended(self, body: Iterator[bytes], number: str) -> Iterator[bytes]:
        try:
            yield from body
        finally:
            self._journal.note(ENDED, number)

    # The kinds: body, and fields of the head. They are called by name.

    def _said(self, kind: str, number: int) -> tuple[list[bytes], Headers]:
        body = f"{kind} {number}".encode()
        return [body], [("Content-Length", str(len(body)))]

    def _small(self, _environ: Environ, number: int, _argument: str) -> tuple[list[bytes], Headers]:
        return self._said("small", number)

    def _sleep(self, _environ: Environ, number: int, argument: str) -> tuple[list[bytes], Headers]:
        time.sleep(int(argument) / 1000)
        return self._said("sleep", number)

    def _grow(self, _environ: Environ, number: int, argument: str) -> tuple[list[bytes], Headers]:
        """Keep memory for ever, as an application that leaks."""
        self._grown.append(bytearray(b"x" * int(argument)))
        return self._said("grow", number)

    def _die(self, _environ: Environ, number: int, _argument: str) -> tuple[list[bytes], Headers]:
        """Crash this worker."""
        self._journal.note(DYING, str(number))
        signal.raise_signal(signal.SIGKILL)
        return self._said("die", number)

    def _lie(self, environ: Environ, number: int, argument: str) -> tuple[list[bytes], Headers]:
        """Report to the master what is not so, with the pid ``argument`` and others, and crash."""
        lies.tell(random.Random(number), int(argument))
        return self._die(environ, number, argument)

    def _whole(self, _environ: Environ, number: int, argument: str) -> tuple[list[bytes], Headers]:
        return [material.piece(number, int(argument))], [("Content-Length", argument)]

    def _stream(self, _environ: Environ, number: int, argument: str) -> tuple[Iterator[bytes], Headers]:
        """Blocks of all lengths, and no length said before."""
        chance, body = random.Random(number), material.piece(number, int(argument))

        def blocks() -> Iterator[bytes]:
            at = 0
            while at < len(body):
                size = int(chance.paretovariate(0.5) * 512)
                yield body[at : at + size]
                at += size

        return blocks(), []

    def _file(self, environ: Environ, number: int, argument: str) -> tuple[Iterable[bytes], Headers]:
        file = open(f"{self._folder}/{POOL}", "rb")
        file.seek(material.begin(number))
        return environ["wsgi.file_wrapper"](file, BLOCK), [("Content-Length", argument)]

    def _digest(self, environ: Environ, _number: int, _argument: str) -> tuple[list[bytes], Headers]:
        """SHA-256 and size of what was uploaded."""
        digest, size = hashlib.sha256(), 0
        while block := environ["wsgi.input"].read(BLOCK):
            digest.update(block)
            size += len(block)
        body = f"{size} {digest.hexdigest()}".encode()
        return [body], [("Content-Length", str(len(body)))]
