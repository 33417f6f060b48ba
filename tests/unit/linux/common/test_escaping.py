"""Text from elsewhere in a line of a log or on a terminal."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from forkserver.linux.common.escaping import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET /caf\u00e9 \u65e5\u672c", "GET /caf\u00e9 \u65e5\u672c"),
        ("a\r\n\tb\x1b[2J\x7f\x85\x9b", r"a\r\n\tb\x1b[2J\x7f\x85\x9b"),
        ("\u202egnp.exe\u2069\u200f\u061c", r"\u202egnp.exe\u2069\u200f\u061c"),
        ("ad\u200bmin\ufeff\u2028\U000e0041", r"ad\u200bmin\ufeff\u2028\U000e0041"),
        ("/srv/\udcff", r"/srv/\udcff"),
    ],
)
def test_what_acts_on_a_terminal_or_is_not_seen_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_control_format_or_separator_character_of_unicode_is_left() -> None:
    """Bidirectional controls make a line read as another; characters without a width hide a difference."""
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    acting = [each for each in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(each) in kinds]
    assert len(acting) > 2000
    left = printable("".join(acting))
    assert left.isascii()
    assert left.isprintable()
