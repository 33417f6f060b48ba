"""The access log."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from select import PIPE_BUF

import pytest

from forkserver.logs import access_log as access_log_module
from forkserver.logs.access_log import AccessLog
from harness.log_files import LINE, access_log, pipe_as


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
    """A forged line is evidence against another client."""
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
        patch.setattr(access_log_module, "wall_time", lambda: 1_000_000_000.0)
        for _ in range(2000):
            log.add(*LINE)
        log.flush()
    assert PIPE_BUF < max(written) <= 65536
    assert (tmp_path / "log").read_text().count("\n") == 2000


def test_no_line_waits_for_a_batch_to_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy worker with slow calls does not sleep for minutes, and answers little."""
    with access_log(tmp_path / "log") as log, monkeypatch.context() as patch:
        for now, lines in ((1_000_000_000.9, 0), (1_000_000_000.99, 0), (1_000_000_001.0, 2), (999_999_999.0, 3)):
            patch.setattr(access_log_module, "wall_time", lambda now=now: now)
            log.add(*LINE)
            assert (tmp_path / "log").read_text().count("\n") == lines
        log.flush()
    dates = re.findall(r"\[(.*?)\]", (tmp_path / "log").read_text())
    assert [date[12:20] for date in dates] == ["01:46:40", "01:46:40", "01:46:41", "01:46:39"]


def test_lines_that_are_gathered_elsewhere_are_asked_for_before_others_are_added(tmp_path: Path) -> None:
    """They were answered before."""
    with access_log(tmp_path / "log") as log:
        elsewhere = [b"1\n2\n", b"4\n"]
        log.collect_from(lambda: log.add_lines(elsewhere.pop(0)) if elsewhere else None)
        log.add(*LINE)
        log.flush()
        assert elsewhere == []
        log.flush()
        first, second, third, fourth = (tmp_path / "log").read_text().splitlines()
        assert (first, second, fourth) == ("1", "2", "4")
        assert third.startswith("192.0.2.1 - - [")
        elsewhere.append(b"the parent's\n")
        log.forget()
        log.flush()
        assert "the parent's" not in (tmp_path / "log").read_text()


def test_lines_that_are_gathered_elsewhere_are_not_kept_beyond_their_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with access_log(tmp_path / "log") as log, monkeypatch.context() as patch:
        for now, written in ((1_000_000_000.0, 1), (1_000_000_000.9, 1), (1_000_000_001.0, 3), (1_000_000_001.1, 3)):
            patch.setattr(access_log_module, "wall_time", lambda now=now: now)
            log.add_lines(b"line\n")
            assert (tmp_path / "log").read_text().count("\n") == written


def test_lines_that_are_gathered_elsewhere_reach_a_pipe_unmixed() -> None:
    sizes = []
    with pipe_as(1) as reading, access_log("-") as log:
        os.set_blocking(reading, False)
        for _ in range(20):
            log.add_lines(b"x" * 1000 + b"\n")
            with suppress(BlockingIOError):
                sizes.append(len(os.read(reading, 1 << 20)))
    assert max(sizes) <= PIPE_BUF
    assert {size % 1001 for size in sizes} == {0}


def test_each_field_of_a_client_stands_in_its_own_line(tmp_path: Path) -> None:
    """Whatever the fields of the line before had to escape."""
    names = [
        (f"10.0.0.{number}", f"u {number}", agent) for number in range(9) for agent in ("", "curl/8", f'a"{number}')
    ]
    with access_log(tmp_path / "log") as log:
        for peer, user, agent in names:
            log.add(peer, user, "GET / HTTP/1.1", 200, 1, agent, agent)
        log.flush()
    for line, (peer, user, agent) in zip((tmp_path / "log").read_text().splitlines(), names, strict=True):
        shown = agent.replace('"', r"\x22") or "-"
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


def in_journal(monkeypatch: pytest.MonkeyPatch, form: str, write: Callable[[AccessLog], object]) -> bytes:
    """What a log of ``form`` writes to standard output where that is the journal's stream."""
    reader, writer = os.pipe()
    stream = os.fstat(writer)
    monkeypatch.setenv("JOURNAL_STREAM", f"{stream.st_dev}:{stream.st_ino}")
    before = os.dup(1)
    os.dup2(writer, 1)
    try:
        log = AccessLog("-", form=form)
        write(log)
        log.flush()
        log.close()
    finally:
        os.dup2(before, 1)
        for number in (before, writer):
            os.close(number)
    with open(reader, "rb") as lines:
        return lines.read()


def test_a_client_does_not_choose_the_priority_of_its_line_in_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal reads one at the head of each line of its stream, and takes the first."""

    def write(log: AccessLog) -> None:
        for user in ("<0>emergency", "<x", "<3>error", "ordinary <3>"):
            log.add("192.0.2.1", user, "GET / HTTP/1.1", 200, 12, "", "")
        log.add_lines(b"<1>made in C\n")

    assert in_journal(monkeypatch, "%(u)s %(s)s", write).splitlines() == [
        b"<6><0>emergency 200", b"<6><x 200", b"<6><3>error 200", b"ordinary\\x20<3> 200", b"<6><1>made in C",
    ]  # fmt: skip


def test_a_long_line_in_the_journal_has_room_for_its_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its end would be a line of its own, which begins as the client likes."""

    def write(log: AccessLog) -> None:
        log.add("192.0.2.1", "<" + "x" * 9000, "GET / HTTP/1.1", 200, 12, "", "")

    text = in_journal(monkeypatch, "%(u)s", write)
    assert text.startswith(b"<6><x")
    assert len(text) == PIPE_BUF
