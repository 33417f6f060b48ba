"""Text as the settings take it, and as TOML has it."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.config.values.value_type import RefusedError, optional_text, plain_text, quoted, show_texts


@given(st.text(st.characters(codec="utf-8")))
def test_a_quoted_text_is_read_back(text: str) -> None:
    assert tomllib.loads(f"key = {quoted(text)}") == {"key": text}


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_a_list_of_texts_is_read_back(texts: list[str]) -> None:
    assert tomllib.loads(f"key = {show_texts(texts)}") == {"key": texts}


def test_white_space_around_a_text_is_left_out() -> None:
    assert plain_text(" myapp:app\n") == "myapp:app"


def test_an_empty_text_is_no_value() -> None:
    assert optional_text("  ") is None
    assert optional_text("x") == "x"


@pytest.mark.parametrize(("raw", "reason"), [(8000, "not text; put it in quotes"), ("a\0b", "NUL byte; leave it out")])
def test_what_is_no_text_is_refused_with_the_way_out(raw: object, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        plain_text(raw)
