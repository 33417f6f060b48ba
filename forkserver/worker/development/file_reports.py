"""Which files an import has read: found in the process that imports, and reported to the file watcher.

A report is a datagram: its kind, then the paths, each with a null byte behind it. An import that succeeds reports the
files of all modules there are, one that fails also those in its tracebacks: a module that fails is in no table of
modules afterwards. A worker goes on to report what its requests import.

Source: https://docs.python.org/3/library/sys.html#sys.modules, unix(7).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

from forkserver.errors import PACKAGE
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.sockets.plain_socket import PlainSocket, socketpair
from forkserver.linux.syscalls import wall_time

REPORT_BYTES: Final = 32 * 1024  # of one datagram; a longer report is several
PATH_BYTES: Final = 4096  # PATH_MAX
SEND_SECONDS: Final = 2.0  # that a watcher may take to take a report
_MOST_ERRORS: Final = 64  # of a chain of exceptions

_STDLIB: Final = os.path.dirname(os.__file__) + os.sep
_INSTALLED: Final = ("site-packages", "dist-packages")


class ReportKind(Enum):
    BEGUN = b"B"  # an import begins; in place of paths, when (ns since the epoch)
    READ = b"R"  # files that it, or a request, has read
    FAILED = b"F"  # files that it had read when it failed
    FOLDERS = b"S"  # where an import that failed has looked for modules


class Report(NamedTuple):
    kind: ReportKind
    paths: list[str]

    @property
    def begun_ns(self) -> int:
        """When the import has begun; 0 where that is not said, so that every file counts as changed since."""
        return int(self.paths[0]) if self.paths and self.paths[0].isdecimal() else 0


class FileReporter:
    """Sends reports on ``sock``. A watcher that takes none, or has gone, costs nothing but its knowledge."""

    def __init__(self, sock: PlainSocket) -> None:
        self._sock = sock
        self._modules = 0  # that there were at the last report
        self._told: set[str] = set()

    def fileno(self) -> int:
        return self._sock.fileno()

    def begun(self) -> None:
        """Report that an import begins."""
        self._send(ReportKind.BEGUN, [str(int(wall_time() * 1e9))])

    def failed(self, error: Exception) -> None:
        """Report what the import has read that ``error`` has ended."""
        self._send(ReportKind.FAILED, module_files() | files_of(error))
        self._send(ReportKind.FOLDERS, search_folders())

    def succeeded(self) -> None:
        """Report what the import has read."""
        self._modules, self._told = len(sys.modules), module_files()
        self._send(ReportKind.READ, self._told)

    def look(self) -> None:
        """Report what was imported since the last report."""
        if len(sys.modules) == self._modules:
            return
        self._modules, found = len(sys.modules), module_files()
        if new := found - self._told:
            self._told = found
            self._send(ReportKind.READ, new)

    def raised(self, error: Exception) -> None:
        """Report the files of what a request has raised: a module that it failed to import is among them."""
        self._send(ReportKind.READ, files_of(error))

    def _send(self, kind: ReportKind, paths: Iterable[str] = ()) -> None:
        for datagram in encode(kind, paths):
            try:
                self._sock.send(datagram)
            except OSError:  # no watcher takes it: another one is started, and the code is loaded again for that
                return

    def close(self) -> None:
        self._sock.close()


@contextmanager
def importing(reporter: FileReporter | None) -> Iterator[None]:
    """Around an import: tell ``reporter``, where there is one, that it begins and what it has read."""
    if reporter is None:
        yield
        return
    reporter.begun()
    try:
        yield
    except Exception as error:
        reporter.failed(error)
        raise
    reporter.succeeded()


def encode(kind: ReportKind, paths: Iterable[str]) -> Iterator[bytes]:
    """The datagrams of a report; a path that no system call would take is left out."""
    data, sent = kind.value, False
    for path in sorted(paths):
        entry = os.fsencode(path) + b"\0"
        if len(entry) > PATH_BYTES or b"\0" in entry[:-1]:
            continue
        if len(data) + len(entry) > REPORT_BYTES:
            yield data
            data, sent = kind.value, True
        data += entry
    if len(data) > 1 or not sent:
        yield data


def decode(data: bytes) -> Report | None:
    """The report in a datagram; None where it is none."""
    try:
        kind = ReportKind(data[:1])
    except ValueError:
        return None
    return Report(kind, [os.fsdecode(path) for path in data[1:].split(b"\0") if path])


def module_files() -> set[str]:
    """The files of the modules that there are, but those of the standard library and of forkserver."""
    found = set()
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and path and not _is_fixed(path):
            found.add(os.path.abspath(path))
    return found


def _is_fixed(path: str) -> bool:
    """Whether no person who writes an application changes ``path``."""
    if path.startswith(PACKAGE + os.sep):
        return True
    return path.startswith(_STDLIB) and path[len(_STDLIB) :].partition(os.sep)[0] not in _INSTALLED


def files_of(error: BaseException) -> set[str]:
    """The files that ``error``, and what it came from, name: of their frames, of a syntax, or one that is missing."""
    found: set[str] = set()
    ahead: list[BaseException] = [error]
    seen: set[int] = set()
    while ahead and len(seen) < _MOST_ERRORS:
        each = ahead.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        ahead += filter(None, (each.__cause__, each.__context__))
        named = each.filename if isinstance(each, SyntaxError | OSError) else None
        if isinstance(named, str):
            found.add(named)
        frames = each.__traceback__
        while frames is not None:
            found.add(frames.tb_frame.f_code.co_filename)
            frames = frames.tb_next
    return {os.path.abspath(path) for path in found if path and not path.startswith("<") and not _is_fixed(path)}


def search_folders() -> set[str]:
    """The folders of modules that are a person's own: those on the path of modules, and those of its packages."""
    own = {os.path.abspath(path) for path in sys.path if not _is_installed(path)}
    own |= {os.path.dirname(path) for path in module_files() if not _is_installed(path)}
    return {path for path in own if os.path.isdir(path)}


def _is_installed(path: str) -> bool:
    return any(f"{os.sep}{name}" in path for name in _INSTALLED) or os.path.join(path, "").startswith(_STDLIB)


def pair() -> tuple[PlainSocket, PlainSocket]:
    """Where the watcher hears reports, and where processes send them. Raises OSError."""
    hears, sends = socketpair(socket.SOCK_DGRAM)
    sends.settimeout(SEND_SECONDS)
    return hears, sends
