"""The limit that no server can pass: one perfect queue before as many servers, with the same clients.

A simulated request takes the first server that is free, in the order in which requests came; nothing else costs time.
What a real server takes beyond that is a request that waited while a worker idled.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

from bench.client import Answer, Question

Service = Callable[[str], float]  # seconds of a call, by the kind of its question
Questions = Callable[[int], Iterator[Question]]


def closed(
    clients: int, servers: int, questions: Questions, service: Service, turn: float, seconds: float
) -> list[Answer]:
    """The answers to ``clients`` that ask again as soon as they have their answer, in ``seconds``.

    ``turn`` is what the program that plays the clients takes for each of their questions, in seconds: it asks one after
    the other.
    """
    asks = [(0.0, number) for number in range(clients)]
    heapq.heapify(asks)
    each = [questions(number) for number in range(clients)]
    answers, free, client_free = [], [0.0] * servers, 0.0
    heapq.heapify(free)
    while asks and asks[0][0] < seconds:
        wanted, number = heapq.heappop(asks)
        client_free = max(wanted, client_free) + turn
        asked, kind = client_free, next(each[number]).kind
        end = _served(free, asked, service(kind))
        answers.append(Answer(number, kind, asked, end - asked, 0, 0.0))
        heapq.heappush(asks, (end, number))
    return answers


def opened(asked: Iterable[tuple[float, int, str]], servers: int, service: Service) -> list[Answer]:
    """The answers to questions that come at a time, by a client, and are of a kind, whatever became of those before."""
    free = [0.0] * servers
    return [
        Answer(client, kind, at, _served(free, at, service(kind)) - at, 0, 0.0) for at, client, kind in sorted(asked)
    ]


def _served(free: list[float], asked: float, seconds: float) -> float:
    """When the call of a request that came at ``asked`` ends, by the server that is free first."""
    end = max(asked, heapq.heappop(free)) + seconds
    heapq.heappush(free, end)
    return end
