"""Text of clients as a field of a log."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.logs.client_text import cut, decoded, escaped, json_string, quoted


def test_a_text_is_quoted_escaped_and_cut() -> None:
    assert quoted('a"b\x1b\n', 40) == '"a\\x22b\\x1b\\x0a"'
    assert quoted("", 40) == '"-"'
    assert quoted("x" * 50, 10) == '"xxxxxxx..."'


def test_no_escape_is_cut_in_half() -> None:
    for most in range(4, 12):
        assert cut(escaped("ab\x00\x00\x00"), most).removesuffix("...").rstrip("ab").count("\\x00") * 4 == len(
            cut(escaped("ab\x00\x00\x00"), most).removesuffix("...").lstrip("ab")
        )


@given(st.text(), st.integers(20, 400))
def test_a_string_of_json_is_ascii_and_no_longer_than_it_may(text: str, most: int) -> None:
    found = json_string(text, most)
    assert len(found) <= most
    assert found.isascii()
    assert found.isprintable()
    shown = json.loads(found)
    assert shown == text or text.startswith(shown.removesuffix("..."))


@pytest.mark.parametrize(
    ("raw", "shown"), [(b"plain", "plain"), ("é€".encode(), "é€"), (b"\xff\xfe", "\\xff\\xfe"), (b"a\xc3", "a\\xc3")]
)
def test_bytes_are_shown_as_utf_8_where_they_are(raw: bytes, shown: str) -> None:
    assert decoded(raw.decode("latin-1")) == shown


def test_text_that_is_no_bytes_stays_as_it_is() -> None:
    assert decoded("é€") == "é€"
