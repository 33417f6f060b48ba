"""The error log and the access log."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import PIPE_BUF

import pytest

from forkserver.errors import ConfigError, ForkserverError
from forkserver.logs import error_log
from forkserver.logs.error_log import AccessLog, ErrorLog, ErrorStream

LINE = ("192.0.2.1", "", "GET / HTTP/1.1", 200, 12, "", "curl/8")
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"


@contextmanager
def opened_log(path: Path, level: str = "info", who: str = "worker=3 gen=2") -> Iterator[ErrorLog]:
    log = ErrorLog(str(path), level, who)
    try:
        yield log
    finally:
        os.close(log.fileno())


@contextmanager
def access_log(target: str | Path, repeated_errors: list[str] | None = None) -> Iterator[AccessLog]:
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


# The error log


def test_an_event_is_one_line_that_names_the_process(tmp_path: Path) -> None:
    """Several processes share the file."""
    with opened_log(tmp_path / "log") as log:
        log.info("ready")
        log.who = "master"
        log.critical("no worker left")
    first, second = (tmp_path / "log").read_text().splitlines()
    assert re.fullmatch(rf"{STAMP} info worker=3 gen=2 pid={os.getpid()} ready", first)
    assert re.fullmatch(rf"{STAMP} critical master pid={os.getpid()} no worker left", second)


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
        ErrorLog("-", "info").info("nobody hears")


def test_a_full_pipe_drops_whole_lines_of_an_event_and_the_next_says_how_many() -> None:
    """The pipe is everyone's who inherited it, so it stays blocking; a reader that is stuck stops no process."""
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


def test_a_log_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    """Found at the first event it would be too late."""
    with pytest.raises(ConfigError) as caught:
        ErrorLog(str(tmp_path / "none" / "log"), "info")
    assert str(caught.value) == (
        f"error_log '{tmp_path}/none/log': cannot be opened: no such file or directory; "
        'fix that, name another file, or give "-" for the standard stream'
    )


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 1), (errno.EMFILE, 1), (errno.EROFS, 2)])
def test_a_full_disk_is_no_mistake_in_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    """After exit status 2 systemd does not start the service again, although the disk has room by then."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(error_log, "open_for_append", refuse)
    with pytest.raises(ForkserverError) as caught:
        ErrorLog(str(tmp_path / "log"), "info")
    assert caught.value.exit_status == status


def test_a_rotated_file_is_left_and_the_number_stays(tmp_path: Path) -> None:
    """faulthandler holds the number, and USR1 must not take it away."""
    path = tmp_path / "log"
    with opened_log(path) as log:
        number = log.fileno()
        log.info("before")
        path.rename(tmp_path / "log.1")
        log.info("between")
        log.reopen()
        log.info("after")
        assert log.fileno() == number
        assert not os.get_inheritable(number)
    assert [line.split()[-1] for line in (tmp_path / "log.1").read_text().splitlines()] == ["before", "between"]
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["after"]


def test_a_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    """Writing into a renamed file is better than writing nowhere."""
    folder = tmp_path / "logs"
    folder.mkdir()
    with opened_log(folder / "log") as log:
        folder.rename(tmp_path / "gone")
        with pytest.raises(ConfigError, match="cannot be opened"):
            log.reopen()
        log.info("still here")
    assert "still here" in (tmp_path / "gone" / "log").read_text()


def test_a_descriptor_passed_by_the_master_is_adopted(tmp_path: Path) -> None:
    """A worker without rights cannot open the new file itself."""
    with opened_log(tmp_path / "old") as log:
        passed = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        log.adopt(passed)
        log.info("moved")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(passed)
    assert "moved" in (tmp_path / "new").read_text()


def test_standard_error_stays_what_it_is(tmp_path: Path) -> None:
    """There is nothing to reopen, and what is passed must not leak."""
    log = ErrorLog("-", "info")
    log.reopen()
    passed = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
    log.adopt(passed)
    assert log.fileno() == 2
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(passed)


@contextmanager
def journal_as_stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard error is a pipe, and JOURNAL_STREAM says that it is the journal's."""
    with pipe_as(2) as reading:
        stream = os.fstat(2)
        monkeypatch.setenv("JOURNAL_STREAM", f"{stream.st_dev}:{stream.st_ino}")
        yield reading


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


# The access log


def test_a_line_is_in_combined_format(tmp_path: Path) -> None:
    """Every log analyser reads it."""
    with access_log(tmp_path / "log") as log:
        log.add("192.0.2.1", "ann", "GET /x?y=1 HTTP/1.1", 200, 12, "http://a/", "curl/8")
        log.add("", "", "GET / HTTP/1.1", 304, 0, "", "")
        log.flush()
    first, second = (tmp_path / "log").read_text().splitlines()
    date = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\]"
    assert re.fullmatch(rf'192\.0\.2\.1 - ann {date} "GET /x\?y=1 HTTP/1\.1" 200 12 "http://a/" "curl/8"', first)
    assert re.fullmatch(rf'- - - {date} "GET / HTTP/1\.1" 304 - "-" "-"', second)


def test_nothing_from_a_client_ends_a_field_or_a_line(tmp_path: Path) -> None:
    """A forged line is evidence against somebody else."""
    with access_log(tmp_path / "log") as log:
        log.add("::1", "a b", 'GET /"\\ HTTP/1.1', 200, 1, "x\r\ny", "caf\xe9\x7f\u20ac")
        log.flush()
    (line,) = (tmp_path / "log").read_bytes().splitlines()
    assert line.startswith(b"::1 - a\\x20b [")
    assert line.endswith(b'"GET /\\x22\\x5c HTTP/1.1" 200 1 "x\\x0d\\x0ay" "caf\\xe9\\x7f\\xe2\\x82\\xac"')


def test_lines_wait_for_the_flush_and_then_come_whole() -> None:
    """One write for many requests, and never half a line."""
    with pipe_as(1) as reading, access_log("-") as log:
        os.set_blocking(reading, False)
        log.add(*LINE)
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)
        log.flush()
        log.flush()
        assert os.read(reading, PIPE_BUF).count(b"\n") == 1


def test_a_batch_never_passes_pipe_buf() -> None:
    """Above it, pipe(7) mixes the writers' bytes."""
    sizes = []
    with pipe_as(1) as reading, access_log("-") as log:
        os.set_blocking(reading, False)
        for _ in range(100):
            log.add(*LINE)
            with suppress(BlockingIOError):
                batch = os.read(reading, 1 << 20)
                assert batch.endswith(b"\n")
                sizes.append(len(batch))
        log.flush()
        assert os.read(reading, PIPE_BUF).endswith(b"\n")
    assert sizes
    assert max(sizes) <= PIPE_BUF


def test_a_file_takes_many_lines_in_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O_APPEND keeps them whole whatever their size, and each write costs as much as several lines."""
    written: list[int] = []
    really_write = os.write

    def write(fd: int, data: bytes) -> int:
        written.append(len(data))
        return really_write(fd, data)

    with access_log(tmp_path / "log") as log, monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        patch.setattr(time, "time", lambda: 1_000_000_000.0)
        for _ in range(2000):
            log.add(*LINE)
        log.flush()
    assert PIPE_BUF < max(written) <= 65536
    assert (tmp_path / "log").read_text().count("\n") == 2000


def test_no_line_waits_for_a_batch_to_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy worker with slow calls does not sleep for minutes, and answers little."""
    with access_log(tmp_path / "log") as log, monkeypatch.context() as patch:
        for now, lines in ((1_000_000_000.9, 0), (1_000_000_000.99, 0), (1_000_000_001.0, 2), (999_999_999.0, 3)):
            patch.setattr(time, "time", lambda now=now: now)
            log.add(*LINE)
            assert (tmp_path / "log").read_text().count("\n") == lines
        log.flush()
    dates = re.findall(r"\[(.*?)\]", (tmp_path / "log").read_text())
    assert [date[12:20] for date in dates] == ["01:46:40", "01:46:40", "01:46:41", "01:46:39"]


def test_what_is_remembered_of_clients_is_bounded_and_changes_no_line(tmp_path: Path) -> None:
    """Whoever comes with ever new names must not fill the memory, nor have another's in his line."""
    names = [(f"10.0.0.{number % 250}", f"u {number // 9}", f'a"{number}') for number in range(3000)]
    with access_log(tmp_path / "log") as log:
        for peer, user, agent in (*names, *names[-5:]):
            log.add(peer, user, "GET / HTTP/1.1", 200, 1, agent, agent)
        log.add("10.0.0.1", "", "GET / HTTP/1.1", 200, 1, "", "a" * 10_000)
        log.flush()
        assert len(log._known) <= 1024
        assert max(sum(map(len, client)) for client in log._known) < 1024
    *lines, last = (tmp_path / "log").read_text().splitlines()
    assert last.endswith("a" * 10_000 + '"')
    for line, (peer, user, agent) in zip(lines, (*names, *names[-5:]), strict=True):
        shown = agent.replace('"', r"\x22")
        assert line.startswith(f"{peer} - {user.replace(' ', chr(92) + 'x20')} [")
        assert line.endswith(f'200 1 "{shown}" "{shown}"')


def test_a_line_longer_than_pipe_buf_is_cut_for_a_pipe_and_kept_in_a_file(tmp_path: Path) -> None:
    """It could not be written whole; its fields are cut, none in the middle of an escape."""
    long = ("1.2.3.4", "u", f"GET /{'é' * 2000} HTTP/1.1", 200, 1, '"' * 3000, "a" * 5000)
    with pipe_as(1) as reading, access_log("-") as log:
        log.add(*long)
        log.flush()
        cut = os.read(reading, 1 << 20)
    assert len(cut) <= PIPE_BUF
    assert re.search(rb'"GET /(\\xe9)+\.\.\." 200 1 "(\\x22)+\.\.\." "a+\.\.\."\n$', cut)
    with access_log(tmp_path / "log") as log:
        log.add(*long)
        log.flush()
    assert (tmp_path / "log").read_bytes().count(b"\\xe9") == 2000


def test_a_full_pipe_drops_whole_lines_and_says_so_once() -> None:
    """The reader of the log is not worth a stalled worker."""
    repeated_errors: list[str] = []
    with pipe_as(1) as reading, access_log("-", repeated_errors) as log:
        for _ in range(2000):
            log.add(*LINE)
        log.flush()
        dropped = log.dropped
        received = os.read(reading, 1 << 20)
        log.add(*LINE)
        log.flush()
        received += os.read(reading, 1 << 20)
        assert os.get_blocking(1)
    assert dropped > 0
    assert repeated_errors == [
        "access_log '-' cannot be written: resource temporarily unavailable; lines are dropped until it can",
        f"access_log '-' could not be written: {dropped} lines are missing",
    ]
    lines = received.splitlines(keepends=True)
    assert len(lines) == 2001 - dropped
    assert all(line.startswith(b"192.0.2.1 - - [") and line.endswith(b'"curl/8"\n') for line in lines)


def test_an_access_log_that_fails_again_and_again_is_told_once_a_minute() -> None:
    """A reader that keeps up only now and then must not fill the error log in its place."""
    repeated_errors: list[str] = []
    now = [0.0]

    def lose(lines: int) -> None:
        for _ in range(lines):
            log.add(*LINE)
        log.flush()  # no process reads

    def deliver() -> None:
        reading = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
        log.add(*LINE)
        log.flush()
        assert os.read(reading, PIPE_BUF).count(b"\n") == 1
        os.close(reading)

    with pipe_as(1) as first:
        log = AccessLog("-", repeated_errors.append, clock=lambda: now[0])
        os.close(first)
        for seconds, lines in ((0.0, 3), (1.0, 2), (30.0, 4), (61.0, 1)):
            now[0] = seconds
            lose(lines)
            deliver()
        lose(1)
        log.finish()
        log.close()
    name = "access_log '-'"
    assert repeated_errors == [
        f"{name} cannot be written: broken pipe; lines are dropped until it can",
        f"{name} could not be written: 3 lines are missing",
        f"{name} could not be written: 7 lines are missing",
        f"{name} could not be written: 1 line is missing",
    ]


def test_half_a_line_is_finished_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket or a full disk may take a part; what follows must not stand in the middle of it."""
    really_write = os.write
    with access_log(tmp_path / "log") as log:
        log.add(*LINE)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: really_write(fd, data[:10]))
            log.flush()
        log.add(*LINE)
        log.flush()
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first == second


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    """With --threads they share the batch."""
    with access_log(tmp_path / "log") as log:

        def many() -> None:
            for _ in range(500):
                log.add(*LINE)

        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log.flush()
    assert (tmp_path / "log").read_text().count("\n") == 2000


def test_a_rotated_access_log_keeps_what_was_gathered(tmp_path: Path) -> None:
    """Lines noted before the rotation belong to the old file."""
    path = tmp_path / "log"
    with access_log(path) as log:
        log.add(*LINE)
        path.rename(tmp_path / "log.1")
        log.reopen()
        log.add(*LINE)
        log.flush()
    assert [(tmp_path / name).read_text().count("\n") for name in ("log", "log.1")] == [1, 1]


def test_no_access_log_does_nothing() -> None:
    """It is off by default, and the caller need not ask."""
    log = AccessLog(None)
    log.add(*LINE)
    log.flush()
    log.reopen()
    assert not log.enabled
    assert log.fileno() == -1


# wsgi.errors: the application's own text


@contextmanager
def errors_to(path: Path, level: str = "info") -> Iterator[tuple[ErrorStream, ErrorLog]]:
    log = ErrorLog(str(path), level, "worker=1 gen=1")
    try:
        yield ErrorStream(log), log
    finally:
        os.close(log.fileno())


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
        subprocess.run(["sh", "-c", "echo of a child >&2"], stderr=stream, check=True)
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


# In a process that was forked


def test_what_is_gathered_is_written_by_the_parent_alone(tmp_path: Path) -> None:
    """And a lock that another thread held at the fork keeps the child from nothing: no thread there releases it."""
    with access_log(tmp_path / "log") as log:
        log.add(*LINE)
        log._lock.acquire()
        log.forget()
        log.flush()
        assert (tmp_path / "log").read_bytes() == b""
        log.add(*LINE)
        log.flush()
    assert (tmp_path / "log").read_text().count("GET /") == 1


def test_half_a_line_of_the_parents_is_not_completed_in_a_child(tmp_path: Path) -> None:
    with errors_to(tmp_path / "log") as (stream, _):
        stream.write("half a line")
        stream.forget()
        stream.write("its own\n")
    assert (tmp_path / "log").read_text() == "its own\n"
