"""Words, paths and texts of a unit file mean themselves, whatever characters they hold."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.cli.systemd import systemd_unit_syntax
from forkserver.errors import ConfigError


def read_again(line: str) -> list[str]:
    """The words of a command line as systemd.syntax(7) has it: quotes, escapes, then specifiers and variables."""
    words = re.findall(r'"(?:[^"\\]|\\.)*"|\S+', line)
    inner = [word[1:-1] if word.startswith('"') else word for word in words]
    escapes = re.compile(r"\\(x[0-9a-f]{2}|.)")
    plain = [
        escapes.sub(lambda found: chr(int(found[1][1:], 16)) if len(found[1]) == 3 else found[1], each)
        for each in inner
    ]
    return [each.replace("%%", "%").replace("$$", "$") for each in plain]


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1))
def test_a_command_is_read_as_the_words_it_was_made_of(words: list[str]) -> None:
    line = systemd_unit_syntax.command(words[:1], words[1:])
    assert read_again(line) == words
    assert not re.search(r"[\x00-\x1f\x7f]", line), "a line feed would begin another line of the unit"


def test_a_plain_word_stays_as_it_is() -> None:
    assert systemd_unit_syntax.quoted("/srv/app/bin/forkserver") == "/srv/app/bin/forkserver"


def test_an_empty_word_stays_a_word() -> None:
    assert systemd_unit_syntax.command(["forkserver"], ["--spool-dir", ""]) == 'forkserver --spool-dir ""'


def test_a_path_takes_the_rest_of_its_line_without_quotes() -> None:
    assert systemd_unit_syntax.path("/srv/my app/100%") == "/srv/my app/100%%"


@pytest.mark.parametrize("path", ["/srv/a\\", " /srv", "/srv ", "/srv/a\nUser=root", "/srv/\x7f"])
def test_a_path_that_a_line_cannot_hold_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="rename it"):
        systemd_unit_syntax.path(path)


def test_a_text_stays_in_its_line() -> None:
    assert systemd_unit_syntax.one_line("app\nUser=root\x00") == "app User=root "


@pytest.mark.parametrize("write", [systemd_unit_syntax.quoted, systemd_unit_syntax.path, systemd_unit_syntax.one_line])
def test_a_name_that_is_not_utf_8_is_refused(write) -> None:
    """systemd ignores a line that is not."""
    with pytest.raises(ConfigError, match="not UTF-8; rename it"):
        write("/srv/\udcff")
