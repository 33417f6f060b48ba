"""``environ["forkserver.extend_deadline"]``: an application that asks for more time."""

from __future__ import annotations

from typing import Any

from forkserver.ipc.scoreboard import BUSY_SINCE, ROW_WORDS
from harness.worker import Slow, StartWorker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = GET.replace(b"/ ", b"/slow ")


def test_asking_for_less_time_takes_none_away(worker: StartWorker, app: Slow) -> None:
    """``extend_deadline(5)`` says that five seconds from now will do, not that ``timeout`` is too much."""
    server = worker(app, timeout=30.0)
    seen: list[float] = []

    def during(environ: dict[str, Any]) -> None:
        environ["forkserver.extend_deadline"](5)
        seen.append((server.row.busy().deadline - server.row.words[ROW_WORDS + BUSY_SINCE]) / 1e9)

    app.during = during
    server.until_answered(server.client(SLOW))
    assert seen == [30.0]


def test_without_a_timeout_asking_for_time_sets_none(worker: StartWorker, app: Slow) -> None:
    server = worker(app, timeout=float("inf"))
    seen: list[int] = []

    def during(environ: dict[str, Any]) -> None:
        environ["forkserver.extend_deadline"](5)
        seen.append(server.row.busy().deadline)

    app.during = during
    server.until_answered(server.client(SLOW))
    assert seen == [0]
