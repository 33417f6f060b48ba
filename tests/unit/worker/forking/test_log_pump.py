"""The log writer's loop: what comes by its queue is in the log, whatever the log's reader or disk does."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from forkserver.linux.sockets.plain_socket import PlainSocket, socketpair
from forkserver.worker.forking.log_pump import WRITTEN, LogPump
from harness import BOUND


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
    with pumping(writing) as (ours, thread):
        for number in range(100):
            ours.send(b"line %d\n" % number)
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == WRITTEN
        assert os.read(reading, 65536) == b"".join(b"line %d\n" % number for number in range(100))
        assert thread.is_alive(), "it has the pipe open until the master has ended"
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


def test_it_ends_with_the_master() -> None:
    reading, writing = os.pipe()
    with pumping(writing) as (ours, thread):
        ours.send(b"the last line\n")
        ours.close()
        thread.join(BOUND)
        assert not thread.is_alive()
        assert os.read(reading, 100) == b"the last line\n"
    os.close(reading)
    os.close(writing)
