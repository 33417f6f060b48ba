"""A perfect queue: what it is measured against must be right."""

from __future__ import annotations

from collections.abc import Iterator

from bench.client import Question
from bench.queueing import closed, opened


def seconds(kind: str) -> float:
    return {"fast": 1.0, "slow": 10.0}[kind]


def test_the_server_that_is_free_first_takes_the_oldest_request() -> None:
    asked = [(0.0, 1, "slow"), (0.0, 2, "fast"), (0.5, 3, "fast"), (0.6, 4, "fast")]
    answers = opened(asked, 2, seconds)
    assert [(answer.client, answer.seconds) for answer in answers] == [(1, 10.0), (2, 1.0), (3, 1.5), (4, 2.4)]


def test_clients_ask_again_when_they_have_their_answer() -> None:
    def questions(number: int) -> Iterator[Question]:
        while True:
            yield Question("slow" if number == 0 else "fast", b"")

    answers = closed(3, 2, questions, seconds, turn=0.0, seconds=10.0)
    fast = [answer for answer in answers if answer.kind == "fast"]
    assert len(fast) == 11, "one server is left to two clients, who take turns"
    assert [answer.seconds for answer in fast] == [1.0] + 10 * [2.0]
