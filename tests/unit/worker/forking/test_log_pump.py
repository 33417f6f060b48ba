"""The log writer's loop: what comes by its queue is in the log, whatever the log's reader or disk does."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import pytest

from forkserver.linux import signals, syscalls
from forkserver.linux.sockets.plain_socket import PlainSocket, socketpair
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.forking.log_pump import ORDERS, WRITTEN, LogPump, PumpConfig, main
from harness import BOUND, processes


@contextmanager
def pumping(target: int) -> Iterator[tuple[PlainSocket, threading.Thread]]:
    """The master's end of the queue of a pump that writes to ``target``, and its thread."""
    ours, theirs = socketpair(socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=LogPump(theirs, target).run)
    thread.start()
    ours.settimeout(BOUND)
    try:
        yield ours, thread
    finally:
        ours.close()
        thread.join(BOUND)
        theirs.close()
        assert not thread.is_alive()


def test_everything_is_written_in_order_before_that_is_said() -> None:
    reading, writing = os.pipe()
    with pumping(writing) as (ours, _thread):
        for number in range(100):
            ours.send(b"line %d\n" % number)
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == WRITTEN
        assert os.read(reading, 65536) == b"".join(b"line %d\n" % number for number in range(100))
    os.close(reading)
    os.close(writing)


def test_it_waits_for_a_reader_and_loses_nothing() -> None:
    """Also where another process has set O_NONBLOCK on what they share."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    lines = [b"%07d\n" % number * 500 for number in range(200)]
    with pumping(writing) as (ours, _thread):
        received = bytearray()

        def read() -> None:
            while len(received) < sum(map(len, lines)):
                received.extend(os.read(reading, 65536))

        for line in lines[:20]:
            ours.send(line)  # more than the pipe holds
        reader = threading.Thread(target=read)
        reader.start()
        for line in lines[20:]:
            ours.send(line)
        reader.join(BOUND)
        assert bytes(received) == b"".join(lines)
    os.close(reading)
    os.close(writing)


def test_the_master_is_told_why_writing_fails_and_its_end_is_not_held_up() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with pumping(full) as (ours, _thread):
        ours.send(b"line\n")
        assert ours.recv(100) == b"no space left on device"
        assert not select.select([ours], [], [], 0)[0], "it tries again, and says nothing"
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == WRITTEN
    os.close(full)


def test_what_was_sent_is_written_also_where_the_master_is_killed() -> None:
    reading, writing = os.pipe()
    with pumping(writing) as (ours, thread):
        ours.send(b"the last line\n")
        ours.close()
        thread.join(BOUND)
        assert not thread.is_alive()
        assert os.read(reading, 100) == b"the last line\n"
    os.close(reading)
    os.close(writing)


class Forked:
    """A log writer that writes to a pipe, and its master: processes both. ``ours`` is the master's end of the queue."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()
        self._tells, self._told = socketpair(socket.SOCK_SEQPACKET)
        self._tells.settimeout(BOUND)
        self.ours, self._theirs = socketpair(socket.SOCK_SEQPACKET)
        self.ours.settimeout(BOUND)
        self.master = os.fork()
        if not self.master:
            self._be_master()
        self._told.close()
        self.pid = int(self.told())
        self._writer = os.pidfd_open(self.pid)

    def _be_master(self) -> NoReturn:
        try:
            self.ours.close()
            signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)
            pid = os.fork()
            if not pid:
                self._be_writer()
            self._told.send(b"%d" % pid)
            self._told.close()
            self._tells.close()
            signal.pause()
        finally:
            os._exit(1)

    def _be_writer(self) -> NoReturn:
        os.dup2(self._writing, 2)
        os.dup2(self._told.fileno(), 1)
        die_with_parent, sigwait = syscalls.die_with_parent, signal.sigwait

        def die(signum: int) -> None:
            die_with_parent(signum)
            os.write(1, b"dies by %d" % signum)

        def wait(signums: set[int]) -> int:
            os.write(1, b"waits for %d" % min(signums))
            return sigwait(signums)

        syscalls.die_with_parent, signal.sigwait = die, wait
        main(PumpConfig(self._theirs.fileno(), ErrorLog("-", "info"), "m:a", os.getppid()))

    def told(self) -> str:
        """The pid of the writer, then each signal that is to come at the end of the master, or that it waits for."""
        return self._tells.recv(100).decode()

    def fill(self) -> None:
        os.set_blocking(self._writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self._writing, bytes(4096))
        os.set_blocking(self._writing, True)

    def send(self, signum: int) -> None:
        signal.pidfd_send_signal(self._writer, signum)

    def ends(self, seconds: float = BOUND) -> bool:
        return bool(select.select([self._writer], [], [], seconds)[0])

    def end_master(self) -> None:
        os.kill(self.master, signal.SIGKILL)
        os.waitpid(self.master, 0)

    def close(self) -> None:
        processes.end({self.master, self.pid})
        self.ours.close()
        self._theirs.close()
        self._tells.close()
        for number in (self.reading, self._writing, self._writer):
            os.close(number)


@pytest.fixture
def forked() -> Iterator[Forked]:
    made = Forked()
    yield made
    made.close()


def test_it_ends_after_the_master_and_not_where_its_queue_ends(forked: Forked) -> None:
    """Until then it keeps pipes open, whose last close could wait; what has the queue may end before what has them."""
    forked.ours.send(b"the last line\n")
    forked.ours.close()
    assert forked.told() == f"dies by {signals.LEAVE:d}"
    assert forked.told() == f"waits for {signals.LEAVE:d}"
    assert not forked.ends(0)
    forked.end_master()
    assert forked.ends()
    assert os.read(forked.reading, 100) == b"the last line\n"


def test_one_that_waits_for_a_reader_is_ended_with_the_master_and_not_before(forked: Forked) -> None:
    forked.fill()
    forked.ours.send(b"a line\n")
    forked.send(signals.LEAVE_NOW)
    assert forked.told() == f"dies by {signal.SIGKILL:d}"
    assert not forked.ends(0)
    forked.end_master()
    assert forked.ends()


def test_a_master_that_needs_it_no_more_is_left_once_all_is_written(forked: Forked) -> None:
    forked.send(signals.LEAVE)
    forked.ours.send(b"the last line\n")
    assert os.read(forked.reading, 100) == b"the last line\n", "the signal has not ended it"
    forked.ours.close()
    assert forked.ends()
