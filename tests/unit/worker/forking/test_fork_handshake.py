"""What connects a template to a worker that is being forked."""

from __future__ import annotations

import os

from forkserver.ipc.channel import MasterChannel
from forkserver.worker.forking.fork_handshake import open_handshake


def test_the_worker_is_waited_for_as_long_as_it_takes(short_default_timeout: None) -> None:
    """The application's default timeout for sockets is for its own."""
    master, end = MasterChannel.pair()
    handshake = open_handshake([tuple(map(os.dup, end.descriptors()))])
    assert handshake.ours.gettimeout() is handshake.theirs.gettimeout() is None
    handshake.close()
    end.orders.close()
    master.close()


def test_a_worker_at_the_gate_is_let_go_by_its_end() -> None:
    """It reads the end of the pipe, by the template's decision or by its death."""
    master, end = MasterChannel.pair()
    handshake = open_handshake([tuple(map(os.dup, end.descriptors()))])
    os.set_blocking(handshake.gate, False)
    try:
        handshake.theirs.send(b"+17")
        assert handshake.ours.recv(16) == b"+17"
        os.close(handshake.gatepost)
        assert os.read(handshake.gate, 1) == b""
    finally:
        handshake = handshake._replace(gatepost=os.open(os.devnull, os.O_RDONLY))
        handshake.close()
        end.orders.close()
        master.close()
