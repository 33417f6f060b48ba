"""The extension reads a head as the Python code does, to the letter, or leaves it to that."""

from __future__ import annotations

import itertools
import os
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.corpus import INDEX, LIMITS, SMALL, raw
from harness.plain_reading import BASE, EXTENSION, FIELDS, PROXY, STRANGER, UNIX, BothReaders

pytestmark = pytest.mark.extension
searched = settings(
    max_examples=int(os.environ.get("EXAMPLES", "300")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> None:
    """In place of the check that every test has: here are only bytes."""


SETTINGS: dict[str, dict[str, Any]] = {
    "as by default": {},
    "small limits": {"limits": SMALL},
    "no trust": {"trust": None},
    "whole list": {"fields": ("x-forwarded-for=whole", "x-forwarded-proto")},
    "other fields": {"fields": ("x-forwarded-host", "x-forwarded-port")},
    "Forwarded": {"fields": ("forwarded",)},
    "any sender": {"trust": ("*",)},
    "over TLS": {"extra": {"HTTPS": "on", "wsgi.url_scheme": "https", "SSL_PROTOCOL": "TLSv1.3"}},
    "own base": {"base": BASE | {"HTTPS": "on", "HTTP_X_OWN": "1", "REMOTE_PORT": "1"}},
    "no length in the base": {"base": {"SERVER_NAME": "a"}},
    "own names": {"names": ("other.example", "8080")},
    "every id": {"ids": ("traceparent", "x-correlation-id", "x-amzn-trace-id", "x-request-id")},
}
READERS = {} if EXTENSION is None else {name: BothReaders(**chosen) for name, chosen in SETTINGS.items()}
PEERS = [PROXY, STRANGER, UNIX, ("::1", 1, 0, 0)]


def head(*fields: str, line: str = "GET /a HTTP/1.1", host: str = "a.example") -> bytes:
    lines = [line, *([f"Host: {host}"] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101", "Accept: text/html;q=0.9,*/*;q=0.8",
    "Accept-Language: de,en;q=0.5", "Accept-Encoding: gzip, deflate, br", "Cookie: a=1; b=\"two\"",
    "Upgrade-Insecure-Requests: 1", "Sec-Fetch-Mode: navigate", "Referer: http://a.example/?q=1",
)  # fmt: skip
NGINX = ("X-Real-IP: 203.0.113.9", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "Connection: close")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PLAIN: dict[str, bytes] = {
    "of a browser": head(*BROWSER, "Connection: keep-alive"),
    "of a browser that closes": head(*BROWSER, "Connection: close"),
    "of curl": head("User-Agent: curl/8.1", "Accept: */*", host="127.0.0.1:8000"),
    "with a long port": head(host="localhost:54321"),
    "to an IPv6 address": head(host="[::1]:8000"),
    "to an IPv6 address without a port": head(host="[2001:db8::7]"),
    "with an underscore in Host": head(host="my_app:80"),
    "behind nginx": head(*BROWSER, *NGINX),
    "behind nginx in HTTP/1.0": head(*BROWSER, *NGINX, line="GET /a HTTP/1.0"),
    "of ApacheBench": head("Connection: Keep-Alive", "Accept: */*", line="GET / HTTP/1.0"),
    "of an IPv6 client behind a proxy": head("X-Forwarded-For: 2001:db8::1", "X-Forwarded-Proto: HTTP"),
    "with fields of unknown names": head("X-Tenant: a", "x-b3-traceid: 0af7651916cd43dd", "CF-Visitor: {}"),
    "with a content type": head("Content-Type: application/json"),
    "with a query": head(line="GET /search?q=a%20b&x={|} HTTP/1.1"),
    "with an escaped path": head(line="GET /%C3%A9t%c3%a9/%zz/% HTTP/1.1"),
    "with an escape at the end": head(line="GET /a%41 HTTP/1.1"),
    "with bytes beyond ASCII in a value": head("X-Name: J\xf6rg"),
    "with a tab in a value": head("X-Odd: a\tb"),
    "with blanks around values": head("X-Blank: \t a \t ", "X-Empty:", "X-None:  "),
    "with an id": head("X-Request-Id: 0f-A_z.~:=+/@;"),
    "with a bad id": head("X-Request-Id: a b", "x-correlation-id: " + "a" * 65),
    "with a long id": head("X-Request-Id: " + "a" * 64),
    "with an empty id": head("X-Request-Id:"),
    "of a trace": head(f"Traceparent: {TRACE}"),
    "of a trace that has an id too": head(f"Traceparent: {TRACE}", "X-Request-Id: own", "X-Amzn-Trace-Id: Root=1-a"),
    "of a later version's trace": head(f"Traceparent: 01{TRACE[2:]}-more"),
    "of a trace that is none": head(f"Traceparent: {TRACE}-more"),
    "with one character": head("X-One: 1", "DNT: 1"),
    **{f"{method} without a body": head(line=f"{method} / HTTP/1.1") for method in
       ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")},
}  # fmt: skip
DECLINED: dict[str, bytes] = {
    "nothing": b"",
    "a part of a head": head()[:-1],
    "two heads": head() * 2,
    "a blank line before it": b"\r\n" + head(),
    "a body": head("Content-Length: 1") + b"a",
    "a body to come": head("Content-Length: 5"),
    "no body, as is said": head("Content-Length: 0"),
    "chunks": head("Transfer-Encoding: chunked"),
    "an expectation": head("Expect: 100-continue"),
    "an upgrade": head("Connection: upgrade", "Upgrade: websocket"),
    "another method": head(line="BREW / HTTP/1.1"),
    "NUL in a method": head(line="GET\0abc / HTTP/1.1"),
    "another form of target": head(line="GET http://b.example/ HTTP/1.1"),
    "a fragment": head(line="GET /a#b HTTP/1.1"),
    "another version": head(line="GET / HTTP/1.2"),
    "no Host": head(host=""),
    "an empty Host": head("Host:", host=""),
    "a list as Host": head(host="a,b"),
    "a port too high": head(host="a:65536"),
    "a host percent-encoded": head(host="a%41"),
    "an address that is none": head(host="[::1"),
    "Host twice": head("Host: b"),
    "a field twice": head("Accept: a", "accept: b"),
    "an underscore": head("X_Forwarded_For: 1.2.3.4"),
    "Proxy": head("Proxy: http://evil.example"),
    "a blank before the colon": head("Accept : a"),
    "a folded line": head("Accept: a", " b"),
    "no colon": head("Accept"),
    "no name": head(": a"),
    "NUL in a value": head("Accept: a\0bcdefghij"),
    "DEL in a value": head("Accept: abcdefgh\x7f"),
    "a bare LF in a value": head("Accept: abcdefgh\nX: y"),
    "a bare CR in a value": head("Accept: abcdefgh\rX: y"),
    "several addresses": head("X-Forwarded-For: 1.2.3.4, 5.6.7.8"),
    "an address with a port": head("X-Forwarded-For: 1.2.3.4:80"),
    "an address with a zero before": head("X-Forwarded-For: 1.2.3.04"),
    "an address in another form": head("X-Forwarded-For: 2001:DB8::1"),
    "an IPv4 address at the end of an IPv6 address": head("X-Forwarded-For: ::1.2.3.4"),
    "an IPv4 address in IPv6": head("X-Forwarded-For: ::ffff:102:304"),
    "no address": head("X-Forwarded-For: unknown"),
    "another scheme": head("X-Forwarded-Proto: ftp"),
    "several schemes": head("X-Forwarded-Proto: https, http"),
    "several options": head("Connection: keep-alive, TE"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_request_is_read_by_the_extension(name: str) -> None:
    """One that declines is a fault: it costs twice."""
    readers = READERS["as by default"]
    before = readers.context.declined
    assert readers.check(PLAIN[name])
    assert readers.context.declined == before


@pytest.mark.parametrize("name", DECLINED)
def test_what_is_not_plain_is_left_to_the_python_code(name: str) -> None:
    readers = READERS["as by default"]
    before = readers.context.declined
    assert not readers.check(DECLINED[name])
    assert readers.context.declined == before + 1


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", PLAIN | DECLINED)
def test_no_setting_makes_the_two_differ(name: str, settings: str) -> None:
    for peer in PEERS:
        READERS[settings].check((PLAIN | DECLINED)[name], peer)


@pytest.mark.parametrize(
    "field",
    [
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: b",
        "X-Forwarded-Port: 1",
        "Forwarded: for=a",
    ],
)
def test_a_stranger_s_word_for_a_client_is_left_to_the_python_code(field: str) -> None:
    """It drops the field, and tells of it."""
    assert not READERS["as by default"].check(head(field), STRANGER)
    assert READERS["no trust"].check(head(field), STRANGER)


@pytest.mark.parametrize("field", ["X-Forwarded-Host: b", "X-Forwarded-Port: 1", "Forwarded: for=a"])
def test_fields_that_the_proxies_do_not_set_are_dropped(field: str) -> None:
    """They are the client's own; a request is as plain with them as without."""
    assert READERS["as by default"].check(head(field, field), PROXY)


@pytest.mark.parametrize("kind", ["accept", "reject"])
def test_the_corpus_is_read_alike(kind: str) -> None:
    for name in INDEX[kind]:
        for readers in READERS.values():
            read = readers.check(raw(kind, name))
            assert not (read and kind == "reject" and readers is READERS["as by default"]), name


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (head(), LIMITS._replace(request_line=15)),
        (head("A: b", "C: d"), LIMITS._replace(fields=3)),
        (head("A: " + "b" * 17), LIMITS._replace(field_size=20)),
        (head(), LIMITS._replace(head=len(head()))),
    ],
    ids=["line", "fields", "field-size", "head"],
)
def test_each_limit_holds(data: bytes, limits: Any) -> None:
    """To the byte."""
    (name,) = (name for name in ("request_line", "fields", "field_size", "head")
               if getattr(limits, name) != getattr(LIMITS, name))  # fmt: skip
    assert BothReaders(limits).check(data)
    assert not BothReaders(limits._replace(**{name: getattr(limits, name) - 1})).check(data)


# Searched for

words = st.text("abcXYZ019-._~!$&'()*+;=", min_size=1, max_size=12)
names = st.one_of(
    st.sampled_from([
        "Host", "host", "Connection", "Cookie", "User-Agent", "Referer", "Accept", "Content-Type", "Content-Length",
        "TE",
        "Transfer-Encoding", "Expect", "Proxy", "Upgrade", "Keep-Alive", "X-Forwarded-For", "x-forwarded-proto",
        "X-FORWARDED-HOST", "X-Forwarded-Port", "Forwarded", "X-Real-IP", "X-Own", "SCRIPT_NAME", "X_Y",
        "X-Request-Id", "x-request-id", "X-Correlation-ID", "X-Amzn-Trace-Id", "Traceparent", "traceparent",
    ]),
    st.text("abcxyzABCXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=20),
    st.text(max_size=4),
)  # fmt: skip
addresses = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded),
    st.ip_addresses(v=6, network="::/96").map(str),
    st.ip_addresses(v=6, network="::ffff:0:0/96").map(str),
    st.text("0123456789.:abcdef[]", max_size=20),
)
values = st.one_of(
    words,
    addresses,
    addresses.map(lambda address: f"[{address}]:80"),
    st.just(TRACE),
    st.from_regex(r"(00|01|ff)-[0-9a-f]{31,32}-[0-9a-f]{16}-[0-9a-f]{2}(-a)?", fullmatch=True),
    st.sampled_from(["close", "Keep-Alive", "https", "HTTP", "a, b", "", "a:80", "for=1.2.3.4"]),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40),
    st.text(st.characters(max_codepoint=0xFF), max_size=12),
)
blanks = st.sampled_from(["", " ", " ", " ", "\t", "  "])
fields = st.builds("{}:{}{}{}".format, names, blanks, values, blanks)
lines = st.one_of(
    st.builds(
        "{} /{}{} HTTP/1.{}".format,
        st.sampled_from(["GET", "GET", "HEAD", "POST", "get", "OPTIONS", "BREW"]),
        st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30),
        st.one_of(st.just(""), words.map("?{}".format)),
        st.sampled_from("1110"),
    ),
    st.text(st.characters(max_codepoint=0xFF), max_size=20),
)
heads = st.builds(
    lambda line, host, rest: "\r\n".join([line, *host, *rest, "", ""]).encode("latin-1", "replace"),
    lines,
    st.one_of(st.just(["Host: a"]), words.map(lambda word: [f"Host: {word}"]), st.just([])),
    st.lists(fields, max_size=6),
)


@searched
@given(heads, st.sampled_from(sorted(READERS)), st.sampled_from(PEERS))
def test_heads_of_the_grammar_are_read_alike(data: bytes, settings: str, peer: tuple[Any, ...]) -> None:
    READERS[settings].check(data, peer)


@searched
@given(st.sampled_from(sorted(PLAIN)), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=2)), max_size=3))
@example("of curl", [(4, b"\0")])
def test_one_byte_makes_no_difference_between_the_two(name: str, changes: list[tuple[int, bytes]]) -> None:
    """A plain head with bytes replaced, removed or put in."""
    data = PLAIN[name]
    for at, piece in changes:
        data = data[:at] + piece + data[at + 1 :]
    READERS["as by default"].check(data)


@searched
@given(addresses, st.sampled_from(["X-Forwarded-For: {}", "Host: [{}]", "Host: {}:8"]))
def test_addresses_are_shown_alike(address: str, field: str) -> None:
    """The C library and ``ipaddress`` each have an opinion on how IPv6 addresses are written."""
    text = field.format(address)
    READERS["as by default"].check(head(text, host="" if text.startswith("Host") else "a"))


@searched
@given(st.sampled_from([0, 1, 7, 8, 9, 16, 31]), st.integers(0, 255), st.integers(0, 40))
def test_each_byte_means_the_same_wherever_it_stands_in_a_value(before: int, byte: int, behind: int) -> None:
    data = head("X-Value: ").replace(b"X-Value: ", b"X-Value: " + b"a" * before + bytes([byte]) + b"b" * behind)
    assert READERS["as by default"].check(data) == (byte == 9 or (byte >= 32 and byte != 127))


def test_every_byte_means_the_same_in_every_other_place() -> None:
    places = [b"GET /a?b HTTP/1.1\r\nHost: a.b:80\r\nName: value\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"]
    places += [
        b"GET / HTTP/1.0\r\nX-Request-Id: a\r\n\r\n",
        b"GET / HTTP/1.0\r\nTraceparent: %b\r\n\r\n" % TRACE.encode(),
    ]
    for data in places:
        for at in range(len(data)):
            for byte in range(256):
                READERS["as by default"].check(data[:at] + bytes([byte]) + data[at + 1 :])


@pytest.mark.parametrize("at", [5, 6])
def test_facts_that_are_none_are_refused(at: int) -> None:
    """The Python code makes them; a wrong one is a fault of ours."""
    facts = ["127.0.0.1", "1", None, None, False, None, None]
    for wrong in (facts[:at], [*facts[:5], [("HTTPS", "on")], None]):
        with pytest.raises(TypeError, match=r"facts must be|must be a dict"):
            READERS["as by default"].context.take(head(), tuple(wrong))


def test_the_default_fields_are_those_of_the_settings() -> None:
    from forkserver.config import settings as table

    assert tuple(table.defaults().forwarded_fields) == FIELDS


def place(line: str) -> int:
    """Where the extension remembers a line, as exchange.h has it."""
    first, second = struct.unpack("<QQ", line.encode()[:16])
    return ((first * 0x9E3779B97F4A7C15 ^ second * 0xC2B2AE3D27D4EB4F) % 2**64) >> 57


def test_a_line_that_came_before_is_read_as_it_was_the_first_time() -> None:
    both = BothReaders()
    ways = ("text/html;q=0.9", "text/html;q=0.8", " text/html;q=0.8", "text/html;q=0.8\t", "text/html;q=0.8, *", "")
    for value in (*ways, *ways[::-1]):
        for _ in range(2):
            assert both.check(head(f"Accept: {value}", f"accept-language: {value}", *BROWSER[3:]))


def test_a_remembered_line_means_for_each_head_what_it_means_for_that_head() -> None:
    both = BothReaders()
    proto, ends, host = "X-Forwarded-Proto: https", "Connection: close", "Host: a-long.example"
    for _ in range(2):
        assert both.check(head(proto, ends))
        assert not both.check(head(proto), STRANGER)
        assert both.check(head(ends))
        assert both.check(head(host, host="", line="GET / HTTP/1.1"))
        assert not both.check(head(host, host, host=""))
        assert not both.check(head(proto, proto))
    assert not both.check(head(host, "Accept: text/html;q=0.9", "Accept: text/html;q=0.9", host=""))


def test_lines_that_share_a_place_in_the_memory_keep_their_own_values() -> None:
    """Two of them are there. Another one takes the place of one, which may be in the same head."""
    both = BothReaders()
    accept = "Accept: text/html;q=0.9"
    near = place(accept), place(accept) ^ 1
    pragmas = (line for number in range(10_000) if place(line := f"Pragma: {number:08}") in near)
    agents = (line for number in range(10_000) if place(line := f"User-Agent: {number:04}") in near)
    lines = accept, next(pragmas), next(agents)
    for fields in itertools.permutations(lines):
        for count in (1, 2, 2, 3, 3):
            assert both.check(head(*fields[:count]))


def test_what_clients_keep_to_themselves_is_not_remembered() -> None:
    """How long a comparison takes would tell of another client's."""
    both = BothReaders()
    data = head("Accept: text/html;q=0.9", "Cookie: session=abcdef0123", "Authorization: Basic YTpiYWJh")
    one, other = (both.by_extension(data, PROXY).environ for _ in range(2))
    assert one["HTTP_ACCEPT"] is other["HTTP_ACCEPT"]
    for key in ("HTTP_COOKIE", "HTTP_AUTHORIZATION"):
        assert one[key] == other[key]
        assert one[key] is not other[key]
