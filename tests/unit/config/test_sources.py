"""Where settings are written."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest

from forkserver.config import loading
from harness.settings_files import refusal, write


def test_flag_then_variable_then_gunicorns_then_file_then_platform_then_default() -> None:
    """The order is a promise of the documentation."""
    environ = {"WEB_CONCURRENCY": "2"}
    assert loading.load([], {}).workers == 1
    assert loading.load([], environ).workers == 2
    write("workers = 3")
    assert loading.load([], environ).workers == 3
    environ["GUNICORN_CMD_ARGS"] = "-w 4"
    assert loading.load([], environ).workers == 4
    environ["FORKSERVER_WORKERS"] = "5"
    assert loading.load([], environ).workers == 5
    assert loading.load(["--workers=6"], environ).workers == 6


def test_an_empty_variable_counts_as_not_set() -> None:
    """Compose files pass on variables that nobody has set."""
    loaded = loading.load([], {"FORKSERVER_WORKERS": "", "PORT": "", "WEB_CONCURRENCY": ""})
    assert (loaded.workers, loaded.bind) == (1, ["127.0.0.1:8000"])


@pytest.mark.parametrize("argv", [("--config", "forkserver.toml"), ()], ids=["named", "in the current directory"])
def test_a_fifo_in_place_of_a_settings_file_is_refused_at_once(argv: tuple[str, ...]) -> None:
    """Reading it would wait for a writer: a start would hang, and a master at HUP."""
    os.mkfifo("forkserver.toml")
    assert "not a regular file" in refusal(*argv)


@pytest.mark.parametrize(
    "argv",
    [["-w", "4"], ["-w4"], ["--workers", "4"], ["--workers=4"], ["-w", "9", "-w", "4"]],
)
def test_flags_in_every_usual_spelling(argv: list[str]) -> None:
    """People's hands know all of them; the last of two wins, so that a script's can be overruled."""
    assert loading.load([*argv, "myapp:app"], {}).workers == 4


def test_gunicorns_names_are_ours_too() -> None:
    """Moving over is changing one word."""
    line = "--access-logfile - --log-file err.log --pid run.pid --limit-request-field_size 100"
    more = "-k gthread -e A=1 --env B=2,3 --preload -t 0 -m 022 --max-requests 1000 --max-requests-jitter 50 myapp:app"
    loaded = loading.load([*line.split(), *more.split()], {})
    assert (loaded.access_log, loaded.error_log, loaded.pidfile) == ("-", "err.log", "run.pid")
    assert (loaded.limit_request_field_size, loaded.env) == (100, ["A=1", "B=2,3"])
    assert (loaded.preload, loaded.timeout, loaded.umask) == ("on", math.inf, 0o022)
    assert (loaded.max_requests, loaded.max_requests_jitter) == (1000, 50)
    assert loaded.app == "myapp:app"


def test_preload_takes_the_next_word_only_if_it_is_one_of_its_own() -> None:
    """gunicorn's flag has no value, and the application often follows it."""
    assert loading.load(["--preload", "off", "myapp:app"], {}).preload == "off"
    loaded = loading.load(["--preload", "myapp:app"], {})
    assert (loaded.preload, loaded.app) == ("on", "myapp:app")
    write("preload = false")
    assert loading.load([], {}).preload == "off"


def test_words_after_two_dashes_are_no_flags() -> None:
    """As everywhere."""
    assert loading.load(["-w", "2", "--", "myapp:app"], {}).app == "myapp:app"


@pytest.mark.parametrize(
    "unrelated",
    ["--log-conf-file", "--ssl", "--http-timeout", "--master", "--socket", "--processes", "--uid", "--module", "--host",
     "--interface", "--blocking-threads", "--loop", "--max-conn", "--class", "--port", "--url-prefix", "--mount"],
)  # fmt: skip
def test_a_flag_that_is_merely_similar_is_not_suggested(unrelated: str) -> None:
    """uWSGI's and granian's flags among them: a guess that is followed does something else."""
    assert refusal(unrelated) == f"{unrelated}: no such flag; forkserver --help lists them"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("--wrokers", "--workers"), ("--worker", "--workers"), ("--accesslog", "--access-log"), ("--bimd", "--bind"),
        ("--keepalive", "--keep-alive"), ("--gracefull-timeout", "--graceful-timeout"), ("--treads", "--threads"),
        ("--max-request", "--max-requests"), ("--check-confg", "--check-config"),
    ],
)  # fmt: skip
def test_a_misspelt_flag_is_suggested(written: str, meant: str) -> None:
    assert refusal(written) == f"{written}: no such flag; did you mean {meant}?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wokers = 3", "wokers in forkserver.toml: no such setting; did you mean workers?"),
        (
            "graceful-timeout = 3",
            "in forkserver.toml: no such setting; did you mean graceful_timeout?",
        ),
        ("zzz = 3", "zzz in forkserver.toml: no such setting; forkserver --help lists them"),
        ("[server]\nworkers = 3", "[server] in forkserver.toml: no such table; settings stand at the top level"),
        ("workers = ", "forkserver.toml: not TOML: Invalid value (at end of document)"),
        ("workers = true", "workers in forkserver.toml true: not a whole number"),
        ("workers = 2.5", "workers in forkserver.toml 2.5: not a whole number"),
        (
            "umask = 22",
            'umask in forkserver.toml 22: a number whose base cannot be seen; write octal digits in quotes, "0022"',
        ),
        ("umask = 22", '"0022", or "0026" where 0o26 was written'),
        ("socket_mode = 660", 'write octal digits in quotes, "0660"'),
        ("socket_mode = 0o660", 'write octal digits in quotes, "0432", or "0660" where 0o660 was written'),
        ("socket_mode = 0o666", 'write octal digits in quotes, "0666" where 0o666 was written'),
        ("socket_mode = 99999", 'write octal digits in quotes, such as "022"'),
        ("socket_mode = -1", 'write octal digits in quotes, such as "022"'),
        ("umask = 7", 'write octal digits in quotes, "0007"'),
        ("umask = true", "base cannot be seen"),
        ("chdir = 3", "chdir in forkserver.toml 3: not text; put it in quotes"),
        ("bind = []", "bind in forkserver.toml []: nothing to listen on"),
        ("timeout = nan", "timeout in forkserver.toml nan: not a number"),
        ("config = 'x'", "config in forkserver.toml: no such setting"),
    ],
)
def test_a_wrong_file_is_told(text: str, message: str) -> None:
    """With the file's name, for there may be several."""
    write(text)
    assert message in refusal()


def test_a_reader_of_files_that_was_removed_since_the_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload is refused for it, and the master serves on."""
    write("workers = 2")
    monkeypatch.setitem(sys.modules, "tomllib", None)
    message = refusal()
    assert message.startswith("cannot read forkserver.toml: ")
    assert message.endswith("; install this Python again, and restart")


def test_a_file_that_is_not_text_is_told() -> None:
    """A traceback of the decoder would be ours."""
    Path("forkserver.toml").write_bytes(b"\xff\xfe")
    assert "forkserver.toml: not TOML" in refusal()


def test_a_misspelt_variable_is_told_and_a_strangers_is_not() -> None:
    """Kubernetes makes FORKSERVER_SERVICE_HOST for a service of that name; WROKERS is a slip."""
    message = refusal(FORKSERVER_WROKERS="3")
    assert message == "variable FORKSERVER_WROKERS: no such setting; did you mean FORKSERVER_WORKERS?"
    loading.load([], {"FORKSERVER_SERVICE_HOST": "10.0.0.1", "FORKSERVER_PORT_8000_TCP": "tcp://10.0.0.1:8000"})


def test_a_wrong_variable_is_named() -> None:
    """The value alone could stand anywhere."""
    assert refusal(FORKSERVER_THREADS="x").startswith("FORKSERVER_THREADS 'x': not a whole number")
    assert refusal(WEB_CONCURRENCY="x").startswith("WEB_CONCURRENCY 'x': not a whole number")
    assert refusal(GUNICORN_CMD_ARGS="-w x").startswith("-w/--workers in GUNICORN_CMD_ARGS 'x': not a whole number")
    assert refusal(GUNICORN_CMD_ARGS="--zzz").startswith("in GUNICORN_CMD_ARGS: --zzz: no such flag")
    assert refusal(GUNICORN_CMD_ARGS="myapp:app").startswith("in GUNICORN_CMD_ARGS: 'myapp:app' is no setting")
    assert refusal(GUNICORN_CMD_ARGS="-w/--workers '").startswith("GUNICORN_CMD_ARGS: no closing quotation")
    assert "close every quote" in refusal(FORKSERVER_ENV="'A=1")
