"""Settings in force as TOML."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from forkserver.config import loading, settings, toml_writer
from forkserver.config.declaration import Setting
from forkserver.config.settings import TABLE
from harness.settings_files import write


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_a_default_shown_as_toml_is_read_back(setting: Setting[Any]) -> None:
    """--print-config must give a file that can be used."""
    if setting.default is not None:
        literal = setting.value_type.show(setting.default)
        assert setting.value_type.parse(tomllib.loads(f"key = {literal}")["key"]) == setting.default


def test_print_config_gives_a_file_that_means_the_same() -> None:
    """What runs by flags today can be a file tomorrow."""
    argv = ["m:a", "-w3", "-b", ":1", "-t0", "-m", "027", "-e", 'A="\\\x7f', "--max-body=5000001", "--keep-alive=0.25"]
    loaded = loading.load(argv, {})
    write(toml_writer.as_toml(loaded))
    again = loading.load([], {})
    assert {setting.name: getattr(again, setting.name) for setting in TABLE} == {
        setting.name: getattr(loaded, setting.name) for setting in TABLE
    }


def test_print_config_leaves_out_variables_that_look_secret() -> None:
    """It is pasted into tickets. In the place of a value, anything else would be believed."""
    secret = [
        "SECRET_KEY=hunter2", "DB_PASSWORD=hunter2", "GITHUB_TOKEN=hunter2", "SENTRY_DSN=hunter2",
        "DATABASE_URL=postgres://user:hunter2@db/app", "REDIS=redis://:hunter2@db", "AWS_SECRET_ACCESS_KEY=hunter2",
        "BROKER=amqp://host/?password=hunter2", "STRIPE_API_KEY=hunter2", "MAIL_PWD=hunter2", "BASIC_AUTH=hunter2",
    ]  # fmt: skip
    plain = ["DJANGO_SETTINGS_MODULE=site.settings", "HOME=/srv", "KEYBOARD=us", "URL=https://example.org/a?b=c", "A="]
    loaded = loading.load([word for pair in (*secret, *plain) for word in ("-e", pair)], {})
    text = toml_writer.as_toml(loaded)
    assert "hunter" not in text
    assert tomllib.loads(text)["env"] == plain
    names = ", ".join(pair.partition("=")[0] for pair in secret)
    assert f"# flag --env; not shown, for they look secret: {names}\n" in text
    assert "hunter" not in repr(loaded)


def test_print_config_says_where_each_value_comes_from() -> None:
    """The reason to run it."""
    text = toml_writer.as_toml(loading.load(["-w", "3"], {"FORKSERVER_BIND": "unix:x"}))
    assert "workers = 3  # flag --workers\n" in text
    assert 'bind = ["unix:x"]  # variable FORKSERVER_BIND\n' in text
    assert "# access_log is not set  # default\n" in text


def _uncommented(text: str) -> str:
    return re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)


def test_print_config_all_is_a_file_of_the_defaults() -> None:
    """To begin with: as it is, it changes nothing, and with every line switched on neither."""
    text = toml_writer.as_complete_toml(loading.load([], {}))
    assert tomllib.loads(text) == {}
    write(_uncommented(text))
    again, defaults = loading.load([], {}), settings.defaults()
    assert {setting.name: getattr(again, setting.name) for setting in TABLE} == {
        setting.name: getattr(defaults, setting.name) for setting in TABLE
    }


def test_print_config_all_explains_every_setting() -> None:
    text = toml_writer.as_complete_toml(loading.load([], {}))
    flat = " ".join(line.removeprefix("# ") for line in text.splitlines())
    assert [setting.name for setting in TABLE if setting.in_file and setting.help not in flat] == []
    assert max(map(len, text.splitlines())) <= 120


def test_print_config_all_keeps_what_is_set() -> None:
    argv = ["m:a", "-w3", "-e", "A=b", "-e", "SECRET_KEY=hunter2", "-t0"]
    text = toml_writer.as_complete_toml(loading.load(argv, {}))
    assert tomllib.loads(text) == {"app": "m:a", "workers": 3, "env": ["A=b"], "timeout": 0}
    assert "hunter" not in text
