"""The head reader beyond the corpus: limits, memos, early refusals, and what it keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from forkserver.errors import ProtocolError
from forkserver.http1 import grammar
from forkserver.http1.headers import SCRIPT_NAME, FieldMemo
from forkserver.http1.request import HeadReader, first_line
from harness.corpus import CountedSearches, bytewise, read

HOST = b"Host: a\r\n"


@dataclass(frozen=True)
class Small:
    """Limits small enough to stand at."""

    limit_request_line: int = 30
    limit_request_fields: int = 3
    limit_request_field_size: int = 20
    limit_request_head: int = 70
    max_body: int = 10
    header_map: str = "drop"


BIG = Small(200, 20, 100, 1000)


def head(line: bytes = b"GET / HTTP/1.1", fields: bytes = HOST) -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def line_of(size: int) -> bytes:
    return b"GET /" + b"a" * (size - 14) + b" HTTP/1.1"


def reader(limits: Any = None) -> HeadReader:
    return HeadReader(FieldMemo(limits or Small()))


def refusal(data: bytes, limits: Any = None) -> int:
    with pytest.raises(ProtocolError) as caught:
        reader(limits).read(data)
    return caught.value.status


def read_fields(fields: bytes, limits: Any) -> bool:
    """Whether a head with ``fields`` is read as a whole one."""
    return reader(limits).read(head(fields=fields)) is not None


# Limits


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head(line_of(31)), 414),
        (head(fields=HOST + b"A: b\r\n" * 3), 431),
        (head(fields=HOST + b"A: " + b"b" * 18 + b"\r\n"), 431),
        (head(line_of(30), HOST + (b"A: " + b"b" * 10 + b"\r\n") * 2), 431),
        (head(fields=HOST + b"Content-Length: 11\r\n"), 413),
    ],
    ids=["line", "fields", "field-size", "head", "body"],
)
def test_each_limit_is_a_setting(data: bytes, status: int) -> None:
    """The same bytes pass where the settings allow them."""
    assert refusal(data) == status
    wide = Small(1000, 1000, 1000, 1000, 1000)
    assert reader(wide).read(data) is not None


@pytest.mark.parametrize(
    "data",
    [
        head(line_of(30)),
        head(fields=HOST + b"A: b\r\n" * 2),
        head(fields=HOST + b"A: " + b"b" * 17 + b"\r\n"),
        head(line_of(30), HOST + b"A: " + b"b" * 11 + b"\r\n" + b"B: c\r\n"),
        head(fields=HOST + b"Content-Length: 10\r\n"),
    ],
    ids=["line", "fields", "field-size", "head", "body"],
)
def test_what_stands_at_a_limit_passes_however_it_arrives(data: bytes) -> None:
    """A CR that comes alone is not the byte too many."""
    assert reader().read(data) is not None
    assert read(bytewise(data), Small()).refused is None


def test_the_memo_keeps_to_the_limit_of_the_whole_head() -> None:
    """A remembered block behind a longer request line makes a longer head."""
    limits = replace(Small(), limit_request_head=50)
    known = reader(limits)
    block = known.read(head(line_of(20), HOST + b"A: 234567890\r\n"))
    assert block is not None
    assert known.read(head(line_of(21), HOST + b"A: 234567890\r\n")) is block
    with pytest.raises(ProtocolError) as caught:
        known.read(head(line_of(25), HOST + b"A: 234567890\r\n"))
    assert caught.value.status == 431


@pytest.mark.parametrize("data", [b"GET /", b"\r\n", b"\r", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n\r\n"])
def test_a_head_that_may_still_become_one_is_waited_for(data: bytes) -> None:
    assert reader().read(data) is None


# Early refusals


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01", 400),
        (b"GET / HTTP/1.1\nHost", 400),
        (b"GET / HTTP/1.1\rHost", 400),
        (b"GET / HTTP/2.0\r\n", 505),
        (b"GET / HTTP/1.1\r\nA: \0", 400),
        (b"nonsense\r\n", 400),
        (b"G" * 31, 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10, 431),
    ],
)
def test_what_cannot_be_mended_is_refused_before_the_head_ends(data: bytes, status: int) -> None:
    """Else a client that sends anything at all holds a connection until its deadline."""
    assert refusal(data) == status


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (line_of(40) + b"\r\nA: \0\r\n\r\n", 414),
        (b"GET /\0" + line_of(40) + b"\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nA: \0\r\n\r\n", 505),
        (head(fields=HOST + b"A: \0\r\n" + b"B: c\r\n" * 10), 400),
        (head(fields=HOST + b"B: c\r\n" * 10 + b"A: \0\r\n"), 431),
        (head(fields=b"no colon\r\n" + b"A: \0\r\n"), 400),
    ],
)
def test_of_several_sins_the_first_is_answered_however_the_bytes_arrive(data: bytes, status: int) -> None:
    """What an operator finds in the log must not depend on the network."""
    assert read([data], Small()).refused == status
    assert read(bytewise(data), Small()).refused == status


def test_a_head_in_drips_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searched from its start with each drip, one slow client would cost a core."""
    counted = CountedSearches(grammar.NOT_IN_HEAD)
    monkeypatch.setattr(grammar, "NOT_IN_HEAD", counted)
    data = head(fields=HOST + b"A: b\r\n" * 90)
    assert read(bytewise(data)).requests
    assert counted.looked_at <= 3 * len(data)


# The memo of a connection


def test_a_repeated_block_is_checked_once() -> None:
    """Keep-alive clients send the same fields again and again."""
    known = reader()
    first = known.read(head(b"GET /a?b=c HTTP/1.1"))
    again = known.read(head(b"POST /%41?d HTTP/1.1") + b"rest")
    assert again is first
    assert (known.method, known.path, known.query, known.target) == ("POST", "/A", "d", "/%41?d")
    assert (known.line, known.rest) == (b"POST /%41?d", b"rest")
    assert known.read(head()) is first
    assert (known.query, known.rest) == ("", b"")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"CONNECT /a HTTP/1.1", 501),
        (b"CONNECT a:443 HTTP/1.1", 501),
        (b"GET a HTTP/1.1", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET /\0HTTP/1.1", 400),
        (b"GET /a\xe9 HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b" / HTTP/1.1", 400),
        (b" HTTP/1.1", 400),
        (line_of(31), 414),
    ],
)
def test_a_known_block_excuses_no_bad_request_line(line: bytes, status: int) -> None:
    known = reader()
    known.read(head())
    with pytest.raises(ProtocolError) as caught:
        known.read(head(line))
    assert caught.value.status == status


def test_the_authority_of_one_request_is_not_the_nexts() -> None:
    """An absolute target overrides Host for its own request only."""
    known = reader()
    known.read(head(b"GET http://b/ HTTP/1.1"))
    assert known.authority == "b"
    known.read(head())
    assert known.authority is None


def test_a_version_is_part_of_what_is_compared() -> None:
    """The same fields mean another thing in HTTP/1.0."""
    known = reader()
    first, second = known.read(head()), known.read(head(b"GET / HTTP/1.0"))
    assert first is not None
    assert second is not None
    assert (first.persistent, second.persistent) == (True, False)


@pytest.mark.parametrize("before", [b"", head()])
def test_a_reader_that_forgot_is_as_strict_as_a_new_one(before: bytes) -> None:
    """No byte may pass for a remembered block where none is remembered."""
    known = reader()
    if before:
        known.read(before)
    known.forget()
    for line in (b"GET /\0HTTP/1.1", b"GET /\r\n\r\n\r\n\r\n"):
        with pytest.raises(ProtocolError):
            known.read(head(line))
    assert known.read(head()) is not None


def test_what_was_half_read_is_forgotten_too() -> None:
    known = reader()
    assert known.read(b"GET / HTTP/1.1\r\n") is None
    known.forget()
    assert known.read(head(b"GET /b HTTP/1.1")) is not None


# The memo of a process


@pytest.mark.parametrize("name", [b"Cookie", b"Authorization", b"X-Api-Key", b"X-Forwarded-For", b"Referer"])
def test_what_may_be_secret_or_a_clients_own_is_not_remembered(name: bytes) -> None:
    """Line by line it could be guessed from how long an answer takes; a block is known as a whole or not at all."""
    memo = FieldMemo(replace(Small(), limit_request_field_size=100))
    memo.check(name + b": secret")
    assert not memo.lines


def test_the_memo_is_bounded() -> None:
    """A client that sends ever new fields must not make the worker grow."""
    memo = FieldMemo(Small(limit_request_field_size=5000))
    for number in range(5000):
        memo.check(b"Accept: %d" % number)
        memo.check(b"X-%d: a" % number)
    assert len(memo.lines) <= 1024
    assert len(memo._names) <= 256
    memo.lines.clear()
    memo.check(b"Accept: " + b"a" * 4000)
    assert not memo.lines, "one long line is worth many short ones"


def test_the_memo_of_blocks_is_bounded() -> None:
    """And one that comes once takes no place at all."""
    memo = FieldMemo(Small(10_000, 10, 10_000, 10_000))
    for number in range(5000):
        HeadReader(memo).read(head(fields=HOST + b"X: %d\r\n" % number))
    assert not memo.blocks
    assert len(memo._passed) <= 1024
    for number in range(1000):
        for _ in range(2):
            HeadReader(memo).read(head(fields=HOST + b"X: %d\r\n" % number))
    assert 1 <= len(memo.blocks) <= 64
    for _ in range(3):
        HeadReader(memo).read(head(fields=HOST + b"X: " + b"a" * 5000 + b"\r\n"))
    assert max(map(len, memo.blocks)) < 4096


def test_a_remembered_name_is_still_dropped_for_its_underscore() -> None:
    memo = FieldMemo(Small())
    assert [memo.check(b"A_B: c")[0] for _ in range(2)] == [None, None]
    assert [memo.check(b"A-B: c")[0] for _ in range(2)] == ["HTTP_A_B", "HTTP_A_B"]


def test_a_proxy_field_never_becomes_a_variable() -> None:
    """httpoxy: HTTP_PROXY is what HTTP clients of the application read as their own setting."""
    assert [FieldMemo(Small()).check(name + b": evil")[0] for name in (b"Proxy", b"PROXY")] == [None, None]


@pytest.mark.parametrize("name", [b"SCRIPT_NAME", b"Script_Name"])
def test_the_field_script_name_passes_where_it_is_asked_for(name: bytes) -> None:
    """Under a key of its own: a client's Script-Name, which proxies let pass, is another field."""
    for header_map in ("drop", "refuse"):
        memo = FieldMemo(replace(Small(), header_map=header_map), script_name=True)
        assert memo.check(name + b": /shop") == (SCRIPT_NAME, "/shop")
        assert memo.check(b"Script-Name: /shop") == ("HTTP_SCRIPT_NAME", "/shop")
        assert memo.forwarded
    assert FieldMemo(Small()).check(name + b": /shop")[0] is None
    with pytest.raises(ProtocolError):
        FieldMemo(replace(Small(), header_map="refuse")).check(name + b": /shop")


def test_two_of_script_name_are_refused() -> None:
    """One of them may be the client's."""
    reader = HeadReader(FieldMemo(Small(100, 10, 100, 200), script_name=True))
    with pytest.raises(ProtocolError, match="repeated SCRIPT_NAME"):
        reader.read(head(fields=HOST + b"SCRIPT_NAME: /a\r\nSCRIPT_NAME: /b\r\n"))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", ""),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a", "GET / HTTP/1.1"),
        (b"GET /slo", "GET /slo"),
        (b"GET /\nforged", "GET /\nforged"),
        (b"a" * 1000, "a" * 20),
        (b"\x16\x03\xff", "\x16\x03\xff"),
    ],
)
def test_a_request_line_is_shown_as_far_as_it_came(data: bytes, line: str) -> None:
    assert first_line(data, 20) == line


# What a handshake is


@pytest.mark.parametrize("name", [b"Connection", b"Upgrade"])
def test_a_list_of_more_members_than_any_sender_has_is_refused(name: bytes) -> None:
    """Of 53 KiB each member would be looked at, for 7 ms of everybody's."""
    limits = replace(BIG, limit_request_field_size=300, limit_request_head=2000)
    before = HOST if name == b"Connection" else HOST + b"Connection: Upgrade\r\n"
    assert read_fields(before + name + b": " + b"," * 99 + b"\r\n", limits)
    assert refusal(head(fields=before + name + b": " + b"," * 100 + b"\r\n"), limits) == 400


@pytest.mark.parametrize(
    ("fields", "websocket"),
    [
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\n", True),
        (b"Connection: keep-alive, upGRADE\r\nUpgrade: h2c , WebSocket\r\n", True),
        (b"Upgrade: websocket\r\n", False),
        (b"Connection: Upgrade\r\n", False),
        (b"Connection: Upgrades\r\nUpgrade: websocket\r\n", False),
        (b"Connection: Upgrade\r\nUpgrade: websocket/13\r\n", False),
    ],
)
def test_a_websocket_handshake_is_told_by_two_fields(fields: bytes, websocket: bool) -> None:
    """RFC 6455 section 4.2.1, in any case; RFC 9110 section 7.8: not in HTTP/1.0."""
    assert HeadReader(FieldMemo(BIG)).read(head(fields=HOST + fields)).websocket is websocket
    assert not HeadReader(FieldMemo(BIG)).read(head(b"GET / HTTP/1.0", HOST + fields)).websocket


@pytest.mark.parametrize("vary", [b"X-Number", b"Upgrade"])
def test_a_block_that_differs_in_one_field_is_the_same_handshake(vary: bytes) -> None:
    """Where it differs in Upgrade itself, that is read anew."""
    made, seen = HeadReader(FieldMemo(BIG)), []
    for number in range(4):
        upgrade = b"%d" % number if vary == b"Upgrade" else b"websocket"
        fields = b"X-Number: %d\r\nConnection: Upgrade\r\nUpgrade: %b\r\n" % (number, upgrade)
        block = made.read(head(fields=HOST + fields))
        assert block is not None
        seen += [block.websocket, made.whole(block).websocket]
    assert set(seen) == {vary != b"Upgrade"}
