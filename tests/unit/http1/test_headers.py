"""Fields of a request: the blanks around a value, and the limits of lines."""

from __future__ import annotations

import pytest

from forkserver.errors import ProtocolError
from forkserver.http1.headers import LINES, REMEMBERED, HeadLimits, read_fields

BLANKS = ["", " ", "  ", "\t", " \t "]


def fields_of(*lines: str, limits: HeadLimits | None = None) -> dict[str, str]:
    """What is read of a head that has ``lines`` behind its request line."""
    text = "\r\n".join(("GET / HTTP/1.1", *lines, "", ""))
    return read_fields(list(lines), text, limits or HeadLimits())


@pytest.mark.parametrize("name", ["Accept", "accept", "aCCEPT"])
@pytest.mark.parametrize("before", BLANKS)
@pytest.mark.parametrize("after", BLANKS)
def test_blanks_around_a_value_are_no_part_of_it(name: str, before: str, after: str) -> None:
    """Known names in their usual spelling are read another way than other ones (RFC 9112 section 5.1)."""
    line = f"{name}:{before}a b{after}"
    assert fields_of(line, "Host: a") == {"HTTP_ACCEPT": "a b", "HTTP_HOST": "a"}
    assert fields_of("Host: a", line) == {"HTTP_ACCEPT": "a b", "HTTP_HOST": "a"}


@pytest.mark.parametrize("value", ["a  b", "a: b", "a:  b", "a\tb", ":", ": :"])
def test_what_looks_like_another_field_inside_a_value_stays(value: str) -> None:
    assert fields_of(f"Accept: {value}", "Host: a") == {"HTTP_ACCEPT": value, "HTTP_HOST": "a"}


@pytest.mark.parametrize("line", ["Accept", "Accept x", "Accept : x", "Ac cept: x", " Accept: x", ": x", ""])
def test_a_line_that_is_no_field_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        fields_of("Host: a", line)
    assert refused.value.status == 400


def test_a_field_as_long_as_the_limit_passes_and_a_longer_one_does_not() -> None:
    limits = HeadLimits(field_size=20)
    assert fields_of("Accept: " + 12 * "a", "Host: a", limits=limits)["HTTP_ACCEPT"] == 12 * "a"
    with pytest.raises(ProtocolError) as refused:
        fields_of("Accept: " + 13 * "a", "Host: a", limits=limits)
    assert refused.value.status == 431


def test_a_line_that_came_before_is_read_as_it_was_the_first_time() -> None:
    values = ("q=0.9", "q=0.8", " q=0.8", "q=0.8\t", "q=0.8, *", "", "\xe9")
    for value in (*values, *values[::-1]):
        for _ in range(2):
            fields = fields_of(f"Accept: {value}", f"accept-language: {value}", "Host: a")
            assert fields == {"HTTP_ACCEPT": value.strip(), "HTTP_ACCEPT_LANGUAGE": value.strip(), "HTTP_HOST": "a"}
            assert [*fields] == ["HTTP_ACCEPT", "HTTP_ACCEPT_LANGUAGE", "HTTP_HOST"]


def test_a_remembered_line_means_for_each_head_what_it_means_for_that_head() -> None:
    accept, host = "Accept: text/html", "Host: www.example.com"
    for _ in range(2):
        assert fields_of(host, accept)["HTTP_ACCEPT"] == "text/html"
        assert fields_of(host, accept, accept)["HTTP_ACCEPT"] == "text/html,text/html"
        assert fields_of(host, accept, "Proxy: a") == {"HTTP_HOST": "www.example.com", "HTTP_ACCEPT": "text/html"}
        for lines, limits, status in (
            ((host, host), HeadLimits(), 400),
            ((host, accept), HeadLimits(field_size=len(accept)), 431),
            ((host, accept), HeadLimits(fields=1), 431),
        ):
            with pytest.raises(ProtocolError) as refused:
                fields_of(*lines, limits=limits)
            assert refused.value.status == status


@pytest.mark.parametrize("line", ["Accept: a\x01b", "Accept: a\x7fb", "Accept: a\nb", "X-Own: \xe9\x00"])
def test_a_line_with_a_control_is_refused_whenever_it_comes(line: str) -> None:
    for _ in range(2):
        with pytest.raises(ProtocolError) as refused:
            fields_of("Host: a", line)
        assert refused.value.status == 400


def test_a_host_that_is_none_is_refused_whenever_it_comes() -> None:
    for _ in range(2):
        with pytest.raises(ProtocolError) as refused:
            fields_of("Host: a b")
        assert (refused.value.status, refused.value.reason) == (400, "malformed Host")


def test_what_clients_keep_to_themselves_is_not_remembered() -> None:
    """How long a comparison takes would tell of another client's."""
    lines = ("Accept: text/plain", "Cookie: session=a0", "Authorization: Basic YTpi", "X-Request-ID: 1", "X-Own: a")
    fields_of("Host: a", *lines)
    assert [line for line in lines if line in REMEMBERED] == ["Accept: text/plain"]


def test_lines_are_remembered_up_to_a_number_and_a_length() -> None:
    for number in range(3 * LINES):
        assert fields_of("Host: a", f"User-Agent: {number}")["HTTP_USER_AGENT"] == str(number)
        assert len(REMEMBERED) <= LINES
    shorter, longer = (f"User-Agent: {(size - len('User-Agent: ')) * 'a'}" for size in (198, 199))
    fields_of("Host: a", shorter)
    fields_of("Host: a", longer)
    assert (shorter in REMEMBERED, longer in REMEMBERED) == (True, False)
