"""uwsgi.ini and the command line of uwsgi."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkserver.cli.moving import source, translation, uwsgi_ini
from forkserver.cli.moving.rows import Found
from forkserver.errors import ConfigError


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def found(text: str, environ: dict[str, str] | None = None) -> list[Found]:
    Path("shop.ini").write_text(text)
    return uwsgi_ini.file("shop.ini", environ or {})[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("logto = %d%n.log", "{folder}/shop.log"),
        ("logto = %p", "{folder}/shop.ini"),
        ("logto = $(HOME)/log", "/home/shop/log"),
        ("logto = $(MISSING)/log", "$(MISSING)/log"),
        ("logto = @(missing)", "@(missing)"),
        ("base = /srv\nlogto = %(base)/log", "/srv/log"),
        ("set-placeholder = base=/srv\nlogto = %(base)/log", "/srv/log"),
        ("logto = %(addr) %(uri)", "%(addr) %(uri)"),
        ("n = 6\nlogto = %(n / 2)", "3"),
        ("n = 6\nlogto = %(n * 2)", "12"),
    ],
)
def test_placeholders_are_filled(text: str, value: str, tmp_path: Path) -> None:
    assert [each.value for each in found(f"[uwsgi]\n{text}\n", {"HOME": "/home/shop"}) if each.name == "logto"] == [
        value.format(folder=tmp_path)
    ]


@pytest.mark.parametrize(("uid", "value"), [(1000, "from a file"), (0, "@(name)")])
def test_a_value_from_another_file_is_read_but_not_by_root(
    uid: int, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who has written the ini file chooses which: it would be printed what only root may read."""
    Path("name").write_text("from a file\n")
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert found("[uwsgi]\nlogto = @(name)\n") == [Found("logto", value)]


def test_a_word_that_only_other_lines_use_is_no_setting() -> None:
    assert [each.name for each in found("[uwsgi]\nbase = /srv\nchdir = %(base)/app\n")] == ["chdir"]


def test_what_adds_up_is_a_list_and_of_the_rest_the_last_counts() -> None:
    assert found("[uwsgi]\nenv = A=1\nenv = B=2\nprocesses = 1\nprocesses = 2\n") == [
        Found("env", ["A=1", "B=2"]),
        Found("processes", "2"),
    ]


def test_other_sections_and_comments_are_not_read() -> None:
    assert found(
        "[app]\nprocesses = 1\n[uwsgi]\n# processes = 2\n; processes = 3\nthreads=4\n[end]\nthreads = 5\n"
    ) == [Found("threads", "4")]


def test_a_command_line_and_the_file_that_it_names_are_one() -> None:
    Path("shop.ini").write_text("[uwsgi]\nprocesses = 1\nmodule = shop\n")
    text = translation.as_toml(source.read(["uwsgi", "--ini", "shop.ini", "--processes=3", "-M", "-s", ":3031"], {}))
    assert "\nworkers = 3\n" in text
    assert '\napp = "shop"\n' in text
    assert '\nbind = ["*:3031"]\n' in text


def test_a_script_that_cannot_be_imported_by_its_name_is_told() -> None:
    Path("shop.ini").write_text("[uwsgi]\nwsgi-file = /srv/my-app/main-app.py\n")
    text = translation.as_toml(source.read(["shop.ini"], {}))
    assert (
        "# app = ...: left out; main-app.py cannot be imported by its name; rename it to a module's, such as wsgi.py"
        in text
    )


def test_a_file_that_cannot_be_read_is_told() -> None:
    with pytest.raises(ConfigError, match=r"cannot read missing\.ini: no such file or directory; name another"):
        uwsgi_ini.file("missing.ini", {})


def test_milliseconds_of_a_slow_request_become_seconds() -> None:
    Path("shop.ini").write_text("[uwsgi]\nlog-slow = 1500\ninclude = other.ini\n")
    text = translation.as_toml(source.read(["shop.ini"], {}))
    assert "\nslow_log = 1.5\n" in text
    assert "\n# include = 'other.ini': not had; the file is not read; run --from on it too\n" in text
