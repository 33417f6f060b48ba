"""The client can always tell where an answer ends, and the connection goes on only where both agree."""

from __future__ import annotations

import http.client
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.server.wsgi import response
from forkserver.server.wsgi.file_wrapper import FileWrapper
from harness.sink import Answer, Sink, answer, replying

BODIES: dict[str, Any] = {
    "one-block": lambda: [b"hello"],
    "two-blocks": lambda: [b"he", b"llo"],
    "tuple": lambda: (b"hello",),
    "generator": lambda: iter([b"he", b"", b"llo"]),
}
bodies = pytest.mark.parametrize("body", BODIES)


def length(value: int) -> tuple[str, str]:
    return "Content-Length", str(value)


@bodies
@pytest.mark.parametrize("http11", [True, False])
def test_a_body_arrives_whole(body: str, http11: bool) -> None:
    assert answer(replying(BODIES[body]()), http11=http11, persistent=http11).body == b"hello"


@bodies
def test_an_announced_length_is_said_once(body: str) -> None:
    got = answer(replying(BODIES[body](), length(5)))
    assert got.head.lower().count(b"content-length") == 1
    assert got.header("Transfer-Encoding") is None
    assert got.body == b"hello"
    assert got.response.persistent


@pytest.mark.parametrize("body", ["one-block", "two-blocks", "tuple"])
def test_a_body_that_is_there_as_a_whole_gets_its_length(body: str) -> None:
    """It costs nothing, and chunks cost both sides."""
    assert answer(replying(BODIES[body]())).header("Content-Length") == "5"


def test_a_body_of_one_block_leaves_in_one_send() -> None:
    assert len(answer(replying([b"hello"])).sink.sends) == 1


def test_blocks_of_unknown_number_are_chunks_in_http_1_1() -> None:
    got = answer(replying(iter([b"he", b"", b"llo"])))
    assert got.header("Transfer-Encoding") == "chunked"
    assert got.raw_body == b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "an empty block as a chunk would be the end"
    assert got.response.persistent


def test_each_chunk_is_on_the_wire_at_once() -> None:
    """PEP 3333 "Buffering and Streaming": the next block may be an hour away."""
    sink = Sink()
    seen: list[bytes] = []

    def blocks() -> Iterator[bytes]:
        for block in (b"one", b"two"):
            yield block
            seen.append(sink.data)

    answer(replying(blocks()), sink=sink)
    assert seen[0].endswith(b"3\r\none\r\n")
    assert seen[1].endswith(b"3\r\ntwo\r\n")


@pytest.mark.parametrize("headers", [(), (length(6),)], ids=["chunked", "length"])
def test_only_the_applications_code_runs_outside(headers: Any) -> None:
    """There it may be interrupted; a send that is cut off in the middle would spoil the connection."""
    where: list[tuple[str, bool]] = []

    class Watched(Sink):
        def send(self, data: bytes, body: bytes = b"") -> None:
            where.append(("send", self.loop_lock.outside))
            super().send(data, body)

        def renew(self) -> None:
            where.append(("renew", self.loop_lock.outside))

    def blocks() -> Iterator[bytes]:
        for block in (b"one", b"", b"two"):
            where.append(("next", sink.loop_lock.outside))
            yield block

    sink = Watched()
    assert answer(replying(blocks(), *headers), sink=sink).body == b"onetwo"
    assert {outside for what, outside in where if what == "next"} == {True}
    assert {outside for what, outside in where if what != "next"} == {False}
    assert where[:4] == [("next", True), ("send", False), ("renew", False), ("next", True)]


def test_blocks_of_unknown_number_end_with_the_connection_in_http_1_0() -> None:
    """HTTP/1.0 knows no chunks; keep-alive would leave the client waiting."""
    got = answer(replying(iter([b"he", b"llo"])), http11=False, persistent=True)
    assert got.raw_body == b"hello"
    assert got.header("Transfer-Encoding") is None
    assert got.header("Connection") == "close"
    assert not got.response.persistent


@pytest.mark.parametrize(
    ("http11", "persistent", "said"),
    [(True, True, None), (True, False, "close"), (False, True, "keep-alive"), (False, False, "close")],
)
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "500 Internal Server Error"])
@pytest.mark.parametrize("how", ["block", "blocks", "write", "file"])
def test_an_answer_that_ends_the_connection_always_says_so(
    http11: bool, persistent: bool, said: str | None, status: str, how: str, tmp_path: Path
) -> None:
    """The status line says HTTP/1.1: a proxy that asked in HTTP/1.0 keeps the connection unless it is told not to."""
    (tmp_path / "x").write_bytes(b"x")
    for method, headers in itertools.product(("GET", "HEAD", "POST"), ([], [length(1)], [("Date", "then")])):
        got = answer(_answering(how, status, headers, tmp_path / "x"), method, http11=http11, persistent=persistent)
        bodiless = method == "HEAD" or status[:3] in ("204", "304")
        open_ended = how in ("blocks", "write") and headers != [length(1)] and not bodiless
        ends = open_ended and not http11
        assert got.header("Connection") == ("close" if ends else said)
        assert got.response.persistent == (persistent and not ends)


def _answering(how: str, status: str, headers: list[tuple[str, str]], file: Path) -> Any:
    """An application whose body, x, comes as ``how`` says."""

    def app(_environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response(status, headers)
        if how == "write":
            write(b"x")
        if how == "file":
            return FileWrapper(file.open("rb"))
        return {"block": [b"x"], "blocks": iter([b"x"]), "write": []}[how]

    return app


def test_an_error_in_place_of_the_application_ends_an_http_1_0_connection_aloud() -> None:
    def app(_environ: dict[str, Any], _start_response: Any) -> Any:
        raise LookupError

    for persistent in (True, False):
        assert answer(app, http11=False, persistent=persistent).header("Connection") == "close"


@bodies
def test_more_than_the_announced_length_is_cut_and_reported(body: str) -> None:
    """Bytes too many would be read as the beginning of the next answer."""
    got = answer(replying(BODIES[body](), length(3)))
    assert got.raw_body == b"hel"
    assert len(got.sink.reports) == 1
    assert "longer" in got.sink.reports[0]
    assert got.response.persistent
    assert got.response.sent == 3


@bodies
def test_less_than_the_announced_length_ends_the_connection_and_is_reported(body: str) -> None:
    """The client waits for the rest, and must not get the next answer instead."""
    got = answer(replying(BODIES[body](), length(9)))
    assert "4 bytes shorter" in got.sink.reports[0]
    assert not got.response.persistent
    with pytest.raises(http.client.IncompleteRead):
        got.read()


def test_nothing_at_all_has_length_0() -> None:
    for body in ([], [b""], (), iter([]), iter([b""])):
        got = answer(replying(body))
        assert got.header("Content-Length") == "0"
        assert got.response.persistent


def test_nothing_of_an_announced_body_ends_the_connection() -> None:
    got = answer(replying([], length(5)))
    assert not got.response.persistent
    assert got.sink.reports


# Answers that carry no body


def no_body(got: Answer) -> None:
    assert got.raw_body == b""
    assert got.body == b""
    assert got.header("Transfer-Encoding") is None
    assert got.response.sent == 0
    assert got.sink.reports == []


@bodies
def test_head_gets_the_head_of_get_and_no_body(body: str) -> None:
    """RFC 9110 section 9.3.2; a body would be read as the next answer."""
    got = answer(replying(BODIES[body](), ("X-A", "1"), length(5)), "HEAD")
    no_body(got)
    assert got.header("Content-Length") == "5"
    assert got.header("X-A") == "1"
    assert got.response.persistent


def test_head_tells_the_length_that_get_would_have() -> None:
    assert answer(replying([b"hello"]), "HEAD").header("Content-Length") == "5"
    assert answer(replying([b"he", b"llo"]), "HEAD").header("Content-Length") == "5"


def test_head_of_an_application_that_leaves_the_body_out_claims_no_length() -> None:
    """Frameworks answer HEAD with nothing: a length of 0 would be untrue of GET."""
    for body in ([], [b""], iter([])):
        got = answer(replying(body), "HEAD")
        no_body(got)
        assert got.header("Content-Length") is None


def test_head_keeps_an_http_1_0_connection() -> None:
    """Nothing has to end, so nothing has to be closed."""
    got = answer(replying(iter([b"x"])), "HEAD", http11=False, persistent=True)
    no_body(got)
    assert got.response.persistent


def test_head_asks_for_no_more_than_the_first_block() -> None:
    """What cannot be sent need not be computed."""
    asked: list[int] = []

    def blocks() -> Iterator[bytes]:
        for number in range(3):
            asked.append(number)
            yield b"x"

    answer(replying(blocks()), "HEAD")
    assert asked == [0]


@bodies
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_status_without_body_carries_none(status: str, body: str) -> None:
    """RFC 9112 section 6.3: whatever follows such a head is the next answer."""
    for http11 in (True, False):
        got = answer(replying(BODIES[body](), status=status), http11=http11)
        no_body(got)
        assert got.response.persistent


def test_204_has_no_length_and_304_may_have_one() -> None:
    """RFC 9110 section 8.6."""
    assert answer(replying([], length(0), status="204 No Content")).header("Content-Length") is None
    assert answer(replying([], length(5), status="304 Not Modified")).header("Content-Length") == "5"
    assert answer(replying([], status="304 Not Modified")).header("Content-Length") is None


# Fields of the connection


def test_fields_of_the_connection_are_dropped_and_each_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEP 3333: hop-by-hop fields are the server's; two framings in one answer are an attack's beginning."""
    monkeypatch.setattr(response, "_reported", set())
    got = answer(
        replying(
            [b"x"], ("Transfer-Encoding", "chunked"), ("Keep-Alive", "timeout=5"), ("Upgrade", "h2c"), ("X-A", "1")
        )
    )
    assert got.body == b"x"
    assert got.header("X-A") == "1"
    for name in ("Transfer-Encoding", "Keep-Alive", "Upgrade"):
        assert got.header(name) is None
        assert sum(name.lower() in report for report in got.sink.reports) == 1


def test_connection_close_of_the_application_is_heeded() -> None:
    got = answer(replying([b"x"], ("Connection", "Close, X-Other")))
    assert got.header("Connection") == "close"
    assert not got.response.persistent
    assert got.sink.reports == []


def test_date_and_server_are_ours_unless_the_application_set_them() -> None:
    """Two values of either are one too many."""
    ours = answer(replying([b"x"]))
    assert ours.header("Server") == "test"
    assert ours.header("Date")
    theirs = answer(replying([b"x"], ("Date", "then"), ("server", "mine")))
    assert theirs.read()[0].headers.get_all("Date") == ["then"]
    assert theirs.read()[0].headers.get_all("Server") == ["mine"]
    one = answer(replying([b"x"], ("Server", "mine")))
    assert one.read()[0].headers.get_all("Server") == ["mine"]
    assert one.header("Date")
