"""gunicorn's settings and command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forkserver.cli.moving import gunicorn, source, translation
from forkserver.cli.moving.rows import Fate
from forkserver.errors import ConfigError
from harness import needs


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lines(*words: str, environ: dict[str, str] | None = None) -> list[str]:
    text = translation.as_toml(source.read(["gunicorn", *words], environ or {}))
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_every_setting_of_the_newest_gunicorn_has_a_row() -> None:
    needs.module("gunicorn")
    from gunicorn import config

    assert {setting.name for setting in config.KNOWN_SETTINGS} <= set(gunicorn.SERVER.rows)


def test_every_flag_of_the_newest_gunicorn_is_read_as_gunicorn_reads_it() -> None:
    needs.module("gunicorn")
    from gunicorn import config

    options = gunicorn.options()
    for setting in config.KNOWN_SETTINGS:
        for flag in setting.cli or ():
            assert options[flag].name == setting.name, flag
            takes_none = getattr(setting, "action", None) in ("store_true", "store_const")
            assert options[flag].words == (0 if takes_none else 1), flag


def test_no_row_tells_to_leave_out_what_is_not_written() -> None:
    for row in gunicorn.SERVER.rows.values():
        assert "leave it out" not in row.text, row.name
        assert row.keys or row.text, row.name
        assert bool(row.keys) == (row.fate in (Fate.TAKEN, Fate.RENAMED)), row.name


def test_flags_may_be_shortened_as_argparse_allows() -> None:
    assert lines("--worker-cl", "sync", "--thread=3", "app:app") == [
        'worker_class = "sync"',
        "threads = 3",
        'app = "app:app"',
    ]


def test_a_flag_wins_over_the_variable_and_that_over_the_file() -> None:
    Path("gunicorn.conf.py").write_text("workers = 1\nthreads = 1\ntimeout = 1\n")
    environ = {"GUNICORN_CMD_ARGS": "--workers 2 --threads 2"}
    assert lines("-w", "3", "app:app", environ=environ) == [
        "workers = 3",
        "threads = 2",
        "timeout = 1",
        'app = "app:app"',
    ]


def test_the_file_that_a_command_line_names_is_read() -> None:
    Path("other.py").write_text("bind = 'unix:///run/app.sock'\n")
    assert lines("-c", "other.py", "app:app") == ['bind = ["unix:/run/app.sock"]', 'app = "app:app"']


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-m", "022"], 'umask = "0022"'),
        (["-m", "18"], 'umask = "0022"'),
        (["-b", "0.0.0.0"], 'bind = ["0.0.0.0:8000"]'),
        (["-b", ":1", "-b", "fd://3"], 'bind = ["*:1", "fd://3"]'),
        (["--proxy-protocol"], 'proxy_protocol = "on"'),
        (["--proxy-protocol", "v2"], 'proxy_protocol = "v2"'),
        (["--proxy-protocol=auto"], 'proxy_protocol = "on"'),
        (["-e", "A=1", "-e", "B=2 3"], 'env = ["A=1", "B=2 3"]'),
        (["--no-control-socket"], 'control_socket = "off"'),
        (["--log-level", "WARN"], 'log_level = "warning"'),
        (["--forwarded-allow-ips="], None),
    ],
)
def test_values_mean_what_they_mean_to_gunicorn(words: list[str], expected: str | None) -> None:
    assert lines(*words) == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("gevent", "there are no green threads"),
        ("gunicorn.workers.ggevent.GeventWorker", "there are no green threads"),
        ("uvicorn.workers.UvicornWorker", "for ASGI take an ASGI server"),
        ("asgi", "for ASGI take an ASGI server"),
        ({"function": "Mine"}, "a class of the program's own"),
    ],
)
def test_a_kind_of_worker_that_is_not_had_says_what_to_do(value: Any, reason: str) -> None:
    convert = gunicorn.SERVER.rows["worker_class"].convert
    assert convert is not None
    with pytest.raises(Exception, match=reason):
        convert(value)


def test_an_open_quote_in_the_variable_is_told() -> None:
    with pytest.raises(ConfigError, match="GUNICORN_CMD_ARGS: no closing quotation; close every quote"):
        lines("app:app", environ={"GUNICORN_CMD_ARGS": "--bind '"})


def test_the_variable_that_forkserver_reads_as_well_is_told() -> None:
    text = translation.as_toml(source.read(["gunicorn", "app:app"], {"GUNICORN_CMD_ARGS": "-w 2"}))
    assert "# workers = '2' (GUNICORN_CMD_ARGS): taken\nworkers = 2\n" in text
    assert "# GUNICORN_CMD_ARGS is set; forkserver reads it too, and its flags win over this file: unset it\n" in text


@pytest.mark.parametrize(
    ("flags", "target"),
    [
        ([], "syslog:user:udp://127.0.0.1:514"),
        (["--log-syslog-to", "unix:///dev/log#dgram", "--log-syslog-facility=local3"], "syslog:local3:/dev/log"),
        (["--log-syslog-to=udp://192.0.2.7:5140"], "syslog:user:udp://192.0.2.7:5140"),
    ],
)
def test_syslog_is_one_target_of_both_logs(flags: list[str], target: str) -> None:
    assert lines("--log-syslog", *flags) == [f'error_log = "{target}"', f'access_log = "{target}"']


def test_syslog_by_tcp_says_what_to_do() -> None:
    text = translation.as_toml(source.read(["gunicorn", "--log-syslog", "--log-syslog-to=tcp://192.0.2.7:514"], {}))
    assert "# syslog = ...: left out; syslog by TCP is not spoken" in text


def test_what_is_said_of_syslog_means_nothing_without_it() -> None:
    assert lines("--log-syslog-to=udp://192.0.2.7:514") == []
