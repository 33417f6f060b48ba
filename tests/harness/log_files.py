"""Logs that a test opens, and pipes in place of standard streams."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from forkserver.linux.files.trusted_files import open_for_append
from forkserver.logs import journal
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.error_stream import ErrorStream

LINE = ("192.0.2.1", "", "GET / HTTP/1.1", 200, 12, "", "curl/8")


@contextmanager
def opened_log(path: Path, level: str = "info", process: str = "worker=3 gen=2") -> Iterator[ErrorLog]:
    """The error log at ``path``."""
    log = ErrorLog(str(path), level, process)
    try:
        yield log
    finally:
        os.close(log.fileno())


def appended(path: Path, service: int = -1) -> os.stat_result:
    """The file that a log at ``path`` is written to, with a line more than before."""
    number = open_for_append(str(path), 0o640, service)
    try:
        os.write(number, b"line\n")
        return os.fstat(number)
    finally:
        os.close(number)


@contextmanager
def access_log(target: str | Path, repeated_errors: list[str] | None = None) -> Iterator[AccessLog]:
    """The access log at ``target``."""
    log = AccessLog(str(target), None if repeated_errors is None else repeated_errors.append)
    try:
        yield log
    finally:
        if log.fileno() != 1:
            os.close(log.fileno())


@contextmanager
def pipe_as(number: int) -> Iterator[int]:
    """A pipe whose writing end stands at descriptor ``number``; gives the reading end."""
    kept = os.dup(number)
    reading, writing = os.pipe()
    os.dup2(writing, number)
    os.close(writing)
    try:
        yield reading
    finally:
        os.dup2(kept, number)
        os.close(kept)
        with suppress(OSError):
            os.close(reading)


@contextmanager
def journal_as_stderr(monkeypatch: pytest.MonkeyPatch, path: str = "/no/such/socket") -> Iterator[int]:
    """Standard error is a pipe, and JOURNAL_STREAM says that it is the journal's, whose socket is at ``path``."""
    monkeypatch.setattr(journal, "SOCKET", path)
    with pipe_as(2) as reading:
        stream = os.fstat(2)
        monkeypatch.setenv("JOURNAL_STREAM", f"{stream.st_dev}:{stream.st_ino}")
        yield reading


@contextmanager
def errors_to(path: Path, level: str = "info") -> Iterator[tuple[ErrorStream, ErrorLog]]:
    """``wsgi.errors`` that goes to ``path``, and the error log there."""
    log = ErrorLog(str(path), level, "worker=1 gen=1")
    try:
        yield ErrorStream(log), log
    finally:
        os.close(log.fileno())
