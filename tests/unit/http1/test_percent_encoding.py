"""A target is decoded as every other WSGI server decodes it."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.http1.percent_encoding import decoded


@pytest.mark.parametrize(
    "text", ["", "/", "/a%20b", "%", "%%41", "%4", "%zz%C3%a4", "%+4", "% 4", "/ä%00", "%u0041", "%" * 9]
)
def test_a_text_is_decoded_as_the_standard_library_decodes_it(text: str) -> None:
    assert decoded(text) == unquote_to_bytes(text)


@given(st.text(alphabet="%0123456789abcdefABCDEFgG+ /ä"))
def test_any_text_is_decoded_as_the_standard_library_decodes_it(text: str) -> None:
    assert decoded(text) == unquote_to_bytes(text)
