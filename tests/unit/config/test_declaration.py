"""What one row of the settings table gives: its spellings, its default, its checked value."""

from __future__ import annotations

from typing import Any

import pytest

from forkserver.config.declaration import Parsed, Setting, declared_in
from forkserver.config.values import lists, numbers, words
from forkserver.errors import ConfigError


class Some:
    """Three settings."""

    app = Setting[str | None](words.text, None, "The application.", "Application", metavar="APP", positional=True)
    max_age = Setting[int](numbers.count(1, 9), 3, "Age.", "Workers", metavar="N", short="-a", aliases=("--age",))
    env = Setting[list[str]](lists.variables, [], "Variables.", "Workers", metavar="KEY=VALUE", repeatable=True)

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


def test_a_class_declares_its_settings_in_order_by_their_attributes() -> None:
    assert [setting.name for setting in declared_in(Some)] == ["app", "max_age", "env"]


def test_the_name_gives_flag_and_variable() -> None:
    assert Some.max_age.flags == ("-a", "--max-age", "--age")
    assert Some.max_age.variable == "FORKSERVER_MAX_AGE"
    assert Some.app.flags == (), "an argument has no flag"


def test_an_instance_has_its_own_value_and_no_other() -> None:
    assert Some(max_age=7).max_age == 7
    with pytest.raises(AttributeError, match="Some without a value for max_age"):
        _ = Some().max_age


def test_a_default_that_is_changed_is_a_copy() -> None:
    Some.env.fresh_default().append("A=1")
    assert Some.env.fresh_default() == []


def test_what_was_written_is_checked() -> None:
    assert Some.max_age.value(Parsed("4", "--max-age", "command line")) == 4


@pytest.mark.parametrize(("raw", "shown"), [("10", "'10'"), (10, "10"), (True, "true"), (["10"], "'10'")])
def test_a_refusal_shows_place_value_and_way_out(raw: object, shown: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--max-age {shown}: .*; give 1 to 9$"):
        Some.max_age.value(Parsed(raw, "--max-age", "command line"))


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        Some.env.value(Parsed(["hunter2"], "--env", "command line"))
    assert "hunter2" not in str(refused.value)


def test_an_empty_value_is_refused_where_there_is_a_default() -> None:
    Some.level = Setting[str](words.text, "info", "Level.", "Logs", metavar="LEVEL")  # type: ignore[attr-defined]
    Some.level.__set_name__(Some, "level")  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="--level '': empty; give a text, or leave it out for info"):
        Some.level.value(Parsed("", "--level", "command line"))  # type: ignore[attr-defined]
    assert Some.app.value(Parsed("", "application", "argument")) is None
