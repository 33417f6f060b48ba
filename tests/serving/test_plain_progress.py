"""What the scoreboard shows of a call that yields block after block, where the extension serves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from harness.plain_answers import GET, Start
from harness.worker import StartWorker

pytestmark = pytest.mark.extension
FOUR = [("Content-Length", "4")]


def test_a_block_is_progress_of_the_call_where_nothing_ends_it_too(worker: StartWorker) -> None:
    seen: list[int] = []

    def app(_environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", FOUR)
        yield b"body"
        busy = server.row.busy()
        assert busy is not None
        seen.append(busy.progress - busy.since)

    server = worker(app, timeout=math.inf)
    server.until_answered(server.client(GET), 3)
    assert seen[0] > 0


def test_a_block_gives_the_call_more_time(worker: StartWorker) -> None:
    seen: list[int] = []

    def app(_environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", FOUR)
        yield b"body"
        busy = server.row.busy()
        assert busy is not None
        seen.append(busy.deadline - busy.since)

    server = worker(app, timeout=30)
    server.until_answered(server.client(GET), 3)
    assert seen[0] > 30_000_000_000
