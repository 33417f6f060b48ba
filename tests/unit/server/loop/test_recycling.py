"""When a worker is due for recycling."""

from __future__ import annotations

from forkserver.config.settings import Settings
from forkserver.ipc.scoreboard import REQUESTS, Row
from forkserver.server.loop.recycling import Recycling


def settings(**values: int) -> Settings:
    return Settings({"max_requests": 0, "max_requests_jitter": 0, **values}, {})


def row_with(requests: int) -> Row:
    row = Row(memoryview(bytearray(1 << 16)), 0, 1)
    row.words[REQUESTS] = requests
    return row


def reasons(recycling: Recycling) -> list[str]:
    said: list[str] = []
    recycling.on_due = said.append
    return said


def test_a_worker_is_due_once_when_it_has_served_its_requests() -> None:
    recycling = Recycling(settings(max_requests=3))
    said = reasons(recycling)
    for served in (2, 3, 4):
        recycling.check(row_with(served))
    assert said == ["it has served 3 requests"]


def test_without_a_limit_a_worker_is_never_due() -> None:
    recycling = Recycling(settings())
    said = reasons(recycling)
    recycling.check(row_with(1 << 40))
    assert not said


def test_a_request_of_our_own_is_not_counted() -> None:
    recycling = Recycling(settings(max_requests=3))
    said = reasons(recycling)
    recycling.allow_one_more()
    recycling.check(row_with(3))
    assert not said
    recycling.check(row_with(4))
    assert said == ["it has served 4 requests"]


def test_jitter_draws_a_limit_apart_for_each_worker() -> None:
    drawn = {Recycling(settings(max_requests=10, max_requests_jitter=1000))._most for _ in range(50)}
    assert len(drawn) > 1
    assert min(drawn) >= 10
    assert max(drawn) <= 1010


def test_a_process_without_a_row_counts_nothing() -> None:
    recycling = Recycling(settings(max_requests=1))
    said = reasons(recycling)
    recycling.check(None)
    assert not said
