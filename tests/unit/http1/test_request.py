"""The head reader beyond the corpus: limits, early refusals, names, and what a handshake is."""

from __future__ import annotations

import pytest

from forkserver.errors import ProtocolError
from forkserver.http1 import grammar
from forkserver.http1.headers import SCRIPT_NAME, HeadLimits
from forkserver.http1.request import first_line, read_head
from harness.corpus import CountedSearches, bytewise, read

HOST = b"Host: a\r\n"


SMALL = HeadLimits(30, 3, 20, 70, 10)  # small enough to stand at
BIG = HeadLimits(200, 20, 100, 1000, 10)


def head(line: bytes = b"GET / HTTP/1.1", fields: bytes = HOST) -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def line_of(size: int) -> bytes:
    return b"GET /" + b"a" * (size - 14) + b" HTTP/1.1"


def refusal(data: bytes, limits: HeadLimits = SMALL) -> int:
    with pytest.raises(ProtocolError) as caught:
        read_head(data, limits)
    return caught.value.status


def fields_of(fields: bytes, limits: HeadLimits = BIG) -> dict[str, str]:
    """The fields of a head that is read as a whole one."""
    found = read_head(head(fields=fields), limits)
    assert found is not None
    return found.fields


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
    assert read_head(data, HeadLimits(1000, 1000, 1000, 1000, 1000)) is not None


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
    assert read_head(data, SMALL) is not None
    assert read(bytewise(data), SMALL).refused is None


@pytest.mark.parametrize("data", [b"GET /", b"\r\n", b"\r", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n\r\n"])
def test_a_head_that_may_still_become_one_is_waited_for(data: bytes) -> None:
    assert read_head(data, SMALL) is None


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
def test_what_no_byte_can_make_good_is_refused_before_the_head_ends(data: bytes, status: int) -> None:
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
    assert read([data], SMALL).refused == status
    assert read(bytewise(data), SMALL).refused == status


def test_a_head_in_drips_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searched from its start with each drip, one slow client would cost a core."""
    counted = CountedSearches(grammar.NOT_IN_HEAD)
    monkeypatch.setattr(grammar, "NOT_IN_HEAD", counted)
    data = head(fields=HOST + b"A: b\r\n" * 90)
    assert read(bytewise(data)).requests
    assert counted.looked_at <= 3 * len(data)


# Targets and names


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
def test_a_bad_request_line_is_refused(line: bytes, status: int) -> None:
    assert refusal(head(line)) == status


def test_a_request_line_is_taken_apart() -> None:
    data = head(b"POST /%41?b=c HTTP/1.1") + b"rest"
    found = read_head(b"\r\n" + data, BIG)
    assert found is not None
    assert (found.method, found.path, found.query, found.target) == ("POST", "/A", "b=c", "/%41?b=c")
    assert (found.line, found.raw, found.size) == (b"POST /%41?b=c", data[:-4], len(data) - 2)


def test_an_absolute_target_names_its_authority() -> None:
    """It overrides Host (RFC 9112 section 3.2.2)."""
    assert [
        found.authority
        for target in (b"http://b/", b"/")
        if (found := read_head(head(b"GET %b HTTP/1.1" % target), BIG)) is not None
    ] == ["b", None]


@pytest.mark.parametrize("name", [b"X_Forwarded_For", b"_", b"Proxy", b"PROXY"])
def test_a_name_that_would_pass_for_another_is_dropped(name: bytes) -> None:
    """An underscore would make X-Forwarded-For of it; HTTP_PROXY is what HTTP clients read as their own setting."""
    assert fields_of(HOST + name + b": evil\r\nA: b\r\n") == {"HTTP_HOST": "a", "HTTP_A": "b"}


def test_underscores_can_be_refused() -> None:
    assert refusal(head(fields=HOST + b"A_B: c\r\n"), BIG._replace(refuses_underscores=True)) == 400


@pytest.mark.parametrize("name", [b"Host", b"Accept", b"x-any"])
def test_a_line_without_a_colon_is_refused_even_where_it_is_a_known_name(name: bytes) -> None:
    assert refusal(head(fields=HOST + name + b"\r\n"), BIG) == 400


@pytest.mark.parametrize("name", [b"SCRIPT_NAME", b"Script_Name"])
def test_the_field_script_name_passes_where_it_is_asked_for(name: bytes) -> None:
    """Under a key of its own: a client's Script-Name, which proxies let pass, is another field."""
    line = name + b": /shop\r\n"
    for refuses in (False, True):
        limits = BIG._replace(refuses_underscores=refuses, script_name=True)
        assert fields_of(HOST + line, limits)[SCRIPT_NAME] == "/shop"
        assert fields_of(HOST + b"Script-Name: /shop\r\n", limits)["HTTP_SCRIPT_NAME"] == "/shop"
    assert fields_of(HOST + line) == {"HTTP_HOST": "a"}
    assert refusal(head(fields=HOST + line), BIG._replace(refuses_underscores=True)) == 400


def test_two_of_script_name_are_refused() -> None:
    """One of them may be the client's."""
    with pytest.raises(ProtocolError, match="repeated SCRIPT_NAME"):
        fields_of(HOST + b"SCRIPT_NAME: /a\r\nSCRIPT_NAME: /b\r\n", BIG._replace(script_name=True))


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
    limits = BIG._replace(field_size=300, head=2000)
    before = HOST if name == b"Connection" else HOST + b"Connection: Upgrade\r\n"
    assert fields_of(before + name + b": " + b"," * 99 + b"\r\n", limits)
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
    for line, expected in ((b"GET / HTTP/1.1", websocket), (b"GET / HTTP/1.0", False)):
        found = read_head(head(line, HOST + fields), BIG)
        assert found is not None
        assert found.websocket is expected
