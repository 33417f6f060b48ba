"""What the extension does with connections that are ready, and what it leaves to the Python code."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from harness.plain_calls import FACTS, HEAD, PlainCalls, Start, plain
from harness.plain_connections import (
    CALLING,
    DESCRIPTORS,
    NOW,
    READING,
    READY,
    SLOTS,
    STATES,
    PlainConnections,
    SlottedConnection,
    made,
)

pytestmark = pytest.mark.extension
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx")


class OtherConnection(SlottedConnection):
    __slots__ = ()


@pytest.fixture
def connections() -> Iterator[PlainConnections]:
    yield from made()


def ready(connections: PlainConnections, head: bytes = GET) -> Any:
    """A connection whose request waits for the application."""
    connection = connections.connect(head)
    assert connections.receive(connection) == []
    return connection


# Receiving


def test_a_plain_request_waits_for_the_application(connections: PlainConnections) -> None:
    first, second = connections.connect(GET), connections.connect(HEAD)
    assert connections.receive(first, second) == []
    assert list(connections.waiting) == [(first, GET), (second, HEAD)]
    assert (first.state, first.head.raw, first.whole_at) == (READY, GET, NOW)
    assert first.head.line == b"GET /a"


def test_where_threads_serve_their_owner_is_told(connections: PlainConnections) -> None:
    connection = connections.connect(GET)
    assert connections.receive(connection, pool=True) == []
    assert connections.submitted == [(connection, GET)]
    assert (connection.state, connection.head.raw) == (READY, GET)
    assert not connections.waiting


def test_a_request_that_has_waited_before_the_accept_is_told_to_its_owner(connections: PlainConnections) -> None:
    connection = connections.connect(GET)
    connection.backlog_seconds = 0.25
    assert connections.receive(connection) == []
    assert connections.submitted == [(connection, GET)]
    assert not connections.waiting


@pytest.mark.parametrize(
    ("slot", "value"),
    [
        ("state", READY),
        ("state", CALLING),
        ("queued", True),
        ("buffer", b"GET"),
        ("facts", None),
        ("facts", ()),
    ],
)
def test_another_connection_is_left_with_what_it_has_received(
    connections: PlainConnections, slot: str, value: object
) -> None:
    connection = connections.connect(GET)
    setattr(connection, slot, value)
    assert connections.receive(connection) == [(connection.readable, select.EPOLLIN)]
    assert connection.head is None
    assert not connections.waiting


def test_a_connection_of_another_class_is_left(connections: PlainConnections) -> None:
    connection = connections.connect(GET, connection_class=OtherConnection)
    assert connections.receive(connection) == [(connection.readable, select.EPOLLIN)]


def test_other_targets_are_left(connections: PlainConnections) -> None:
    connection, accepting = connections.connect(GET), connections.connect()
    connections.targets[connection.fd] = connection.receive
    connections.targets[accepting.fd] = print
    assert connections.receive(connection, accepting) == [(connection.receive, select.EPOLLIN), (print, select.EPOLLIN)]


def test_a_descriptor_that_has_no_target_is_passed_over(connections: PlainConnections) -> None:
    connection = connections.connect(GET)
    connections.targets.clear()
    assert connections.receive(connection) == []
    assert not connections.waiting


def test_where_nothing_has_come_or_the_end_the_python_code_looks(connections: PlainConnections) -> None:
    silent, gone = connections.connect(), connections.connect()
    connections.client_of(gone).close()
    assert connections.receive(silent, gone) == [(silent.readable, select.EPOLLIN), (gone.readable, select.EPOLLIN)]


def test_what_is_not_plain_is_given_to_the_python_code_at_once(connections: PlainConnections) -> None:
    """What is called next may read from the connection, close it or hand it on: nothing may be on its way there."""
    half, upload = connections.connect(GET[:9]), connections.connect(POST)
    assert connections.receive(half, upload) == []
    assert (half.calls, upload.calls) == ([("receive", GET[:9])], [("receive", POST)])
    assert (half.state, half.head) == (READING, None)
    assert connections.context.declined == 2


def test_a_fault_in_reading_what_is_not_plain_costs_one_connection(connections: PlainConnections) -> None:
    class Faulty(SlottedConnection):
        __slots__ = ()

        def receive(self, data: bytes) -> None:
            raise ValueError(data)

    connections.context.attach(Faulty, DESCRIPTORS, STATES, connections.timeouts, print, {})
    first, second = (connections.connect(sent, connection_class=Faulty) for sent in (POST, GET))
    assert connections.receive(first, second) == []
    assert [(owner, error.args) for owner, error in connections.faults] == [(first, (POST,))]
    assert list(connections.waiting) == [(second, GET)]


@pytest.mark.parametrize("slot", SLOTS)
def test_a_slot_that_was_deleted_is_no_value(connections: PlainConnections, slot: str) -> None:
    """The Python code says what is wrong; the extension reads nothing that is not there."""
    connection = connections.connect(GET)
    events = [(connection.fd, select.EPOLLIN)]
    delattr(connection, slot)
    connections.context.receive_all(events, connections.targets, connections.waiting, NOW)
    connection = ready(connections)
    delattr(connection, slot)
    connections.context.serve(connection, plain, 0)
    connection = ready(connections)

    def app(environ: dict[str, Any], start_response: Start) -> Any:
        delattr(connection, slot)
        return plain(environ, start_response)

    assert connections.context.serve(connection, app, 0) is True


def test_a_fault_costs_one_connection(connections: PlainConnections) -> None:
    def refuse(_connection: object, _raw: bytes) -> None:
        raise ValueError("refused")

    connections.context.attach(SlottedConnection, DESCRIPTORS, STATES, connections.timeouts, refuse, {})
    first, second = connections.connect(GET), connections.connect(GET)
    first.backlog_seconds = 1.0
    assert connections.receive(first, second) == []
    assert [(owner, str(error)) for owner, error in connections.faults] == [(first, "refused")]
    assert list(connections.waiting) == [(second, GET)]


def test_what_is_no_number_is_left(connections: PlainConnections) -> None:
    connection = connections.connect(GET)
    number, connection.fd = connection.fd, "7"
    events = [(number, select.EPOLLIN)]
    left = connections.context.receive_all(events, connections.targets, connections.waiting, NOW)
    assert left == [(connection.readable, select.EPOLLIN)]


def test_a_number_that_is_no_descriptor_costs_one_connection(connections: PlainConnections) -> None:
    connection = connections.connect(GET)
    connections.targets[7] = connection.readable
    connection.fd = -7
    assert connections.context.receive_all([(7, 1)], connections.targets, connections.waiting, NOW) == []
    assert [owner for owner, _ in connections.faults] == [connection]


@pytest.mark.parametrize(
    "arguments", [(), ([], {}, None), ((), {}, None, NOW), ([], [], None, NOW), ([], {}, None, 1), ([7], {}, None, NOW)]
)
def test_what_cannot_be_received_for_is_told(connections: PlainConnections, arguments: Any) -> None:
    with pytest.raises((TypeError, SystemError)):
        connections.context.receive_all(*arguments)


# Serving


def test_a_connection_waits_for_the_next_request_when_its_answer_is_sent(connections: PlainConnections) -> None:
    connection = ready(connections)
    assert connections.context.serve(connection, plain, 0) is True
    assert connections.client_of(connection).recv(65536).endswith(b"\r\n\r\nhi")
    assert (connection.state, connection.head, connection.exchange, connection.calls) == (READING, None, None, [])
    assert (connection.persistent, connection.thread) == (True, 0)
    assert connections.timeouts.now == NOW + 0.5


def test_a_call_sees_its_connection_as_called(connections: PlainConnections) -> None:
    connection = ready(connections)
    seen: list[object] = []

    def app(environ: dict[str, Any], start_response: Start) -> Any:
        seen.extend((connection.state, connection.exchange is connection.head, connection.head.raw))
        return plain(environ, start_response)

    connections.context.serve(connection, app, 0)
    assert seen == [CALLING, True, GET]


def test_what_does_not_wait_for_its_call_is_left(connections: PlainConnections) -> None:
    reading, headless, strange = connections.connect(), connections.connect(), connections.connect()
    other = connections.connect(connection_class=OtherConnection)
    other.state = headless.state = strange.state = READY
    with closing(PlainCalls()) as others:
        strange.head = others.context.take(GET, FACTS)
    served = ready(connections)
    served.state = CALLING
    for connection in (reading, other, headless, strange, served):
        before = connection.state, connection.head
        assert connections.context.serve(connection, plain, 0) is False
        assert (connection.state, connection.head) == before


def closes(connections: PlainConnections, _connection: Any) -> None:
    connections.context.forget()


def has_a_line(connections: PlainConnections, _connection: Any) -> None:
    connections.unended[1] = "begun"


def keeps(connections: PlainConnections, connection: Any) -> None:
    connection._transport = SimpleNamespace(out=[b"rest"])


def waits_long(connections: PlainConnections, connection: Any) -> None:
    connection.parked_at = NOW - 0.6


def rests_elsewhere(connections: PlainConnections, _connection: Any) -> None:
    connections.timeouts.resting = object()


CHANGES = [
    closes,
    has_a_line,
    keeps,
    waits_long,
    rests_elsewhere,
    *(
        lambda _, connection, slot=slot, value=value: setattr(connection, slot, value)
        for slot, value in {
            "state": "closed", "upload": object(), "handler": object(), "buffer": b"GET", "interest": 0, "queue": None,
        }.items()
    ),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_just_wait_again_is_concluded_by_the_python_code(
    connections: PlainConnections, change: Any
) -> None:
    connection = ready(connections)
    request = connection.head

    def app(environ: dict[str, Any], start_response: Start) -> Any:
        change(connections, connection)
        return plain(environ, start_response)

    assert connections.context.serve(connection, app, 0) is True
    assert connection.calls == [("conclude", request, True, None)]
    assert (connection.head is request, connection.exchange) == (True, None)


def test_a_transport_that_keeps_nothing_is_no_hindrance(connections: PlainConnections) -> None:
    connection = ready(connections)
    connection._transport = SimpleNamespace(out=None)
    connections.context.serve(connection, plain, 0)
    assert (connection.state, connection.calls) == (READING, [])


@pytest.mark.parametrize(("stays", "flag", "ends"), [
    (False, "closing", True), (True, "closing", True), (True, "retiring", True), (False, "retiring", False),
])  # fmt: skip
def test_a_loop_that_closes_lets_no_connection_go_on(
    connections: PlainConnections, stays: bool, flag: str, ends: bool
) -> None:
    connection = ready(connections)
    connection.stays = stays
    setattr(connections.loop, flag, True)
    connections.context.serve(connection, plain, 0)
    assert (b"\r\nConnection: close\r\n" in connections.client_of(connection).recv(65536)) is ends
    assert [call[2] for call in connection.calls] == ([False] if ends else [])


def test_a_client_that_asks_for_the_close_is_answered_with_it(connections: PlainConnections) -> None:
    connection = ready(connections, GET.replace(b"Host", b"Connection: close\r\nHost"))
    request = connection.head
    connections.context.serve(connection, plain, 0)
    assert b"\r\nConnection: close\r\n" in connections.client_of(connection).recv(65536)
    assert connection.calls == [("conclude", request, False, None)]


def test_what_the_application_raises_is_passed_on(connections: PlainConnections) -> None:
    connection, fault = ready(connections), ValueError("a fault")

    def app(_environ: dict[str, Any], _start_response: Start) -> Any:
        raise fault

    request = connection.head
    assert connections.context.serve(connection, app, 0) is True
    assert connection.calls == [("conclude", request, None, fault)]
    assert connection.exchange is request
    assert fault.__traceback__ is not None
    request.finish()


def test_a_client_that_has_gone_is_told(connections: PlainConnections) -> None:
    connection = ready(connections)
    connections.client_of(connection).close()
    request = connection.head
    connections.context.serve(connection, plain, 0)
    assert connection.calls == [("conclude", request, None, None)]
    request.finish()


@pytest.mark.parametrize("arguments", [(), (None, plain), (None, plain, "0")])
def test_what_cannot_be_served_is_told(connections: PlainConnections, arguments: Any) -> None:
    with pytest.raises(TypeError):
        connections.context.serve(*arguments)


def test_a_thread_that_has_no_place_is_passed_on_as_a_fault(connections: PlainConnections) -> None:
    connection = ready(connections)
    connections.context.serve(connection, plain, 9)
    assert isinstance(connection.calls[0][3], IndexError)
