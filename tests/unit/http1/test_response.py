"""What an application passes is checked and cannot break out of its place."""

from __future__ import annotations

from email.utils import formatdate
from enum import StrEnum
from typing import Any, NamedTuple

import pytest

from forkserver.errors import AppError
from forkserver.http1 import response
from forkserver.http1.response import Clock, check, error, http_date, serialize
from harness.naming import shown

NOON = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


class Odd(str):
    """A str that says of itself something else than its characters."""

    def _other(self, *_: object, **__: object) -> Any:
        return "200 Other\r\nX-Other: other"

    __str__ = __repr__ = __format__ = __getitem__ = encode = lower = strip = split = _other
    __len__ = __hash__ = lambda self: hash("b")
    __eq__ = __contains__ = isascii = isprintable = isdigit = lambda self, *_: True


class Phrase(StrEnum):
    OK = "200 OK"
    TYPE = "text/plain"
    NAME = "Content-Type"


class Pair(NamedTuple):
    name: str
    value: str


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("200 OK", "HTTP/1.1 200 OK\r\n"),
        ("404 Not Found", "HTTP/1.1 404 Not Found\r\n"),
        ("599 Of our own", "HTTP/1.1 599 Of our own\r\n"),
        ("200 ", "HTTP/1.1 200 \r\n"),
        ("200", "HTTP/1.1 200 \r\n"),
        ("200 Caf\xe9", "HTTP/1.1 200 Caf\xe9\r\n"),
    ],
)
def test_a_status_becomes_a_status_line(status: str, line: str) -> None:
    for _ in range(2):
        fields = check(status, [])
        assert (fields.text, fields.code) == (line, int(status[:3]))


@pytest.mark.parametrize(
    "status",
    [
        "",
        "OK",
        "20 OK",
        "2000 OK",
        "200OK",
        "099 Low",
        "200 OK\r\nA: b",
        "200 OK\n",
        "200\tOK",
        "200 \x00",
        "200 ☃",
        "100 Continue",
        "101 Switching Protocols",
        " 200 OK",
        "٢٠٠ OK",
        200,
        b"200 OK",
        None,
        Odd("200\tOK"),
        Odd("2"),
    ],
    ids=ascii,
)
def test_what_is_no_status_is_a_fault_each_time(status: Any) -> None:
    """1xx is no answer: after it the client waits for another."""
    for _ in range(2):
        with pytest.raises(AppError):
            check(status, [])


@pytest.mark.parametrize("value", ["b", "", "b c", "b\tc", "caf\xe9", '"b"', "b:c", " b "])
def test_a_field_is_sent_as_it_is(value: str) -> None:
    for _ in range(2):
        assert check("200 OK", [("A-b", value)]).text == f"HTTP/1.1 200 OK\r\nA-b: {value}\r\n"


@pytest.mark.parametrize(
    "value", ["\r\nB: c", "b\nc", "b\rc", "b\0", "\x7f", "\x1b", "\u2603", "\u0130", "\ud800"], ids=ascii
)
def test_a_value_that_would_break_the_head_is_a_fault_each_time(value: str) -> None:
    """Else who chooses a redirect's target writes the rest of the answer."""
    for name in ("A", "Set-Cookie", "Date", "Server", "Connection", "Content-Length"):
        for _ in range(2):
            with pytest.raises(AppError):
                check("200 OK", [(name, value)])


@pytest.mark.parametrize("name", ["", " A", "A ", "A:", "A B", "A\r\nB", "A\0", "\xc4", "A(b)", "\uff21"], ids=ascii)
def test_what_is_no_name_is_a_fault_each_time(name: str) -> None:
    for _ in range(2):
        with pytest.raises(AppError):
            check("200 OK", [(name, "b")])


@pytest.mark.parametrize(
    "headers",
    [
        None,
        (),
        {"A": "b"},
        [["A", "b"]],
        ["Ab"],
        [("A",)],
        [("A", "b", "c")],
        [("A", 1)],
        [("A", b"b")],
        [(b"A", "b")],
        [("A", None)],
        [None],
        [(Odd("X-Text\r\n"), "b")],
        [("X-Text", Odd("b\n"))],
        [("Content-Length", Odd("x"))],
        [["X", Odd("b")]],
        [Pair],
        iter([("A", "b")]),
        type("Headers", (list,), {})([("A", "b")]),
    ],
    ids=shown,
)
def test_headers_are_a_list_of_pairs_of_str(headers: Any) -> None:
    """PEP 3333 asks for exactly a list; one of a subclass can answer differently each time."""
    with pytest.raises(AppError):
        check("200 OK", headers)


@pytest.mark.parametrize("text", [Odd, str], ids=["odd", "plain"])
def test_a_str_of_a_subclass_is_sent_as_its_characters(text: type[str]) -> None:
    """Markup, SafeString, StrEnum: what they make of themselves when they are formatted is not what was meant."""
    for _ in range(2):
        fields = check(text("200 Fine"), [(text("A"), text("c")), (text("Set-Cookie"), text("d=e")), ("A", "b")])
        assert fields.text == "HTTP/1.1 200 Fine\r\nA: c\r\nSet-Cookie: d=e\r\nA: b\r\n"
        assert check("200 OK", [(text("Content-Length"), text("5"))]).length == 5
        assert check("200 OK", [(text("Connection"), text("close"))]).close


def test_members_of_an_enumeration_are_sent_as_their_values() -> None:
    assert check(Phrase.OK, [(Phrase.NAME, Phrase.TYPE)]).text == "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def test_a_pair_may_be_a_named_tuple() -> None:
    for _ in range(2):
        assert check("200 OK", [Pair("A", "named")]).text == "HTTP/1.1 200 OK\r\nA: named\r\n"


def test_the_message_shows_what_is_wrong() -> None:
    with pytest.raises(AppError, match=r"header X-Name .*'a\\nb'"):
        check("200 OK", [("X-Name", "a\nb")])


# Content-Length


def test_content_length_is_read_and_kept_from_the_text() -> None:
    """Its line is written once, by whoever decides the framing."""
    fields = check("200 OK", [("content-LENGTH", "5"), ("A", "b")])
    assert fields.length == 5
    assert fields.text == "HTTP/1.1 200 OK\r\nA: b\r\n"


@pytest.mark.parametrize(
    "value", ["", "x", "-1", "+1", "1.0", " 1", "1 ", "0x1", "1_0", "\xb2", "\u0665", "1, 1", "9" * 19]
)
def test_a_content_length_that_is_no_number_is_a_fault(value: str) -> None:
    with pytest.raises(AppError):
        check("200 OK", [("Content-Length", value)])


def test_two_lengths_must_agree() -> None:
    assert check("200 OK", [("Content-Length", "5"), ("Content-Length", "05")]).length == 5
    with pytest.raises(AppError, match="5 and 6"):
        check("200 OK", [("Content-Length", "5"), ("Content-Length", "6")])


# Fields of the connection, Date, Server


@pytest.mark.parametrize("name", sorted(response.HOP_BY_HOP))
def test_a_field_of_the_connection_is_dropped_and_named(name: str) -> None:
    for spelt in (name, name.title(), name.upper()):
        fields = check("200 OK", [(spelt, "x")])
        assert fields.text == "HTTP/1.1 200 OK\r\n"
        assert fields.dropped == (name,)


def test_connection_close_is_a_wish_that_can_be_met() -> None:
    for value in (" CLOSE ", "Close, x", "keep-alive ,\tclose", "close,", ",close"):
        fields = check("200 OK", [("Connection", value)])
        assert fields.close
        assert fields.dropped == ()
    assert not check("200 OK", [("Connection", "closed, not-close")]).close
    assert check("200 OK", [("Connection", "keep-alive")]).dropped == ("connection",)


def test_one_answer_says_nothing_of_the_next() -> None:
    check("200 OK", [("Date", "then"), ("Connection", "close"), ("Content-Length", "5"), ("Upgrade", "x")])
    fields = check("200 OK", [])
    assert (fields.length, fields.date, fields.close, fields.dropped) == (None, False, False, ())


# Clock


@pytest.mark.parametrize("since_1970", [0, 951_827_696, NOON, 4_102_444_799, 253_402_300_799])
def test_a_date_is_written_as_the_standard_library_writes_it(since_1970: int) -> None:
    assert http_date(since_1970) == formatdate(since_1970, usegmt=True)


def test_the_date_changes_with_the_second_and_not_before() -> None:
    clock = Clock("x")
    first = clock.at(NOON)
    assert first == "Date: Tue, 14 Nov 2023 22:13:20 GMT\r\nServer: x\r\n"
    assert clock.at(NOON + 0.999) is first
    assert "22:13:21" in clock.at(NOON + 1)


def test_a_clock_that_is_set_back_sets_the_date_back() -> None:
    clock = Clock("x")
    clock.at(NOON)
    assert "22:13:10" in clock.at(NOON - 10)


def test_no_server_no_line() -> None:
    assert Clock("").at(NOON) == "Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n"


def test_only_a_connection_that_goes_on_in_http_1_1_needs_no_line() -> None:
    """An HTTP/1.0 proxy goes by the version in our status line, which is 1.1 (RFC 9112 section 9.3)."""

    def lines(persistent: bool, http11: bool) -> list[bytes]:
        return serialize(check("200 OK", []), Clock(""), NOON, "", persistent, http11).split(b"\r\n")[2:-2]

    assert lines(persistent=True, http11=True) == []
    assert lines(persistent=True, http11=False) == [b"Connection: keep-alive"]
    assert lines(persistent=False, http11=True) == [b"Connection: close"]
    assert lines(persistent=False, http11=False) == [b"Connection: close"]


@pytest.mark.parametrize(
    ("headers", "lines"),
    [
        ([], "Date: Tue, 14 Nov 2023 22:13:20 GMT\r\nServer: x\r\n"),
        ([("Server", "own")], "Server: own\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n"),
        ([("date", "then")], "date: then\r\nServer: x\r\n"),
        ([("Date", "then"), ("Server", "own")], "Date: then\r\nServer: own\r\n"),
    ],
)
def test_a_head_has_each_of_date_and_server_once(headers: list[tuple[str, str]], lines: str) -> None:
    head = serialize(check("200 OK", headers), Clock("x"), NOON, "Content-Length: 5\r\n", True, True)
    assert head == f"HTTP/1.1 200 OK\r\n{lines}Content-Length: 5\r\n\r\n".encode()


# Error answers


@pytest.mark.parametrize("status", [400, 408, 413, 414, 417, 431, 500, 501, 503, 505])
def test_an_error_answer_is_whole_small_and_not_kept(status: int) -> None:
    head, _, page = error(status, "Date: then\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nDate: then\r\n" in head
    assert b"\r\nContent-Length: %d\r\n" % len(page) in head
    assert b"\r\nCache-Control: no-store\r\n" in head
    assert head.endswith(b"\r\nConnection: close")
    assert b"%d" % status in page
    assert len(page) < 200


def test_an_error_answer_to_head_has_the_length_and_no_body() -> None:
    whole, bare = error(400, "", "GET"), error(400, "", "HEAD")
    assert whole.startswith(bare)
    assert bare.endswith(b"\r\n\r\n")
