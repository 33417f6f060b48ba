"""Body readers beyond the corpus: bounds, splits, and where a body ends."""

from __future__ import annotations

import pytest

from forkserver.errors import ProtocolError
from forkserver.wire import grammar
from forkserver.wire.body import ChunkedBody, FixedBody
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
