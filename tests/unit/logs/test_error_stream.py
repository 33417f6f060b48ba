"""``wsgi.errors``: the application's own text in the error log."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import threading
from pathlib import Path

import pytest

from forkserver.logs.error_log import ErrorLog
from forkserver.logs.error_stream import ErrorStream
from harness.log_files import errors_to, pipe_as


@pytest.mark.parametrize("level", ["debug", "critical"])
def test_wsgi_errors_passes_lines_on_as_they_are_at_every_log_level(tmp_path: Path, level: str) -> None:
    """log_level is for forkserver's events; the application has said by its own level what it wants to be read."""
    record = "[2026-01-02 03:04:05,678] INFO in app: caf\u00e9 \x1b[32mgreen\x1b[0m\n"
    with errors_to(tmp_path / "log", level) as (stream, _):
        assert stream.write(record) == len(record)
    assert (tmp_path / "log").read_text(encoding="utf-8") == record


def test_a_flask_style_handler_on_wsgi_errors_is_not_labelled_an_error(tmp_path: Path) -> None:
    logger = logging.Logger("app")
    with errors_to(tmp_path / "log") as (stream, _):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(levelname)s in %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.info("an order came in")
        try:
            raise ValueError("of the application")
        except ValueError:
            logger.exception("it failed")
    first, second, *traceback = (tmp_path / "log").read_text().splitlines()
    assert (first, second) == ("INFO in app: an order came in", "ERROR in app: it failed")
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == "ValueError: of the application"


def test_under_the_journal_only_our_own_events_have_a_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without one has SyslogLevel= of the unit, info by default."""
    with pipe_as(2) as reading:
        found = os.fstat(2)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        log = ErrorLog("-", "info", "worker=1 gen=1")
        ErrorStream(log).write("INFO in app: fine\n")
        log.error("ours")
        own, ours = os.read(reading, 4096).splitlines()
    assert own == b"INFO in app: fine"
    assert ours.startswith(b"<3>")


def test_what_one_call_completes_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else lines of other processes stand in the middle of a traceback."""
    written: list[bytes] = []
    really_write = os.write

    def write(fd: int, data: bytes) -> int:
        written.append(bytes(data))
        return really_write(fd, data)

    with errors_to(tmp_path / "log") as (stream, _), monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        stream.write("begun ")
        stream.write("and ended\nTraceback\n  File\nrest")
        stream.flush()
        stream.flush()
        stream.writelines(["a\n", "b\n"])
    assert written == [b"begun and ended\nTraceback\n  File\n", b"rest\n", b"a\n", b"b\n"]


def test_threads_do_not_mix_what_they_have_begun(tmp_path: Path) -> None:
    """print() writes the text first and the line feed then."""
    met = threading.Barrier(2)

    def speak(stream: ErrorStream, word: str) -> None:
        for _ in range(50):
            met.wait(20)
            print(word, end="", file=stream)
            met.wait(20)
            print(file=stream)

    with errors_to(tmp_path / "log") as (stream, _):
        threads = [threading.Thread(target=speak, args=(stream, word)) for word in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert sorted((tmp_path / "log").read_text().split("\n")) == ["", *["one"] * 50, *["two"] * 50]


def test_what_threads_leave_unended_is_bounded(tmp_path: Path) -> None:
    """Neither a line without an end nor threads that end in the middle of one may fill the memory."""
    with errors_to(tmp_path / "log") as (stream, _):
        stream.unended.update((-number, "left") for number in range(1, 300))
        stream.write("beyond")
        assert threading.get_ident() not in stream.unended
        stream.unended.clear()
        stream.write("x" * 20_000)
        assert not stream.unended
    assert (tmp_path / "log").read_text() == "beyond\n" + "x" * 20_000 + "\n"


def test_wsgi_errors_is_a_text_stream_that_stays_open(tmp_path: Path) -> None:
    """Libraries ask it what they ask standard error: whether to colour, and for a descriptor for their children."""
    with errors_to(tmp_path / "log") as (stream, log):
        assert isinstance(stream, io.TextIOBase)
        assert (stream.isatty(), stream.writable(), stream.readable(), stream.seekable()) == (False, True, False, False)
        assert (stream.encoding, stream.errors, stream.name) == ("utf-8", "backslashreplace", str(tmp_path / "log"))
        with pytest.raises(TypeError, match="must be str, not bytes"):
            stream.write(b"bytes")  # type: ignore[arg-type]
        stream.write("begun")
        stream.close()
        assert not stream.closed
        stream.write("lone \udce9\n")
        number = stream.fileno()
        (tmp_path / "log").rename(tmp_path / "log.1")
        log.reopen()
        assert stream.fileno() == number, "a number that was asked for before a rotation leads to the new file"
        subprocess.run(["sh", "-c", "echo of a child >&2"], stderr=stream, check=True)  # type: ignore[call-overload]
    assert (tmp_path / "log.1").read_text() == "begun\nlone \\udce9\n"
    assert (tmp_path / "log").read_text() == "of a child\n"
    assert ErrorStream(ErrorLog("-", "info")).name == "<stderr>"


def test_wsgi_errors_says_whether_the_error_log_is_a_terminal() -> None:
    """Colours are for people."""
    ours, theirs = os.openpty()
    kept = os.dup(2)
    try:
        os.dup2(theirs, 2)
        assert ErrorStream(ErrorLog("-", "info")).isatty()
    finally:
        os.dup2(kept, 2)
        for number in (kept, ours, theirs):
            os.close(number)


def test_half_a_line_of_the_parents_is_not_completed_in_a_child(tmp_path: Path) -> None:
    with errors_to(tmp_path / "log") as (stream, _):
        stream.write("half a line")
        stream.forget()
        stream.write("its own\n")
    assert (tmp_path / "log").read_text() == "its own\n"
