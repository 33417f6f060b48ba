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


def noted(worker: StartWorker, timeout: float) -> tuple[int, int]:
    """Nanoseconds from the beginning of a call to its last progress, and to its deadline, after its first block."""
    seen: list[tuple[int, int]] = []

    def app(_environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", FOUR)
        yield b"body"
        busy = server.row.busy()
        assert busy is not None
        seen.append((busy.progress - busy.since, busy.deadline - busy.since))

    server = worker(app, timeout=timeout)
    server.until_answered(server.client(GET), 3)
    return seen[0]


def test_a_block_is_progress_of_the_call_where_nothing_ends_it_too(worker: StartWorker) -> None:
    progress, _ = noted(worker, math.inf)
    assert progress > 0


def test_a_block_gives_the_call_more_time(worker: StartWorker) -> None:
    _, deadline = noted(worker, 30)
    assert deadline > 30_000_000_000
