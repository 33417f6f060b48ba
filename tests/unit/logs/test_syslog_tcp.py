"""syslog by TCP: connections that break, and lines that find one so."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from errno import EAGAIN, EPIPE
from pathlib import Path

import pytest

from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.syscalls import monotonic
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.syslog import SyslogOutput, SyslogTarget
from harness import BOUND

RFC_5424 = r"<(\d+)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 ([!-~]+) forkserver (\d+) - - (.*)"


class Receiver:
    """A daemon that takes messages by TCP."""

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.listener = socket.create_server(address)
        self.listener.settimeout(BOUND)
        self.address = self.listener.getsockname()
        self.target = f"syslog:tcp://127.0.0.1:{self.address[1]}"

    def output(self, clock: Callable[[], float] = monotonic) -> SyslogOutput:
        return SyslogOutput(SyslogTarget(self.address, 3, True), priorities=False, clock=clock)

    def accept(self) -> socket.socket:
        link, _ = self.listener.accept()
        link.settimeout(BOUND)
        return link

    @staticmethod
    def read(link: socket.socket) -> str:
        """The text of one message, by its count of octets."""
        count = b""
        while not count.endswith(b" "):
            count += link.recv(1)
        message = b""
        while len(message) < int(count):
            message += link.recv(int(count) - len(message))
        match = re.fullmatch(RFC_5424, message.decode())
        assert match is not None, message
        return match[4]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.listener.close()


def test_by_tcp_messages_are_counted_in_octets(receiver: Receiver) -> None:
    log = ErrorLog(receiver.target, "info")
    log.error("broke", details="one")
    log.info("went on")
    log.close()
    with receiver.accept() as link:
        assert [receiver.read(link) for _ in range(3)] == ["master broke", "  one", "master went on"]
        assert link.recv(1) == b""


def test_a_receiver_by_tcp_that_does_not_read_costs_lines_and_no_time(receiver: Receiver) -> None:
    """What it reads later is whole messages, and those that are missing are counted."""
    output = receiver.output()
    with receiver.accept() as link:
        sent = lost = 0
        while not lost:
            lost += output.write(b"x" * 4000 + b"\n")
            sent += 1
        assert output.reason == "resource temporarily unavailable"
        whole = [receiver.read(link) for _ in range(sent - lost - 1)]  # the last may have been taken in part
        assert output.write(b"there again\n") == 0
        while (message := receiver.read(link)) != "there again":
            whole.append(message)
        assert whole == ["x" * 4000] * (sent - lost)
    output.close()


def test_a_receiver_by_tcp_that_comes_back_is_found_again_and_not_asked_with_each_line(receiver: Receiver) -> None:
    now = [100.0]
    output = receiver.output(lambda: now[0])
    with receiver.accept() as link:
        assert output.write(b"first\n") == 0
        assert receiver.read(link) == "first"
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
    receiver.listener.close()
    assert output.write(b"lost\n") == 1
    receiver = Receiver(receiver.address)
    assert output.write(b"too soon\n") == 1
    now[0] += 1.0
    assert output.write(b"found\n") == 0
    with receiver.accept() as link:
        assert receiver.read(link) == "found"
    receiver.listener.close()
    output.close()


def test_the_line_that_finds_a_connection_ended_goes_by_the_next_one(receiver: Receiver) -> None:
    """The first write to a connection that its other end has closed is still taken, and lost."""
    now = [100.0]
    output = receiver.output(lambda: now[0])
    with receiver.accept() as link:
        assert output.write(b"first\n") == 0
        assert receiver.read(link) == "first"
    now[0] += 1.0
    assert output.write(b"second\n") == 0
    with receiver.accept() as link:
        assert receiver.read(link) == "second"
    output.close()


def test_a_line_waits_a_moment_for_a_new_connection(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """To another machine a connection is not there at once, as on this one."""
    now = [100.0]
    output = receiver.output(lambda: now[0])
    failures = [EPIPE, EAGAIN]
    send = PlainSocket.send

    def send_later(link: PlainSocket, data: bytes, flags: int) -> int:
        if failures:
            raise OSError(failures[0], os.strerror(failures.pop(0)))
        return send(link, data, flags)

    monkeypatch.setattr(PlainSocket, "send", send_later)
    now[0] += 1.0
    assert output.write(b"broken, then connecting\n") == 0
    with receiver.accept(), receiver.accept() as link:
        assert receiver.read(link) == "broken, then connecting"
    output.close()


def test_a_forked_child_has_a_connection_of_its_own(receiver: Receiver) -> None:
    """Messages of two processes would mix in one."""
    output = receiver.output()
    assert output.write(b"parent\n") == 0
    child = os.fork()
    if not child:
        output.write(b"child\n")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with receiver.accept() as first, receiver.accept() as second:
        assert (receiver.read(first), receiver.read(second)) == ("parent", "child")
        assert output.write(b"again\n") == 0
        assert receiver.read(first) == "again"
    output.close()


def test_a_file_that_an_application_has_under_the_number_is_left_alone(receiver: Receiver, tmp_path: Path) -> None:
    now = [100.0]
    output = receiver.output(lambda: now[0])
    with open(tmp_path / "theirs", "wb") as theirs:
        os.dup2(theirs.fileno(), output.fileno())
        now[0] += 10.0
        assert output.write(b"lost\n") == 1
        assert os.path.samestat(os.fstat(output.fileno()), os.fstat(theirs.fileno()))
    output.close()
