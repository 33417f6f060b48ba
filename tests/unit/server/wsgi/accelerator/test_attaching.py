"""What the extension has to be told of connections, and what it refuses to believe of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from harness.plain_calls import EXTENSION, PlainCalls, plain
from harness.plain_connections import (
    DESCRIPTORS,
    NOW,
    READING,
    SLOTS,
    STATES,
    PlainConnections,
    SlottedConnection,
    made,
)

pytestmark = pytest.mark.extension
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def connections() -> Iterator[PlainConnections]:
    yield from made()


def test_before_it_is_attached_nothing_is_done() -> None:
    with closing(PlainCalls()) as calls:
        with pytest.raises(TypeError):
            calls.context.receive_all([], {}, None, NOW)
        with pytest.raises(TypeError):
            calls.context.serve(None, plain, 0)


class Slotless:
    read_mask = 1

    def readable(self) -> None: ...


@pytest.mark.parametrize(
    ("connection_class", "slots"),
    [
        (SlottedConnection, {}),
        (SlottedConnection, DESCRIPTORS | {"state": property()}),
        (SlottedConnection, DESCRIPTORS | {"state": EXTENSION and EXTENSION.Request.__dict__["raw"]}),
        (Slotless, DESCRIPTORS),
        ("SlottedConnection", DESCRIPTORS),
    ],
    ids=["none", "property", "of another", "another class", "no class"],
)
def test_what_has_not_the_slots_is_refused(connections: PlainConnections, connection_class: Any, slots: Any) -> None:
    with pytest.raises(TypeError):
        connections.context.attach(connection_class, slots, STATES, connections.timeouts, print, {})
    assert connections.receive(connections.connect(GET)) == []


def test_an_attempt_to_attach_that_fails_changes_nothing(connections: PlainConnections) -> None:
    """Where the slots of one class are must not be taken for those of another."""

    class Reversed:
        __slots__ = tuple(reversed(SLOTS))
        read_mask = 1

        def readable(self) -> None: ...

    slots = vars(Reversed) | {"stays": property()}
    with pytest.raises(TypeError, match="stays"):
        connections.context.attach(Reversed, slots, STATES, connections.timeouts, print, {})
    connection = connections.connect(GET)
    assert connections.receive(connection) == []
    assert list(connections.waiting) == [(connection, GET)]
    assert connections.context.serve(connection, plain, 0) is True
    assert connection.state == READING
