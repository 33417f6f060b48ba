"""Clients that wait in the kernel's queue while every worker is in a call."""

from __future__ import annotations

import socket
import struct

from harness.gate import Gate
from harness.program import StartProgram
from harness.worker import wait_until

_LAST_DATA_SENT = struct.Struct("=44xI")  # struct tcp_info: tcpi_last_data_sent, milliseconds


def milliseconds_since_sent(client: socket.socket) -> int:
    told = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_SENT.size)
    return int(_LAST_DATA_SENT.unpack(told)[0])


def test_queue_timeout_holds_for_a_client_that_was_not_accepted_yet(program: StartProgram, gate: Gate) -> None:
    """It was served however late, and so were those behind it: the queue was never shorter."""
    server = program("faults:app", "--queue-timeout", "0.2", environ=gate.environ)
    with server.connect() as held, server.connect() as late:
        held.ask("/gate")
        gate.wait_for()
        late.ask("/pid")
        wait_until(lambda: milliseconds_since_sent(late.socket) > 300)
        gate.open()
        assert held.answer().status == 200
        assert late.answer().status == 503
    with server.connect() as next_one:
        assert next_one.get("/pid").status == 200
    assert server.stop() == 0
