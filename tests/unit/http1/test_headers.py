"""Fields of a request: the blanks around a value, and the limits of lines."""

from __future__ import annotations

import pytest

from forkserver.errors import ProtocolError
from forkserver.http1.headers import HeadLimits, read_fields

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
