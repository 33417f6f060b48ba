"""The settings table as text."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from forkserver.cli import control, settings_help
from forkserver.config import sources
from forkserver.config.declaration import Setting
from forkserver.config.settings import TABLE
from forkserver.config.version import DISTRIBUTION, DOCUMENTATION
from forkserver.errors import ConfigError

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


def test_help_all_names_every_flag() -> None:
    """A flag that the help leaves out is not found."""
    text = settings_help.text(["all"])
    assert [flag for setting in TABLE for flag in setting.flags if flag not in text] == []
    assert max(map(len, text.splitlines())) <= 100


def test_help_fits_on_a_screen_and_names_every_setting() -> None:
    text = settings_help.text()
    lines = text.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    assert [setting.name for setting in TABLE if setting.name not in text] == []
    assert [action for action in sources.ACTIONS if action not in text] == []


@pytest.mark.parametrize("asked", ["workers", "--workers", "-w", "FORKSERVER_WORKERS", "WORKERS"])
def test_help_of_a_setting_says_all_about_it(asked: str) -> None:
    text = settings_help.text([asked])
    assert text.startswith("workers\n\nWorker processes; auto is as many as processors may be used")
    for line in ("-w, --workers COUNT", "FORKSERVER_WORKERS", "workers = 1", "count or auto", "a reload"):
        assert f" {line}\n" in text


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_every_setting_has_a_help_of_its_own(setting: Setting[Any]) -> None:
    text = settings_help.text([setting.name])
    assert text.startswith(f"{setting.name}\n")
    assert setting.variable in text


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("wokers", "--help wokers: no such setting; did you mean workers?"),
        ("--daemon", "--help --daemon: no such setting; forkserver stays in the foreground"),
        ("keepalive", "--help keepalive: no such setting; write keep_alive"),
        ("slow", "--help slow: no such setting; did you mean slow_log?"),
        ("level", "--help level: no such setting; did you mean log_level?"),
        ("--hosts", "--help --hosts: no such setting; did you mean admin_hosts?"),
        ("zzz", "--help zzz: no such setting; forkserver --help names them"),
    ],
)
def test_help_of_what_is_no_setting_says_what_may_be_meant(asked: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_help.text([asked])
    assert str(caught.value).startswith(reason)


def test_both_programs_name_the_address_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    assert metadata.metadata(DISTRIBUTION).get_all("Project-URL") in (None, [f"Documentation, {DOCUMENTATION}"])
    assert DOCUMENTATION in settings_help.text()
    with pytest.raises(SystemExit):
        control.main(["--help"])
    assert DOCUMENTATION in capsys.readouterr().out
