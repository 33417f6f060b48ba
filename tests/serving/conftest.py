"""Servers in this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from forkserver.server.connection.lifecycle import OpenConnection
from forkserver.server.connection.states import NEXT, ConnectionState
from harness import credentials
from harness.plain_answers import Told, both
from harness.worker import App, Clock, Slow, StartTwoWorkers, StartWorker, Worker, hello


@pytest.fixture(autouse=True)
def _states_follow_the_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each change of a connection's state is one that ``states.NEXT`` has."""
    slot: Any = vars(OpenConnection)["state"]
    wrong: list[str] = []

    def change(connection: OpenConnection, state: ConnectionState) -> None:
        before = getattr(connection, "state", state)
        if before is not state and state not in NEXT[before]:
            wrong.append(f"{before.name} to {state.name}")
        slot.__set__(connection, state)

    monkeypatch.setattr(OpenConnection, "state", property(slot.__get__, change))
    yield
    assert not wrong


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app() -> Slow:
    return Slow()


@pytest.fixture
def worker(clock: Clock) -> Iterator[StartWorker]:
    """Starts servers: ``worker(app, **settings)``; they are closed at the end."""
    made: list[Worker] = []

    def make(app: App = hello, **changes: Any) -> Worker:
        made.append(Worker(app, clock, **changes))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Told, Told]]:
    """A worker with the extension and one without it, which serve all tests of a module; then two that speak TLS."""
    spoken: dict[str, Any] = {}
    if request.param:
        spoken = {"client": credentials.client(), "tls": credentials.server(tmp_path_factory.mktemp("tls"))}
    with both(**spoken) as made:
        yield made


@pytest.fixture
def two_workers(clock: Clock) -> Iterator[StartTwoWorkers]:
    """Starts two servers of one service, each with a listener of its own, and the queue between them."""
    give, take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made: list[Worker] = []

    def make(app: App = hello, **changes: Any) -> tuple[Worker, Worker]:
        for number in (0, 1):
            ends = os.dup(give.fileno()), os.dup(take.fileno())
            made.append(Worker(app, clock, number, ends, **changes))
        return made[0], made[1]

    yield make
    for each in made:
        each.close()
    give.close()
    take.close()
