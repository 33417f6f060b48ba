"""What applications return in place of a list, as frameworks do: read, sent and closed as by the Python code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from django.conf import settings as django_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.wrappers import Response as WerkzeugResponse

from forkserver.errors import AppError
from harness.plain_answers import GET, REQUESTS, Application, Start, Told, both
from harness.worker import StartWorker, read

pytestmark = pytest.mark.extension
FOUR = [("Content-Length", "4")]
LARGE = ("X-Large", "x" * 8_000_000)


EVENTS: list[str] = []  # what the server does with the iterables, in its order


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> None:
    """The workers serve all tests of the module."""


class Blocks:
    """An iterable that yields or raises what it is given, and says when it is asked."""

    def __init__(self, blocks: tuple[Any, ...], fault: BaseException | None = None) -> None:
        self._blocks = iter(blocks)
        self._fault = fault

    def __iter__(self) -> Blocks:
        EVENTS.append("iter")
        return self

    def __next__(self) -> Any:
        EVENTS.append("next")
        block = next(self._blocks)
        if isinstance(block, BaseException):
            raise block
        return block

    def close(self) -> None:
        EVENTS.append("close")
        if self._fault is not None:
            raise self._fault


class Unclosable(Blocks):
    close: Any = property(lambda _self: 1 / 0)


class NoIterator(Blocks):
    def __iter__(self) -> Any:
        EVENTS.append("iter")
        raise TypeError("not today")


class Own(bytes):
    """Bytes that say of themselves what they like."""

    def __len__(self) -> int:
        return 0


def gives(
    *blocks: Any, fault: BaseException | None = None, kind: Any = Blocks, status: str = "200 OK", headers: Any = FOUR
) -> Application:
    def app(_environ: dict[str, Any], start_response: Start) -> Any:
        start_response(status, list(headers))
        return kind(blocks, fault)

    return app


def generates(*blocks: Any, headers: Any = FOUR) -> Application:
    """Calls start_response only when it is asked for the first block."""

    def app(_environ: dict[str, Any], start_response: Start) -> Iterator[Any]:
        EVENTS.append("begun")
        start_response("200 OK", list(headers))
        for block in blocks:
            EVENTS.append("next")
            yield block
        EVENTS.append("ended")

    return app


def starts_in_vain(_environ: dict[str, Any], _start_response: Start) -> Any:
    return Blocks((b"body",))


def starts_after_the_body(_environ: dict[str, Any], start_response: Start) -> Any:
    yield b"body"
    start_response("200 OK", FOUR)


def writes_between(_environ: dict[str, Any], start_response: Start) -> Any:
    write = start_response("200 OK", FOUR)
    write(b"bo")
    yield b""
    write(b"dy")


def writes_behind(_environ: dict[str, Any], start_response: Start) -> Any:
    write = start_response("200 OK", FOUR)
    yield b"body"
    write(b"more")
    write(b"and more")


def writes_when_closed(_environ: dict[str, Any], start_response: Start) -> Any:
    write = start_response("200 OK", FOUR)
    try:
        yield b"body"
    finally:
        write(b"more")


def starts_again(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", FOUR)
    yield b"body"
    start_response("201 Created", FOUR)


def hints_behind(environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", FOUR)
    yield b"body"
    environ.get("wsgi.early_hints", list)([])


def by_items(_environ: dict[str, Any], start_response: Start) -> Any:
    class Items:
        def __getitem__(self, number: int) -> bytes:
            return [b"", b"body"][number]

    start_response("200 OK", FOUR)
    return Items()


def werkzeug(environ: dict[str, Any], start_response: Start) -> Any:
    response = WerkzeugResponse("body")
    response.call_on_close(lambda: EVENTS.append("closed"))
    return response(environ, start_response)


def django(environ: dict[str, Any], start_response: Start) -> Any:
    if not django_settings.configured:
        django_settings.configure()
    from django.http import HttpResponse

    response = HttpResponse(b"body", headers={"Content-Length": "4"})
    start_response("200 OK", list(response.items()))
    return response


def validated(environ: dict[str, Any], start_response: Start) -> Any:
    return validator(gives(b"body", headers=[*FOUR, ("Content-Type", "text/plain")]))(environ, start_response)  # type: ignore[arg-type]


PLAIN: dict[str, Application] = {
    "one block": gives(b"body"),
    "empty blocks around it": gives(b"", b"body", b"", b""),
    "nothing": gives(headers=[("Content-Length", "0")]),
    "only empty blocks": gives(b"", b"", headers=[("Content-Length", "0")]),
    "a large block": gives(b"x" * 40_000, headers=[("Content-Length", "40000")]),
    "no content": gives(b"body", status="204 No Content"),
    "not modified": gives(status="304 Not Modified", headers=[]),
    "not modified, with a body": gives(b"body", b"more", status="304 Not Modified", headers=[]),
    "a generator": generates(b"body"),
    "a generator of nothing": generates(headers=[]),
    "an iterator": gives(kind=lambda *_: iter([b"body"])),
    "items": by_items,
    "werkzeug": werkzeug,
    "django": django,
    "validated": validated,
}
LEFT: dict[str, Application] = {
    "a close that raises": gives(b"body", fault=ValueError("in close")),
    "a close that exits": gives(b"body", fault=SystemExit(3)),
    "a close that cannot be found": gives(b"body", kind=Unclosable),
    "no iterator": gives(b"body", kind=NoIterator),
    "blocks": gives(b"bo", b"dy"),
    "a block too long": gives(b"bodies"),
    "a block too short": gives(b"bod"),
    "nothing of a length": gives(),
    "a block too many": gives(b"body", b"more", b"and more"),
    "a fault at first": gives(ValueError("at first")),
    "a fault after an empty block": gives(b"", ValueError("at first")),
    "a fault behind the body": gives(b"body", ValueError("behind")),
    "an exit behind the body": gives(b"body", SystemExit(3)),
    "a fault behind, and in close": gives(b"body", ValueError("behind"), fault=ValueError("in close")),
    "a str": gives("body"),
    "a str behind the body": gives(b"body", "more"),
    "None behind the body": gives(b"body", None),
    "bytes of an own class": gives(Own(b"body")),
    "bytes of an own class behind": gives(b"body", Own(b"more")),
    "a bytearray": gives(bytearray(b"body")),
    "a stream": gives(b"body", headers=[]),
    "a stream of nothing": gives(headers=[]),
    "a generated stream": generates(b"bo", b"dy", headers=[]),
    "a generator of a str": generates("body"),
    "a generator of blocks": generates(b"bo", b"dy"),
    "no start_response": starts_in_vain,
    "a late start_response": starts_after_the_body,
    "writes": writes_between,
    "writes behind the body": writes_behind,
    "a write in close": writes_when_closed,
    "another start_response": starts_again,
    "early hints behind the body": hints_behind,
    "a head that the kernel does not take": gives(headers=[("Content-Length", "0"), LARGE]),
    "one for a body that is not sent": gives(b"body", b"more", status="304 Not Modified", headers=[LARGE]),
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("name", PLAIN | LEFT)
def test_every_iterable_is_answered_and_closed_the_same_way(
    name: str, request_name: str, pair: tuple[Told, Told]
) -> None:
    found = []
    for told in pair:
        EVENTS.clear()
        found.append((told.ask((PLAIN | LEFT)[name], REQUESTS[request_name]), list(EVENTS)))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", PLAIN)
def test_an_iterable_of_one_block_is_sent_by_the_extension(name: str, pair: tuple[Told, Told]) -> None:
    with_c, _ = pair
    before = with_c.served
    with_c.ask(PLAIN[name], GET * 3)
    assert with_c.served == before + 3


@pytest.mark.parametrize("name", LEFT)
def test_other_iterables_are_left_to_the_python_code(name: str, pair: tuple[Told, Told]) -> None:
    with_c, _ = pair
    before = with_c.served
    with_c.ask(LEFT[name])
    assert with_c.served == before


pieces = st.one_of(st.binary(max_size=5), st.sampled_from([b"body", b"", "text", ValueError("at it"), None]))


@settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(
    blocks=st.lists(pieces, max_size=4),
    headers=st.sampled_from([[], FOUR, [("Content-Length", "0")], [("Content-Length", "7")]]),
    status=st.sampled_from(["200 OK", "204 No Content", "304 Not Modified"]),
    fault=st.sampled_from([None, ValueError("in close")]),
    request_name=st.sampled_from(sorted(REQUESTS)),
)
def test_iterables_that_are_searched_for_are_answered_the_same(
    blocks: list[Any],
    headers: list[tuple[str, str]],
    status: str,
    fault: Any,
    request_name: str,
    pair: tuple[Told, Told],
) -> None:
    found = []
    for told in pair:
        EVENTS.clear()
        app = gives(*blocks, fault=fault, status=status, headers=headers)
        found.append((told.ask(app, REQUESTS[request_name]), list(EVENTS)))
    assert found[0] == found[1]


def test_a_block_is_sent_before_the_next_one_is_asked_for(worker: StartWorker) -> None:
    """PEP 3333, "Buffering and Streaming": the client has it while the application works on."""
    seen = [b""]

    def app(_environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", FOUR)
        yield b"body"
        while not seen[0].endswith(b"body"):
            seen[0] += read(client, 1)

    server = worker(app)
    client = server.client(GET)
    server.turn(2)
    assert seen[0].endswith(b"body")
    assert server.loop.plain is not None
    assert server.loop.plain.served == 1


def test_a_write_after_the_end_is_reported_and_reaches_no_client() -> None:
    """The next answer is not to have it in its midst."""
    writes: list[Any] = []

    def app(_environ: dict[str, Any], start_response: Start) -> list[bytes]:
        writes.append(start_response("200 OK", FOUR))
        return [b"body"]

    told = []
    with both() as pair:
        for each in pair:
            each.ask(app)
            for data in (b"", b"late", b"later"):
                writes[-1](data)
            with pytest.raises(AppError):
                writes[-1]("text")
            told.append(list(each.reports))
    assert (
        told[0] == told[1] == ["GET /a?b (request ours): the body is longer than its Content-Length; the rest is cut"]
    )


def test_start_response_after_the_end_fails_as_before_it() -> None:
    starts: list[Start] = []

    def app(_environ: dict[str, Any], start_response: Start) -> list[bytes]:
        starts.append(start_response)
        start_response("200 OK", FOUR)
        return [b"body"]

    with both() as pair:
        for each in pair:
            each.ask(app)
            with pytest.raises(AppError, match="a second time without exc_info"):
                starts[-1]("200 OK", [])
            with pytest.raises(ValueError, match="late"):
                starts[-1]("200 OK", [], (ValueError, ValueError("late"), None))


@pytest.mark.parametrize("waits", ["next", "close"])
def test_what_the_loop_asks_of_an_answer_that_is_sent_it_is_told(worker: StartWorker, waits: str) -> None:
    """The background driver cuts the connection while the application works behind its body."""
    seen: list[Any] = []

    def look() -> None:
        (connection,) = server.loop.connections
        with server.loop.loop_lock.mutex:
            response = connection.exchange.response
            seen.append((response.head_sent, response.remaining, response.sent, response.status, connection.streams))
            connection.cut()

    def app(_environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("201 Created", FOUR)
        try:
            yield b"body"
            if waits == "next":
                look()
        finally:
            if waits == "close":
                look()

    server = worker(app)
    lines = server.access_lines()
    answer = server.until_answered(server.client(GET), 3)
    assert seen == [(True, 0, 4, 201, True)]
    assert answer.endswith(b"body<closed>")
    assert len(lines) == 1
    assert server.row.busy() is None


def test_what_the_kernel_does_not_take_of_a_block_follows(worker: StartWorker) -> None:
    body = b"".join(b"%09d\n" % number for number in range(200_000))

    def app(_environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", str(len(body)))])
        yield body
        EVENTS.append("asked for more")

    EVENTS.clear()
    server = worker(app)
    client = server.client(GET, receive_buffer=4096)
    found = b""
    while piece := server.until_answered(client, 9):
        found += piece
    assert found.partition(b"\r\n\r\n")[2] == body
    assert EVENTS == ["asked for more"]
