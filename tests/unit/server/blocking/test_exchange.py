"""What a blocking handler refuses while it collects a body."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from forkserver.config import settings as table
from forkserver.errors import ProtocolError
from forkserver.server.blocking import exchange
from forkserver.server.buffers.body_buffer import BodyBuffer
from forkserver.server.buffers.spool import Spool


class Dripping:
    """The file of a client that sends ``size`` bytes every ``seconds``, by a clock of its own."""

    def __init__(self, size: int, seconds: float) -> None:
        self.now = 0.0
        self._size, self._seconds = size, seconds

    def read1(self, _size: int) -> bytes:
        self.now += self._seconds
        return b"x" * self._size


def collect(client: Dripping, length: int, monkeypatch: pytest.MonkeyPatch) -> BodyBuffer:
    monkeypatch.setattr(exchange, "monotonic", lambda: client.now)
    handler: Any = SimpleNamespace(rfile=client)
    block: Any = SimpleNamespace(has_body=True, chunked=False, length=length)
    context: Any = SimpleNamespace(settings=table.defaults(body_timeout=30.0, body_min_rate=240))
    body = BodyBuffer(Spool("/nowhere", 0))
    exchange._collect(handler, block, body, context)
    return body


@pytest.mark.parametrize(("size", "seconds"), [(1, 29.0), (1100, 20.0)], ids=["drip", "slow"])
def test_a_slow_body_does_not_hold_a_blocking_handler_for_ever(
    monkeypatch: pytest.MonkeyPatch, size: int, seconds: float
) -> None:
    """It has a thread of the application, and each read of its socket came in time."""
    with pytest.raises(ProtocolError) as caught:
        collect(Dripping(size, seconds), 60_000, monkeypatch)
    assert caught.value.status == 408


def test_a_body_at_the_rate_of_a_phone_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert collect(Dripping(1000, 1.0), 60_000, monkeypatch).size == 60_000
