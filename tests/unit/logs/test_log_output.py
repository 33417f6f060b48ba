"""Lines on their way to a descriptor whose reader may have stopped reading."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import PIPE_BUF

import pytest

from forkserver.errors import ConfigError, ForkserverError
from forkserver.linux.sockets.plain_socket import PlainSocket, socketpair
from forkserver.logs import log_output
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.error_stream import ErrorStream
from forkserver.logs.log_output import LogOutput

Ends = tuple[int, int]


def pipe() -> Ends:
    return os.pipe()


def pipe_of_another_user() -> Ends:
    """Opening it again is refused; the tests replace the call, for root is refused nothing."""
    return os.pipe()


def journal() -> Ends:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def terminal() -> Ends:
    return os.openpty()


@contextmanager
def outlet(kind: Callable[[], Ends]) -> Iterator[tuple[LogOutput, Ends]]:
    ends = kind()
    with pytest.MonkeyPatch.context() as patch:
        if kind is pipe_of_another_user:
            patch.setattr(os, "open", refused)
        output = LogOutput(ends[1])
    try:
        yield output, ends
    finally:
        output.close()
        for number in ends:
            os.close(number)


def refused(*_: object, **__: object) -> int:
    raise PermissionError(13, os.strerror(13))


def received(number: int) -> bytes:
    """All that waits at ``number``."""
    os.set_blocking(number, False)
    taken = b""
    with suppress(BlockingIOError):
        while data := os.read(number, 65536):
            taken += data
    return taken


KINDS = (pipe, pipe_of_another_user, journal, terminal)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_that_has_stopped_reading_blocks_no_write(kind: Callable[[], Ends]) -> None:
    """Lines that do not fit are counted, what was taken is whole lines, and the inherited flag is left alone."""
    with outlet(kind) as (output, (reading, writing)):
        written, lost = 0, 0
        while not lost:
            lost = output.write(b"%08d\n" % written * 500)
            written += 500
        while not output.write(b"%08d\n" % written):  # a pipe's last page has room for less than PIPE_BUF
            written += 1
        assert output.dropped == lost + 1
        assert output.reason == "resource temporarily unavailable"
        assert os.get_blocking(writing)
        taken = received(reading)
        if not taken.endswith(b"\n"):  # a terminal takes half a line, and then its end before anything else
            assert output.pending
        assert output.write(b"again\n") == 0
        assert os.get_blocking(writing)
        taken = (taken + received(reading)).replace(b"\r\n", b"\n")
    lines = taken.splitlines(keepends=True)
    assert lines.pop() == b"again\n"
    assert len(lines) == written - lost
    assert all(len(line) == 9 and line.endswith(b"\n") for line in lines)


def test_where_the_kernel_cannot_write_without_waiting_it_is_asked_by_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux before 6.4 has no RWF_NOWAIT for pipes, and some C libraries have no pwritev2."""
    monkeypatch.setattr(os, "pwritev", refused)
    with outlet(pipe_of_another_user) as (output, (reading, _)):
        while not output.write(b"x" * 99 + b"\n"):
            continue
        assert set(received(reading).splitlines()) == {b"x" * 99}


@pytest.mark.parametrize("kind", [pipe, pipe_of_another_user, journal])
def test_a_reader_that_has_gone_costs_the_line_and_no_time(kind: Callable[[], Ends]) -> None:
    """EPIPE, and no signal."""
    waited: list[float] = []
    with outlet(kind) as (output, (reading, _)), pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_output, "_writable", lambda _, seconds: bool(waited.append(seconds)) or not seconds)
        spare = os.open(os.devnull, os.O_RDONLY)
        os.dup2(spare, reading)
        os.close(spare)
        assert output.write(b"a\nb\n") == 2
        assert output.reason == "broken pipe"
    assert not any(waited)


def test_a_child_that_has_parted_cannot_make_its_parent_wait(tmp_path: Path) -> None:
    """A flag belongs to the description: an application could stop the master together with the reader of the log."""
    os.mkfifo(tmp_path / "log")
    log = ErrorLog(str(tmp_path / "log"), "info")
    pid = os.fork()
    if pid == 0:
        log.part()
        os.set_blocking(log.fileno(), True)
        os.set_blocking(log._output.fileno(), True)
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    while not log._output.dropped:
        log.info("x" * 1000)
    log.close()


def test_waiting_for_a_slow_reader_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second at once and a hundredth of all time: a stuck reader is not waited for again and again."""
    now = 100.0
    waits: list[float] = []

    def never_writable(number: int, seconds: float) -> bool:
        nonlocal now
        now += seconds
        waits.append(seconds)
        return False

    monkeypatch.setattr(log_output, "_writable", never_writable)
    reading, writing = os.pipe()
    output = LogOutput(writing, clock=lambda: now)
    for _ in range(1000):
        output.write(b"x" * 999 + b"\n")
    assert waits == [pytest.approx(0.1)]
    now += 5.0
    output.write(b"x" * 999 + b"\n")
    assert waits[1:] == [pytest.approx(0.05)]
    output.close()
    for number in (reading, writing):
        os.close(number)


def test_a_burst_beyond_the_pipe_is_delivered_to_a_reader_that_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback of 200 KiB is more than a pipe holds."""
    taken = b""

    def reader_reads(number: int, seconds: float) -> bool:
        nonlocal taken
        taken += received(reading)
        return True

    monkeypatch.setattr(log_output, "_writable", reader_reads)
    reading, writing = os.pipe()
    output = LogOutput(writing)
    burst = b"".join(b"line %d\n" % number for number in range(20_000))
    assert output.write(burst) == 0
    assert taken + received(reading) == burst
    output.close()
    for number in (reading, writing):
        os.close(number)


def test_pieces_are_whole_lines_that_a_pipe_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes write to the same pipe; a line beyond PIPE_BUF cannot be helped."""
    sizes: list[int] = []
    ends: list[bytes] = []
    really_write = os.write

    def write(fd: int, data: memoryview) -> int:
        sizes.append(len(data))
        ends.append(bytes(data[-1:]))
        return really_write(fd, data)

    with outlet(pipe) as (output, _):
        monkeypatch.setattr(os, "write", write)
        output.write(b"short\n" * 2000 + b"x" * 6000 + b"\n")
    assert max(sizes) <= PIPE_BUF
    assert ends == [b"\n"] * 3 + [b"x", b"\n"]


def test_the_end_of_a_line_that_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application may write ten megabytes without a line feed."""
    room = [10, 0]

    def write(fd: int, data: memoryview) -> int:
        if not (took := room.pop(0)):
            raise OSError(28, os.strerror(28))
        return took

    monkeypatch.setattr(os, "write", write)
    output = LogOutput(-1)
    assert output.write(b"x" * 10_000_000 + b"\nnext\n") == 1
    assert output.reason == "no space left on device"
    assert len(output._rest) == 64 * 1024
    assert output._rest.endswith(b"x...\n")


def test_a_forked_child_leaves_half_a_line_and_the_lock_to_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both would write it; and no thread of the child releases the lock."""
    with outlet(pipe) as (output, (reading, _)):
        output._rest, output.dropped = b"end\n", 3
        output.lock.acquire()
        child = os.fork()
        if child == 0:
            output.write(b"child\n")
            os._exit(output.dropped)
        assert os.waitpid(child, 0)[1] == 0
        output.write(b"parent\n")
        assert received(reading) == b"child\nend\nparent\n"


def test_a_number_that_is_another_files_by_now_is_not_closed() -> None:
    """An application that closes all descriptors of a child, as daemons do, has its own under their numbers."""
    with outlet(pipe) as (output, _):
        number = output.fileno()
        spare = os.open(os.devnull, os.O_RDONLY)
        os.dup2(spare, number)
        os.close(spare)
        output.close()
        os.fstat(number)
        os.close(number)


def test_a_default_timeout_of_the_application_leaves_the_journals_socket_alone() -> None:
    """A socket object would set O_NONBLOCK, for all processes that write to it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)
    try:
        ends = [each.detach() for each in socket.socketpair()]
        os.set_blocking(ends[1], True)
        output = LogOutput(ends[1])
        assert output.write(b"line\n") == 0
        assert os.get_blocking(ends[1])
    finally:
        socket.setdefaulttimeout(before)
    for number in ends:
        os.close(number)


# FIFOs by path


def test_a_fifo_without_a_reader_is_opened_at_once_and_keeps_what_fits_for_a_later_reader(tmp_path: Path) -> None:
    """The start does not wait for it; each line is another try."""
    os.mkfifo(tmp_path / "fifo")
    log = ErrorLog(str(tmp_path / "fifo"), "info")
    log.info("kept")
    ErrorStream(log).write("of the application, more than it holds\n" * 10_000)
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    first, *kept = received(reading).decode().splitlines()
    assert first.endswith(" kept")
    log.info("heard")
    said, heard = received(reading).decode().splitlines()
    assert f"could not be written (resource temporarily unavailable): {10_000 - len(kept)} lines are missing" in said
    assert heard.endswith(" heard")
    os.close(reading)
    log.close()


@pytest.mark.as_user
def test_a_fifo_without_a_reader_that_may_not_be_read_is_refused_at_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o200)
    with pytest.raises(ConfigError, match="cannot be opened: permission denied"):
        ErrorLog(str(tmp_path / "fifo"), "info")


def test_a_fifo_that_a_program_before_had_opened_blocking_is_opened_again(tmp_path: Path) -> None:
    """An upgrade inherits the number, and the flags with it."""
    os.mkfifo(tmp_path / "fifo")
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    held = os.open(tmp_path / "fifo", os.O_WRONLY)
    log = ErrorLog(str(tmp_path / "fifo"), "info", opened=held)
    for _ in range(100):
        log.info("x", "y" * 3000)  # more than it holds
    assert log.fileno() == held
    assert received(reading).endswith(b"yyy\n")
    log.close()
    os.close(reading)


@pytest.fixture
def left_to_writer() -> Iterator[Callable[[], None]]:
    """Has this process leave pipes and files to another, until the end of the test."""
    yield log_output.leave_to_writer
    log_output._own.writes = log_output._own.opens = True


@pytest.fixture
def queue() -> Iterator[tuple[PlainSocket, PlainSocket]]:
    ours, theirs = socketpair(socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_lines_that_another_process_is_to_write_go_to_its_queue_alone(
    left_to_writer: Callable[[], None], queue: tuple[PlainSocket, PlainSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application can hold the pipe: a write to it, and opening it, would wait."""
    with outlet(pipe) as (output, (reading, _writing)):
        ours, theirs = queue
        output.write_by(ours)
        left_to_writer()
        monkeypatch.setattr(os, "open", refused)
        output.renew()
        assert output.write(b"one\ntwo\n") == 0
        assert theirs.recv(100) == b"one\ntwo\n"
        assert received(reading) == b""


def test_a_file_is_left_to_the_other_process_too_and_a_socket_is_not(
    left_to_writer: Callable[[], None], tmp_path: Path
) -> None:
    left_to_writer()
    with open(tmp_path / "log", "ab") as file, outlet(journal) as (to_journal, (reading, _writing)):
        to_file = LogOutput(file.fileno())
        assert (to_file.can_be_held, to_journal.can_be_held) == (True, False)
        assert (to_file.write(b"lost\n"), to_journal.write(b"sent\n")) == (1, 0)
        assert received(reading) == b"sent\n"
    assert (tmp_path / "log").read_bytes() == b""


def test_what_the_queue_does_not_take_is_dropped_with_the_reason_that_the_other_process_gives(
    left_to_writer: Callable[[], None],
    queue: tuple[PlainSocket, PlainSocket],
) -> None:
    with outlet(pipe) as (output, _ends):
        ours, theirs = queue
        output.write_by(ours)
        left_to_writer()
        theirs.send(b"no space left on device")
        while not output.write(b"x" * 1000 + b"\n"):
            continue
        assert output.reason == "no space left on device"
        while not output.write(b"x" * 1000 + b"\n"):
            theirs.recv(2000)
            assert output.dropped
        assert output.reason == "resource temporarily unavailable"


def test_a_process_forked_meanwhile_writes_itself(
    left_to_writer: Callable[[], None], queue: tuple[PlainSocket, PlainSocket]
) -> None:
    with outlet(pipe) as (output, (reading, _writing)):
        ours, theirs = queue
        output.write_by(ours)
        left_to_writer()
        pid = os.fork()
        if not pid:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "open", refused)  # another process of the application may hold the pipe by now
                output.renew()
            os._exit(output.write(b"of the child\n"))
        assert os.waitpid(pid, 0)[1] == 0
        assert received(reading) == b"of the child\n"
        assert received(theirs.fileno()) == b""


def test_a_fifo_is_opened_at_the_start_alone(left_to_writer: Callable[[], None], tmp_path: Path) -> None:
    for name in ("fifo", "another"):
        os.mkfifo(tmp_path / name)
    log = ErrorLog(str(tmp_path / "fifo"), "info")
    left_to_writer()
    number, before = log.fileno(), log.inode()
    log.reopen()
    assert (log.fileno(), log.inode()) == (number, before)
    with pytest.raises(ForkserverError, match="a FIFO, which the application could hold"):
        ErrorLog(str(tmp_path / "another"), "info")
    log.close()


def test_the_limit_of_a_files_size_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fd: int, data: memoryview) -> int:
        raise OSError(27, os.strerror(27))

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4, 4))
    output = LogOutput(-1)
    assert output.write(b"a line\n") == 1
    assert "RLIMIT_FSIZE is 4 bytes; raise LimitFSIZE= of the unit, or ulimit -Hf" in output.reason
