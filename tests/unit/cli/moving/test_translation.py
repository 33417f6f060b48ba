"""From what was found to a file: whatever it is, the file can be loaded."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from forkserver.cli.moving import gunicorn, mod_wsgi, translation, uwsgi, waitress
from forkserver.cli.moving.rows import Found, Server, Source
from forkserver.config import loading
from forkserver.config.settings import TABLE

SERVERS = (gunicorn.SERVER, uwsgi.SERVER, waitress.SERVER, mod_wsgi.SERVER)
KNOWN = {setting.name: setting for setting in TABLE if setting.in_file}
# As text, or as a Python file may have them.
ODD: tuple[Any, ...] = (
    "", " ", "x", "0", "-1", "99999999999999999999", "1.5", "a b", "a,b", "a:b", "/", "/a/b.py", "a=b", "*", "\0",
    '\n#x = 1\n"', "\udcff", "\x1b[31m", 0, -1, 1.5, float("nan"), True, False, None, [], ["x", 1], [[]], {"a": 1},
    {"object": "<x>"},
)  # fmt: skip


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(server: Server, *found: Found) -> str:
    return translation.as_toml(Source(server, "a configuration", list(found), ["a remark\nof two lines"]))


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
@pytest.mark.parametrize("value", ODD, ids=ascii)
def test_whatever_a_setting_holds_the_file_can_be_loaded(server: Server, value: Any) -> None:
    for name in (*server.rows, "no-such-setting", "with\nline"):
        for key, raw in tomllib.loads(made(server, Found(name, value)).encode().decode()).items():
            KNOWN[key].value_type.parse(raw)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
@pytest.mark.parametrize("value", ["1", "x", True], ids=ascii)
def test_all_settings_at_once_can_be_loaded(server: Server, value: Any) -> None:
    text = made(server, *(Found(name, value) for name in server.rows))
    Path("made.toml").write_text(text)
    loading.load(["--config", "made.toml"], {})


def test_lists_of_two_settings_are_joined_and_of_others_the_last_counts() -> None:
    text = made(
        uwsgi.SERVER, Found("http", ":1"), Found("http-socket", ":2"), Found("workers", "1"), Found("processes", "2")
    )
    loaded = tomllib.loads(text)
    assert loaded["bind"] == ["*:1", "*:2"]
    assert loaded["workers"] == 2


def test_a_setting_that_needs_another_stands_in_a_comment() -> None:
    text = made(gunicorn.SERVER, Found("keyfile", "a.key"))
    assert "# keyfile = 'a.key': left out; 1 for 0 of certfile; give one for each, or none\n" in text


def test_a_long_value_is_cut_in_its_comment_alone() -> None:
    long = "x" * 500
    text = made(gunicorn.SERVER, Found("accesslog", f"/{long}"))
    assert f'access_log = "/{long}"' in text
    assert max(len(line) for line in text.splitlines() if line.startswith("#")) < 200


def test_where_no_application_is_named_it_says_what_to_type() -> None:
    assert 'app = "myapp:app", or type it: forkserver --check-config myapp:app\n' in made(gunicorn.SERVER)
    assert "myapp:app" not in made(gunicorn.SERVER, Found("wsgi_app", "site:app"))
