"""The JSON schema of forkserver.toml: what forkserver loads is valid, and common mistakes are not."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest

from forkserver.cli import serve, settings_schema
from forkserver.config import loading, toml_writer
from forkserver.config.declaration import Setting
from forkserver.config.settings import TABLE
from harness import needs


@pytest.fixture
def mistakes() -> Any:
    needs.module("jsonschema")
    import jsonschema

    schema = json.loads(settings_schema.as_json())
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    return lambda text: [error.message for error in validator.iter_errors(tomllib.loads(text))]


def test_every_setting_of_the_file_is_in_the_schema() -> None:
    schema = json.loads(settings_schema.as_json())
    assert set(schema["properties"]) == {setting.name for setting in TABLE if setting.in_file}
    assert all(each["description"] for each in schema["properties"].values())


def test_print_schema_prints_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["--print-schema"]) == 0
    assert json.loads(capfd.readouterr().out)["title"] == "forkserver.toml"


def test_the_defaults_are_valid(mistakes: Any) -> None:
    text = toml_writer.as_complete_toml(loading.load([], {}))
    assert mistakes(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)) == []


@pytest.mark.parametrize(
    "line",
    [
        "workers = 4", 'workers = "auto"', 'workers = "4"', "timeout = 0", "timeout = 0.5", 'timeout = "2m"',
        'timeout = "1.5 h"', 'max_body = "10MiB"', 'max_body = "10 k"', "max_body = 100", 'bind = ":8000"',
        'bind = [":8000", "unix:/run/x"]', 'env = {A = "1"}', 'env = ["A=1", "B="]', 'env = "A=1 B=2"',
        "preload = true", 'preload = "auto"', 'umask = "022"', "cert_reqs = 2", "user = 1000", 'user = "www-data"',
        "admin_bind = 9100", 'admin_bind = "off"', 'nofile = "keep"', 'log_level = "debug"',
        'spool_keep_free = "auto"',
    ],
)  # fmt: skip
def test_what_forkserver_reads_is_valid(mistakes: Any, line: str) -> None:
    assert mistakes(line) == []
    (key, raw), = tomllib.loads(line).items()  # fmt: skip
    setting: Setting[Any] = next(each for each in TABLE if each.name == key)
    if key != "user":
        setting.value_type.parse(raw)


@pytest.mark.parametrize(
    "line",
    [
        'workers = "many"', "workers = -1", "workers = 1.5", "workers = [1]", "timeout = true", 'timeout = "2 days"',
        "bind = 8000", 'max_body = "10 apples"', "umask = 22", 'preload = "maybe"', 'env = ["A"]', "env = {A = 1}",
        'log_level = "loud"', "wokers = 1", "[workers]", "app = 1",
    ],
)  # fmt: skip
def test_a_mistake_is_found_in_the_editor(mistakes: Any, line: str) -> None:
    assert mistakes(line)


def test_types_of_values_that_the_schema_names_are_there() -> None:
    """A type that gets another name would become text without a word."""
    assert set(settings_schema._FORMS) <= {setting.value_type.name for setting in TABLE}


def test_a_type_without_a_form_is_text() -> None:
    for setting in TABLE:
        if setting.default is not None and not setting.value_type.choices:
            text = setting.value_type.name not in settings_schema._FORMS
            assert not text or isinstance(setting.default, str), setting.name
