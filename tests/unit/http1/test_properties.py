"""Promises about all bytes, not about chosen ones: searched by hypothesis, from the corpus and from the grammar."""

from __future__ import annotations

import http.client
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forkserver.errors import AppError
from forkserver.http1 import response as wire
from harness.corpus import INDEX, LIMITS, SMALL, bytewise, raw, read
from harness.sink import answer

# The same examples in every run: a build must not fail for what nobody changed.
bounded = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> None:
    """In place of the check that every test has: here are only bytes."""


limits = st.sampled_from([LIMITS, SMALL])

# Bytes that are nearly HTTP

FRAGMENTS = [
    *(b"GET / HTTP/1.1\r\n", b"GET /a?b HTTP/1.0\r\n", b"POST / HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n"),
    *(b"GET http://b/c HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n", b"GET / HTTP/2.0\r\n", b"Host: a\r\n", b"Host:\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: 99\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"Cookie: a\r\n", b"A_B: c\r\n", b"A: b\r\n", b" c\r\n"),
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b":",
        b"hello",
        b"5\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n",
        b"5;a=b\r\n",
    ),
    *(b"\xff", b"HTTP/1.1", b" HTTP/1.1\r\n", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
]
SEEDS = [raw(kind, name) for kind in ("reject", "accept") for name in INDEX[kind]]
SEEDS = [seed for seed in SEEDS if len(seed) < 500]

fragments = st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=3), max_size=12).map(b"".join)


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Requests of the corpus, one or two behind each other, with a few bytes changed."""
    data = b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 3))
        data = data[:at] + draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=2)) + data[at + gone :]
    return data


nearly_http = fragments | mutants()


@bounded
@given(st.binary(max_size=200) | nearly_http, limits)
def test_any_bytes_are_requests_or_a_protocol_error(data: bytes, limits: Any) -> None:
    """An exception of another kind would be a fault in the log for what is the client's, or the end of a worker."""
    stream = read([data], limits)
    assert stream.refused in (None, 400, 413, 414, 417, 431, 501, 505)


@bounded
@given(nearly_http, limits, st.data())
def test_where_the_bytes_are_split_changes_nothing(data: bytes, limits: Any, more: st.DataObject) -> None:
    """TCP promises an order and no boundaries: who splits differently must not be read differently."""
    cuts = sorted(more.draw(st.lists(st.integers(0, len(data)), max_size=5)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    whole = read([data], limits)
    assert read(pieces, limits) == whole
    assert read(bytewise(data), limits) == whole


# What we emit

names = st.sampled_from(["X-A", "x-b", "Content-Type", "ETag", "Set-Cookie", "Vary"])
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)
statuses = st.sampled_from(
    ["200 OK", "201 Created", "204 No Content", "304 Not Modified", "404 Not Found", "500 Oops", "599 "]
)
blocks = st.lists(st.binary(max_size=30), max_size=4)


def app_of(status: str, headers: list[tuple[str, str]], blocks: list[bytes], how: str) -> Any:
    """An application that hands its body over in one of the ways of PEP 3333."""

    def app(_environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response(status, list(headers))
        if how == "write":
            for block in blocks:
                write(block)
            return []
        return {"list": blocks, "tuple": tuple(blocks), "generator": iter(blocks)}[how]

    return app


answers = given(
    statuses,
    st.lists(st.tuples(names, values), max_size=4),
    blocks,
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.booleans(),
    st.sampled_from(["list", "tuple", "generator", "write"]),
    st.booleans(),
)


@bounded
@answers
def test_what_we_emit_the_stdlibs_client_reads_as_it_was_meant(
    status: str, headers: list[tuple[str, str]], blocks: list[bytes], method: str, http11: bool, how: str, told: bool
) -> None:
    """Status, every field, the body to its last byte, and whether the connection goes on."""
    meant = b"".join(blocks)
    said = [*headers, ("Content-Length", str(len(meant)))] if told else headers
    sent = answer(app_of(status, said, blocks, how), method, http11=http11)
    got, body = sent.read()
    bare = method == "HEAD" or got.status in (204, 304)
    assert sent.sink.reports == []
    assert f"{got.status} {got.reason}".strip() == status.strip()
    assert body == (b"" if bare else meant)
    assert [(n, v.strip()) for n, v in got.getheaders() if n in dict(headers)] == [(n, v.strip()) for n, v in headers]
    assert sent.response.persistent == (bare or got.chunked or got.headers["Content-Length"] is not None)


@bounded
@answers
def test_what_we_emit_h11_reads_as_it_was_meant(
    status: str, headers: list[tuple[str, str]], blocks: list[bytes], method: str, http11: bool, how: str, told: bool
) -> None:
    """A second reader, strict where the stdlib's is not: one that guesses kindly proves little."""
    meant = b"".join(blocks)
    said = [*headers, ("Content-Length", str(len(meant)))] if told else headers
    sent = answer(app_of(status, said, blocks, how), method, http11=http11)
    got, body, goes_on = read_with_h11(method, sent.sink.data)
    bare = method == "HEAD" or got.status_code in (204, 304)
    fields = [(n.decode(), v.decode("latin-1")) for n, v in got.headers.raw_items()]
    assert f"{got.status_code} {got.reason.decode()}".strip() == status.strip()
    assert body == (b"" if bare else meant)
    assert [each for each in fields if each[0] in dict(headers)] == [(n, v.strip(" ")) for n, v in headers]
    # To a client of 1.0 it goes on only where that is said; h11 cannot be one.
    assert sent.response.persistent == (goes_on if http11 else (b"connection", b"keep-alive") in got.headers)


def read_with_h11(method: str, data: bytes) -> tuple[h11.Response, bytes, bool]:
    """The answer, its body, and whether another may follow; all of ``data`` must belong to it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    response, body = client.next_event(), b""
    assert isinstance(response, h11.Response)
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:  # an answer that ends with its connection
            client.receive_data(b"")
        else:
            assert isinstance(event, h11.Data)
            body += event.data
    assert client.trailing_data[0] == b""
    return response, body, client.their_state is h11.DONE


@bounded
@given(st.text(max_size=10), st.text(max_size=5), st.text(max_size=10))
def test_what_an_application_passes_stays_in_its_line_or_is_refused(status: str, name: str, value: str) -> None:
    """One status line and one field a line: nothing that is passed can begin another."""
    try:
        checked = wire.check(f"200 {status}", [(name, value)])
    except AppError:
        return
    lines = checked.text.encode("latin-1").split(b"\r\n")
    assert len(lines) <= 3
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)


@bounded
@given(st.lists(st.binary(min_size=1, max_size=30), max_size=5), st.integers(0, 80))
def test_a_body_that_is_not_as_announced_is_seen_by_the_client(blocks: list[bytes], length: int) -> None:
    """Too much is cut, too little is visible; the next answer can never be taken for this one's rest."""
    meant = b"".join(blocks)

    def app(_environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", str(length))])
        return iter(blocks)

    sent = answer(app)
    assert len(sent.raw_body) <= length
    assert sent.response.persistent == (len(meant) >= length)
    if len(meant) < length:
        with pytest.raises(http.client.IncompleteRead):
            sent.read()
    else:
        assert sent.body == meant[:length]
    assert bool(sent.sink.reports) == (len(meant) != length)
