"""The settings table as text."""

from __future__ import annotations

from pathlib import Path

from forkserver.cli import settings_help
from forkserver.config.settings import TABLE

DOCS = Path(__file__).parents[3] / "docs"


def test_the_reference_page_is_what_the_table_says() -> None:
    """A page that lags behind the table misleads whoever reads it."""
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    remake = (
        "open('docs/settings.md', 'w').write(__import__('forkserver.cli.settings_help').cli.settings_help.reference())"
    )
    assert page == settings_help.reference(), f'make it again: python -c "{remake}"'


def test_sections_stand_together() -> None:
    """The help and the page give each section one heading."""
    headings = [line for line in settings_help.reference().splitlines() if line.startswith("## ")]
    assert len(headings) == len(set(headings))


def test_help_names_every_flag() -> None:
    """A flag that the help leaves out is found by nobody."""
    text = settings_help.usage()
    assert [flag for setting in TABLE for flag in setting.flags if flag not in text] == []
    assert max(map(len, text.splitlines())) <= 100
