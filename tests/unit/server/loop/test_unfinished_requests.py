"""The requests that a worker has not finished, in words: calls with their age, then what is nearest to its end."""

from __future__ import annotations

from typing import Any

import pytest

from forkserver.server.connection.states import BODY, CALLING, DRAINING, READING, READY, UPGRADED
from forkserver.server.loop.unfinished_requests import named
from harness.fakes import FakeLoop

GET = b"GET /path?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


def unfinished(loop: FakeLoop, state: Any, data: bytes = GET) -> Any:
    connection = loop.connect(data)
    connection.state = state
    return connection


def test_idle_connections_are_not_named(loop: FakeLoop) -> None:
    assert named([unfinished(loop, READING)], loop.row) == ""


@pytest.mark.parametrize(
    ("state", "how"),
    [(DRAINING, "its answer is not taken"), (READY, "it waits for the application"), (BODY, "its body has not come")],
)
def test_a_request_is_named_by_what_it_waits_for(loop: FakeLoop, state: Any, how: str) -> None:
    """Without its query, which may hold secrets."""
    assert named([unfinished(loop, state)], loop.row) == f"GET /path from 192.0.2.7 ({how})"


@pytest.mark.parametrize(("state", "what"), [(CALLING, "in the application"), (UPGRADED, "a WebSocket")])
def test_a_call_is_named_with_its_age(loop: FakeLoop, state: Any, what: str) -> None:
    connection = unfinished(loop, state)
    loop.row.begin(b"GET /path")
    assert f"({what} for 0.0 s)" in named([connection], loop.row)
    assert f"({what} for 0.0 s)" in named([connection], None)


def test_calls_come_first_and_more_than_five_are_counted(loop: FakeLoop) -> None:
    loop.row.begin(b"GET /path")
    connections = [unfinished(loop, state) for state in (BODY, READY, DRAINING, BODY, BODY, BODY, CALLING)]
    said = named(connections, loop.row).split("; ")
    assert "in the application" in said[0]
    assert "its answer is not taken" in said[1]
    assert "it waits for the application" in said[2]
    assert said[5:] == ["2 more"]


def test_what_a_client_sent_cannot_forge_a_line(loop: FakeLoop) -> None:
    connection = unfinished(loop, READY, GET.replace(b"/path", b"/" + b"%0a" * 100))
    connection.peer = ("", 0)
    said = named([connection], loop.row)
    assert said.isprintable()
    assert said.endswith(" from a local client (it waits for the application)")
    assert len(said) < 200
