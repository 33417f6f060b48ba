"""Which server's configuration was named."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkserver.cli import serve
from forkserver.cli.moving import source
from forkserver.errors import ConfigError


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("settings.cfg").write_text("[app]\nworkers = 1\n")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "--from: no value given"),
        (["missing.py"], "--from 'missing.py': no such file"),
        (["settings.cfg"], "--from 'settings.cfg': no configuration that is known"),
        (["flask run"], "--from 'flask run': the command of no server that is known"),
        (["gunicorn 'app"], "close every quote"),
    ],
)
def test_what_cannot_be_read_says_what_can(words: list[str], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        source.read(words, {})
    assert reason in str(caught.value)
    assert "name a gunicorn.conf.py, an uwsgi.ini" in str(caught.value) or "close every quote" in reason


@pytest.mark.parametrize("command", ["gunicorn", "/srv/venv/bin/gunicorn", "exec gunicorn", "python -m gunicorn"])
def test_the_program_is_found_in_a_command_line(command: str) -> None:
    read = source.read([f"{command} -w 2 app:app"], {})
    assert read.server.name == "gunicorn"
    assert not read.remarks


def test_a_secret_before_the_program_is_not_shown() -> None:
    (remark,) = source.read(["SECRET_KEY=hunter2 gunicorn app:app"], {}).remarks
    assert "hunter" not in remark


def test_a_variable_that_is_not_set_is_told() -> None:
    remarks = source.read(["gunicorn --bind 0.0.0.0:$NO_SUCH_PORT app:app"], {}).remarks
    assert remarks == ["0.0.0.0:$NO_SUCH_PORT: variables that are not set here; write their values"]


def test_all_behind_from_is_the_other_servers(capfd: pytest.CaptureFixture[str]) -> None:
    """Its flags are not ours: -c would be read as our file, and --reload refused."""
    assert serve.main(["--from", "gunicorn", "--reload", "-w", "2", "--", "app:app"]) == 0
    out = capfd.readouterr().out
    assert "\nworkers = 2\n" in out
    assert '\napp = "app:app"\n' in out


def test_from_may_have_its_value_behind_an_equals_sign(capfd: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["--from=waitress-serve --port=1 app:app"]) == 0
    assert '\nbind = ["0.0.0.0:1"]\n' in capfd.readouterr().out
