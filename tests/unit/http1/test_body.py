"""Body readers beyond the corpus: bounds, splits, and where a body ends."""

from __future__ import annotations

import sys
from types import FrameType

import pytest

from forkserver.errors import ProtocolError
from forkserver.http1 import grammar
from forkserver.http1.body import ChunkedBody, FixedBody
from harness.corpus import CountedSearches


def refusal(data: bytes, max_body: int = 1000) -> int:
    with pytest.raises(ProtocolError) as caught:
        ChunkedBody(max_body).feed(data)
    return caught.value.status


def test_a_body_by_length_ends_at_its_last_byte() -> None:
    body = FixedBody(5)
    assert body.feed(b"he") == b"he"
    assert not body.done
    assert body.feed(b"lloGET /") == b"llo"
    assert body.done
    assert body.rest == b"GET /"


def test_a_body_that_ends_with_the_bytes_has_no_rest() -> None:
    for body, data in ((FixedBody(5), b"hello"), (ChunkedBody(5), b"5\r\nhello\r\n0\r\n\r\n")):
        assert body.feed(data) == b"hello"
        assert body.done
        assert body.rest == b""


def test_a_chunk_is_passed_on_before_it_is_whole() -> None:
    """A body may be one chunk of a gigabyte, and is not to be kept twice."""
    body = ChunkedBody(1000)
    assert body.feed(b"5\r\nhe") == b"he"
    assert body.feed(b"l") == b"l"
    assert body.feed(b"lo\r") == b"lo"
    assert body.feed(b"\n0\r\n\r") == b""
    assert not body.done
    assert body.feed(b"\nGET /") == b""
    assert body.done
    assert body.rest == b"GET /"


def test_the_limit_counts_the_body_and_not_its_framing() -> None:
    body = b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    assert ChunkedBody(5).feed(body) == b"hello"
    assert refusal(body, 4) == 413


def test_too_large_a_chunk_is_refused_before_its_data() -> None:
    """Its size says enough; nothing of it need be stored."""
    assert refusal(b"3e9\r\n") == 413


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"1" * 1100, 400),
        (b"5;a=" + b"b" * 1100, 400),
        (b"0\r\n" + b"A" * 17000, 400),
        (b"0\r\n" + b"A: b\r\n" * 65, 431),
        (b"0\r\n" + (b"A: " + b"b" * 5000 + b"\r\n") * 4, 431),
    ],
    ids=["size", "extension", "trailer", "trailers", "trailer-bytes"],
)
def test_lines_of_the_framing_are_bounded_though_they_never_end(data: bytes, status: int) -> None:
    """They are kept in memory, and no limit on bodies counts them."""
    assert refusal(data) == status


def test_chunk_extensions_are_bounded_in_a_whole_body() -> None:
    """One byte of body with a kilobyte of extension, ever again, is work without end."""
    chunk = b"1;a=" + b"b" * 1000 + b"\r\nx\r\n"
    assert ChunkedBody(1000).feed(chunk * 16) == b"x" * 16
    assert refusal(chunk * 17) == 400


@pytest.mark.parametrize("data", [b"5\n", b"5\rh", b"5\0", b"0\r\nA\n", b"5\r\nhelloX", b"5\r\nhello\rX"])
def test_wrong_framing_is_refused_before_its_line_ends(data: bytes) -> None:
    assert refusal(data) == 400


def test_a_line_of_the_framing_that_comes_in_drips_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with heads: a slow client must not cost a core."""
    counted = CountedSearches(grammar.NOT_IN_HEAD)
    monkeypatch.setattr(grammar, "NOT_IN_HEAD", counted)
    data = b"5;a=" + b"b" * 900 + b"\r\nhello\r\n0\r\nA: " + b"b" * 9000 + b"\r\n\r\n"
    body = ChunkedBody(1000)
    assert b"".join(body.feed(data[at : at + 1]) for at in range(len(data))) == b"hello"
    assert body.done
    assert counted.looked_at <= 3 * len(data)


def test_a_feed_takes_its_share_of_chunks_and_leaves_the_rest_for_later() -> None:
    """A client that sends a byte a chunk is not to keep others waiting."""
    body = ChunkedBody(1000, share=4)
    data = b"".join(b"1\r\n%c\r\n" % letter for letter in b"abcdefghij") + b"0\r\n\r\nnext"
    assert (body.feed(data), body.more, body.done) == (b"abcd", True, False)
    assert (body.feed(b""), body.more) == (b"efgh", True)
    assert (body.feed(b""), body.more, body.done) == (b"ij", False, True)
    assert body.rest == b"next"


@pytest.mark.parametrize("share", [1, 2, 3, 7])
def test_a_share_changes_nothing_of_what_a_body_is(share: int) -> None:
    """However the bytes come, and whatever stands between them."""
    data = b"3\r\nabc\r\n1;x=y\r\nd\r\n05\r\nefghi\r\n0\r\nTrailer: t\r\n\r\nrest"
    for at in range(len(data)):
        body, found = ChunkedBody(1000, share), b""
        for part in (data[:at], data[at:]):
            found += body.feed(part) if not body.done else b""
            while body.more:
                found += body.feed(b"")
        assert (found, body.done) == (b"abcdefghi", True)
        assert b"rest".startswith(body.rest)


def test_a_share_that_ends_with_the_bytes_leaves_nothing() -> None:
    """More is asked for only where there is some: an idle connection must not be asked again and again."""
    body = ChunkedBody(1000, share=2)
    assert (body.feed(b"1\r\na\r\n1\r\nb\r\n"), body.more) == (b"ab", False)
    assert (body.feed(b"1\r\nc\r\n1"), body.more) == (b"c", False)
    assert (body.feed(b"\r\nd\r\n0\r\n\r\n"), body.more) == (b"d", True)
    assert (body.feed(b""), body.done) == (b"", True)


def test_chunks_that_are_whole_cost_no_call_each() -> None:
    """The most that a client can ask for its bytes is to send one a chunk."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    body = ChunkedBody(100_000)
    sys.setprofile(count)
    try:
        body.feed(b"1\r\nx\r\n" * 10_000)
    finally:
        sys.setprofile(None)
    assert calls < 20


def test_small_chunks_do_not_pass_the_limit() -> None:
    with pytest.raises(ProtocolError, match="larger than 5 bytes"):
        ChunkedBody(5).feed(b"1\r\nx\r\n" * 6)
