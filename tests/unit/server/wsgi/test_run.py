"""The application meets PEP 3333: start_response, write, close, and what its mistakes cost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from forkserver.errors import AppError
from forkserver.http1 import response as wire
from forkserver.server.wsgi.response import Response
from forkserver.server.wsgi.response_sink import ClientGoneError
from forkserver.server.wsgi.run import run
from harness.naming import shown
from harness.sink import Sink, answer, replying

OOPS = RuntimeError("oops")


class Closing:
    """An iterable of ``blocks`` that counts its close() and may fail in either."""

    def __init__(
        self, *blocks: Any, fail: BaseException | None = None, fail_close: BaseException | None = None
    ) -> None:
        self.blocks, self.fail, self.fail_close = blocks, fail, fail_close
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        yield from self.blocks
        if self.fail:
            raise self.fail

    def close(self) -> None:
        self.closed += 1
        if self.fail_close:
            raise self.fail_close


# start_response


def test_nothing_is_sent_before_the_first_block() -> None:
    """Until then an error can still become a 500 (PEP 3333 "The start_response() Callable")."""
    sink = Sink()
    seen = []

    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        seen.append(sink.data)
        yield b""
        seen.append(sink.data)
        yield b"x"
        seen.append(sink.data)

    answer(app, sink=sink)
    assert seen[:2] == [b"", b""]
    assert seen[2].startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_generator_may_call_start_response_late() -> None:
    """PEP 3333 allows it up to the first block that is not empty."""

    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b""
        start_response("201 Created", [])
        yield b"x"

    assert answer(app).read()[0].status == 201


@pytest.mark.parametrize("body", [[], [b""], [b"x"], [b"x", b"y"], iter([b"x"]), iter([])], ids=shown)
def test_an_answer_without_start_response_is_a_500(body: Any) -> None:
    got = answer(lambda _environ, _start: body)
    assert got.sink.failed == 500
    assert "start_response" in got.sink.reports[0]


def test_a_second_start_response_without_exc_info_is_a_fault() -> None:
    """PEP 3333: a fatal error."""

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        start_response("404 Not Found", [])
        return [b"x"]

    got = answer(app)
    assert got.sink.failed == 500
    assert not got.sink.errors, "a broken rule needs no traceback"


def test_exc_info_replaces_the_head_while_it_is_not_sent() -> None:
    """So that an application can turn what it began into its own error page; the old headers must be gone."""

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X-Old", "1"), ("Content-Length", "99")])
        try:
            raise OOPS
        except RuntimeError:
            start_response("503 Busy", [("X-New", "1")], sys.exc_info())
        return [b"sorry"]

    got, body = answer(app).read()
    assert (got.status, got.reason, body) == (503, "Busy", b"sorry")
    assert got.headers["X-Old"] is None
    assert got.headers["X-New"] == "1"


def test_exc_info_after_the_head_is_raised_and_cuts_the_connection() -> None:
    """The page that would explain can no longer be sent; the client must see that the answer is not whole."""
    caught: list[BaseException] = []

    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"half"
        try:
            raise OOPS
        except RuntimeError:
            try:
                start_response("500 Oops", [], sys.exc_info())
            except RuntimeError as error:
                caught.append(error)
                raise

    got = answer(app)
    assert caught == [OOPS]
    assert got.sink.aborted
    assert got.sink.failed is None
    assert not got.response.persistent


def test_exc_info_of_nothing_is_none() -> None:
    """``sys.exc_info()`` outside a handler is a tuple of None; what is sent cannot be replaced then either."""

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [], None)
        return [b"x"]

    assert answer(app).body == b"x"


@pytest.mark.parametrize(
    ("status", "headers"),
    [("200", "no list"), (200, []), ("OK", []), ("200 OK", [("A", "b\r\nC: d")]), ("200 OK\r\nA: b", [])],
    ids=shown,
)
def test_what_cannot_be_sent_is_refused_where_the_application_can_see_it(status: Any, headers: Any) -> None:
    """The traceback then points at the line that is wrong."""
    seen: list[BaseException] = []

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        try:
            start_response(status, headers)
        except AppError as error:
            seen.append(error)
            raise
        return [b"x"]

    got = answer(app)
    assert got.sink.failed == 500
    assert got.sink.reports == [str(seen[0])]


# write


def test_write_sends_at_once_and_before_the_iterable() -> None:
    """PEP 3333: what write() was given goes out before the first block of the iterable."""
    sink = Sink()

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"one ")
        assert b"one " in sink.data
        write(b"two ")
        return [b"three"]

    assert answer(app, sink=sink).body == b"one two three"


def test_write_keeps_to_content_length() -> None:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", "6")])
        write(b"one")
        write(b"two")
        return []

    got = answer(app)
    assert got.body == b"onetwo"
    assert got.sink.reports == []


@pytest.mark.parametrize("block", ["text", bytearray(b"x"), memoryview(b"x"), 1, None, "", 0], ids=shown)
def test_a_block_that_is_not_bytes_is_a_500_that_names_its_type(block: Any) -> None:
    """Wherever it comes from, and though it is empty: the next one of the same code will not be."""
    for body in ([block], [b"", block], (block,), iter([block])):
        got = answer(replying(body))
        assert got.sink.failed == 500
        assert type(block).__name__ in got.sink.reports[0]

    def writing(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(block)
        return []

    assert answer(writing).sink.failed == 500


@pytest.mark.parametrize("result", [None, 5, object(), "text", b"bytes"], ids=shown)
def test_a_result_that_is_no_iterable_of_bytes_is_a_500(result: Any) -> None:
    assert answer(replying(result)).sink.failed == 500


# close


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("blocks", [(), (b"",), (b"x",), (b"x", b"y")], ids=shown)
def test_close_is_called_once_when_all_is_sent(blocks: tuple[bytes, ...], method: str) -> None:
    body = Closing(*blocks)
    answer(replying(body), method)
    assert body.closed == 1


@pytest.mark.parametrize(
    "body",
    [Closing(fail=OOPS), Closing(b"x", fail=OOPS), Closing("text"), Closing(b"x", "text"), Closing(b"too long")],
    ids=["at-once", "midway", "wrong", "wrong-midway", "cut"],
)
def test_close_is_called_once_though_the_answer_failed(body: Closing) -> None:
    """A database session is given back by close(), whatever became of the answer."""
    answer(replying(body, ("Content-Length", "2")))
    assert body.closed == 1


@pytest.mark.parametrize("room", [0, 1, 2])
def test_close_is_called_once_when_the_client_left(room: int) -> None:
    body = Closing(b"x", b"y", b"z")
    got = answer(replying(body), sink=Sink(room))
    assert body.closed == 1
    assert got.sink.reports == [], "a client that leaves is no fault of the application"
    assert not got.response.persistent


def test_a_failing_close_is_reported_and_spoils_nothing() -> None:
    got = answer(replying(Closing(b"x", fail_close=OOPS)))
    assert got.body == b"x"
    assert got.sink.errors == [OOPS]
    assert not got.sink.aborted


# What the application raises

ERRORS = [OOPS, SystemExit(1), GeneratorExit(), asyncio.CancelledError(), BaseException("bare")]


@pytest.mark.parametrize("error", ERRORS, ids=shown)
def test_an_exception_before_the_head_is_a_500(error: BaseException) -> None:
    """Also what is no Exception: one request's cancelled task must not end the worker of all the others."""

    def app(_environ: Any, _start: Any) -> list[bytes]:
        raise error

    got = answer(app)
    assert got.sink.failed == 500
    assert got.sink.errors == [error]
    assert got.read()[0].status == 500


@pytest.mark.parametrize("error", ERRORS, ids=shown)
def test_an_exception_after_the_head_cuts_the_connection(error: BaseException) -> None:
    got = answer(replying(Closing(b"half", fail=error)))
    assert got.sink.aborted
    assert got.sink.errors == [error]
    assert not got.sink.data.endswith(b"0\r\n\r\n"), "the end of a chunked body would make it look whole"


def test_keyboard_interrupt_is_not_the_applications() -> None:
    """A person at a terminal who presses ^C means the server; close() is called all the same."""
    body = Closing(b"x", fail=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        answer(replying(body))
    assert body.closed == 1


def test_a_client_that_left_before_its_error_page_is_no_further_fault() -> None:
    got = answer(replying(Closing(fail=OOPS)), sink=Sink(0))
    assert got.sink.errors == [OOPS]
    assert not got.response.persistent


def test_an_application_may_swallow_the_clients_leaving() -> None:
    """``except Exception`` around write() is common; the next send says it again, and nothing is spoilt."""

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        try:
            write(b"x")
        except ClientGoneError:
            return [b"y"]
        return []

    assert not answer(app, sink=Sink(0)).response.persistent


def test_who_was_answered_without_the_application_is_not_answered_again() -> None:
    """A call that was given up may raise in the end; a second 504 behind the first belongs to no request."""
    sink = Sink()
    response = Response(sink, wire.Clock("test"), "GET", True, True)

    def given_up(environ: dict[str, Any], start_response: Any) -> Any:
        response.give_up(504)
        raise OOPS

    run(given_up, {}, response)
    assert (sink.data, response.status, response.persistent) == (b"", 504, False)


class Odd(bytes):
    """A block that says of itself something else than its bytes."""

    def __len__(self) -> int:
        return 99

    def __bytes__(self) -> bytes:
        return b"other"


@pytest.mark.parametrize("http11", [True, False])
def test_a_block_of_a_subclass_is_sent_as_its_bytes(http11: bool) -> None:
    """Its length is what the framing says."""
    blocks: tuple[Any, ...] = ([Odd(b"odd")], (Odd(b"o"), b"dd"), iter([b"o", Odd(b"dd")]), iter([Odd(b"o"), b"dd"]))
    for body in blocks:
        got = answer(replying(body), http11=http11, persistent=http11)
        assert got.body == b"odd"
        assert got.response.sent == 3
