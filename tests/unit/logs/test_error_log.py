"""The error log."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from forkserver.logs import error_log
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from harness.log_files import errors_to, journal_as_stderr, opened_log, pipe_as

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"


def test_an_event_is_one_line_that_names_the_process(tmp_path: Path) -> None:
    """Several processes share the file."""
    with opened_log(tmp_path / "log") as log:
        log.info("ready")
        log.process = "master"
        log.critical("no worker left")
    first, second = (tmp_path / "log").read_text().splitlines()
    assert re.fullmatch(rf"{STAMP} info worker=3 gen=2 pid={os.getpid()} ready", first)
    assert re.fullmatch(rf"{STAMP} critical master pid={os.getpid()} no worker left", second)


def test_the_time_is_in_utc_to_the_millisecond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is after the millisecond is left out, so that no line is from the future."""
    monkeypatch.setattr(error_log, "wall_time", lambda: 1_000_000_000.0629)
    with opened_log(tmp_path / "log") as log:
        log.info("ready")
    assert (tmp_path / "log").read_text().startswith("2001-09-09T01:46:40.062+00:00 info ")


def test_the_process_id_is_the_writers_own(tmp_path: Path) -> None:
    """The log is made before the fork."""
    with opened_log(tmp_path / "log") as log:
        child = os.fork()
        if child == 0:
            log.info("hello")
            os._exit(0)
        os.waitpid(child, 0)
    assert f"pid={child} hello" in (tmp_path / "log").read_text()


def test_events_below_the_level_are_left_out(tmp_path: Path) -> None:
    """debug is for days that need it."""
    with opened_log(tmp_path / "log", "warning") as log:
        for write in (log.debug, log.info, log.warning, log.error, log.critical):
            write("x")
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["warning", "error", "critical"]


def test_a_message_cannot_forge_a_second_event(tmp_path: Path) -> None:
    """Names and request lines in messages come from outside."""
    with opened_log(tmp_path / "log") as log:
        log.info("a\nb\r\x1b[31m\x85\u2028\udc80é\u202e\u200b")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith(r"a\nb\r\x1b[31m\x85\u2028\udc80é\u202e\u200b")


def test_a_traceback_is_indented_beneath_its_event(tmp_path: Path) -> None:
    """Its lines are kept, and none looks like an event."""
    try:
        raise ValueError("first\nsecond\x1b")
    except ValueError as error:
        caught = error
    with opened_log(tmp_path / "log") as log:
        log.exception("broken", error=caught)
        log.error("load failed", details="SyntaxError: x\n  y")
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0].endswith("broken")
    assert lines[1] == "  Traceback (most recent call last):"
    assert lines[-5:-3] == ["  ValueError: first", r"  second\x1b"]
    assert lines[-2:] == ["  SyntaxError: x", "    y"]
    assert all(line.startswith("  ") for line in lines[1:-3])


def test_an_event_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes would let another process's line in between."""
    written: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        written.append(data)
        return len(data)

    with opened_log(tmp_path / "log") as log, monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        log.exception("broken", error=ValueError("x"))
    assert len(written) == 1


def test_a_reader_that_is_gone_raises_nothing() -> None:
    """The terminal that started a server is closed one day."""
    with pipe_as(2) as reading:
        os.close(reading)
        ErrorLog("-", "info").info("not heard")


def test_a_full_pipe_drops_whole_lines_of_an_event_and_the_next_says_how_many() -> None:
    """Processes that inherited the pipe share it, so it stays blocking; a reader that is stuck stops none of them."""
    with pipe_as(2) as reading:
        log = ErrorLog("-", "info")
        log.error("long", details="x\n" * (1 << 16))
        log.error("lost\tas well", details="with a second line")
        taken = os.read(reading, 1 << 20)
        log.info("next")
        rest = os.read(reading, 1 << 20).decode().splitlines()
        assert os.get_blocking(2)
        log.close()
    assert taken.endswith(b"  x\n")
    missing = 1 + (1 << 16) - taken.count(b"\n") + 2
    said = "error_log '-' could not be written \\(resource temporarily unavailable\\)"
    assert re.fullmatch(rf"{STAMP} warning master pid=\d+ {said}: {missing} lines are missing here", rest[0])
    assert re.fullmatch(rf"{STAMP} info master pid=\d+ next", rest[1])
    assert len(rest) == 2


def test_each_line_to_the_journal_begins_with_its_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """`journalctl -p err` must find an error, and the traceback beneath it: each line is an entry of its own there."""
    with journal_as_stderr(monkeypatch) as reading:
        log = ErrorLog("-", "debug")
        for write in (log.debug, log.info, log.warning, log.error, log.critical):
            write("something", "first\nsecond")
        lines = os.read(reading, 65536).decode().splitlines()
    assert [line[:3] for line in lines] == [f"<{number}>" for number in (7, 6, 4, 3, 2) for _ in range(3)]
    assert lines[1] == "<7>  first"


def test_a_redirected_standard_error_gets_no_priorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is inherited by all that a service starts; device and inode say whether it is still true."""
    with journal_as_stderr(monkeypatch), pipe_as(2) as reading:
        ErrorLog("-", "info").error("something")
        assert os.read(reading, 65536).startswith(b"2")


def test_a_file_gets_no_priorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with journal_as_stderr(monkeypatch), opened_log(tmp_path / "log") as log:
        log.error("something")
    assert (tmp_path / "log").read_text().startswith("2")


def test_a_long_write_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal ends a write to a pipe early, and the rest of a traceback with it."""
    really_write = os.write
    with errors_to(tmp_path / "log") as (stream, _), monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: really_write(fd, data[:7]))
        stream.write("a line of some length\nand another\n")
    assert (tmp_path / "log").read_text() == "a line of some length\nand another\n"


def test_a_torn_line_is_finished_before_an_event_and_what_was_dropped_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write
    taken = iter([4])

    def full(fd: int, data: bytes) -> int:
        room = next(taken, 0)
        if not room:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return really_write(fd, data[:room])

    with errors_to(tmp_path / "log") as (stream, log):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            stream.write("half a line\n")
            stream.write("dropped\n")
        log.error("ours")
    half, said, ours = (tmp_path / "log").read_text().splitlines()
    assert half == "half a line"
    assert said.endswith("could not be written (resource temporarily unavailable): 1 line is missing here")
    assert ours.endswith(f"error worker=1 gen=1 pid={os.getpid()} ours")


def test_lost_lines_are_counted_without_what_is_said_about_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lost: list[int] = []
    with errors_to(tmp_path / "log") as (stream, log):
        log.on_lost = lost.append
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            stream.write("one\ntwo\n")
            log.error("three")
        log.error("written")
    assert lost == [2, 1]
    access = AccessLog(str(tmp_path / "access"), lambda _: None)
    access.on_lost = lost.append
    access.add("192.0.2.1", "-", "GET / HTTP/1.1", 200, 2, "-", "-")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        access.flush()
    access.close()
    assert lost == [2, 1, 1]
