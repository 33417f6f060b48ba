"""The application is tried in a child: what the child found is told, and nothing of it runs in the caller."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from forkserver.config.settings import Settings, defaults
from forkserver.errors import ConfigError, ForkserverError, LoadError
from forkserver.linux import syscalls
from forkserver.worker import check_config
from forkserver.worker.fork_safety.process_snapshot import ProcessSnapshot


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def site(text: str, **changes: object) -> Settings:
    Path("tried_site.py").write_text(text)
    return defaults(app="tried_site:app", **changes)


# The whole way, by a process


@pytest.mark.process
def test_an_application_that_loads_is_told_with_what_sharing_it_saves() -> None:
    said = check_config.load_in_child(site("def app(environ, start_response): return []"))
    first, advice = said.splitlines()
    assert first == "the settings are good, and tried_site:app loads (builtins.function)"
    assert advice.startswith("workers share the import (preload=auto): each saves about ")
    assert "tried_site" not in sys.modules


@pytest.mark.process
def test_what_speaks_against_sharing_is_told() -> None:
    text = "import os\npid = os.getpid()\ndef app(environ, start_response): return []"
    said = check_config.load_in_child(site(text))
    assert "workers do not share the import (preload=auto)" in said
    assert "\n  value of os.getpid(), the same in every worker (tried_site:2)\n" in said


@pytest.mark.process
@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        ("def create_app(): pass", ConfigError, "looked for 'app' in module 'tried_site'"),
        ("1 / 0", LoadError, "application 'tried_site:app' failed while it was imported: ZeroDivisionError"),
        ("raise SystemExit(0)", LoadError, "it exited"),
        ("import os; os._exit(7)", LoadError, "ended its process while it was loading: exit status 7"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            LoadError,
            "ended its process while it was loading: killed by SIGKILL",
        ),
    ],
)
def test_an_application_that_does_not_load_is_told_as_what_it_is(
    text: str, kind: type[ForkserverError], why: str
) -> None:
    with pytest.raises(kind, match=why):
        check_config.load_in_child(site(text))


@pytest.mark.process
def test_an_import_that_hangs_is_ended_with_boot_timeout() -> None:
    settings = site("import signal; signal.pause()", boot_timeout=0.2)
    with pytest.raises(LoadError, match=r"still loading after boot_timeout, 0\.2 s; raise that"):
        check_config.load_in_child(settings)


# Where there is no trial


def test_a_trial_that_cannot_look_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory", "/proc/self/fd")

    monkeypatch.setattr(ProcessSnapshot, "take", unreadable)
    with pytest.raises(ForkserverError, match=r"^/proc/self/fd cannot be read \(No such file or directory\), so what"):
        check_config.load_in_child(defaults(app="raw:app"))


def test_a_trial_that_gets_no_process_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(syscalls, "fork", refuse)
    with pytest.raises(ForkserverError, match=r"^no process to try the application in: Resource temporarily"):
        check_config.load_in_child(defaults(app="raw:app"))


# The child's report


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def outcome(pipe: tuple[int, int], report: bytes, status: int = 0) -> str:
    os.write(pipe[1], report)
    return check_config._outcome(defaults(app="tried_site:app"), pipe[0], status)


def test_a_report_is_read_though_its_pipe_stays_open(pipe: tuple[int, int]) -> None:
    """A process that the application has forked may hold the other end for ever."""
    assert outcome(pipe, check_config._report(0, "it is good", "")) == "it is good"


def test_a_child_that_reported_nothing_has_ended_early(pipe: tuple[int, int]) -> None:
    with pytest.raises(LoadError, match="ended its process while it was loading: killed by SIGSEGV"):
        outcome(pipe, b"", signal.SIGSEGV)


@pytest.mark.parametrize("kind", [ConfigError, LoadError, ForkserverError])
def test_the_childs_error_is_raised_again_as_the_same_kind(pipe: tuple[int, int], kind: type[ForkserverError]) -> None:
    with pytest.raises(ForkserverError, match="why") as caught:
        outcome(pipe, check_config._report(kind.exit_status, "why", "a traceback"))
    assert type(caught.value) is kind
    assert getattr(caught.value, "traceback", "a traceback") == "a traceback"


def test_a_long_report_fits_into_a_pipe_and_keeps_the_end_of_its_traceback() -> None:
    """A child that waited for its reader would be taken for an import that hangs."""
    report = check_config._report(3, "\udcff" * 100_000, "€" * 100_000 + "the point")
    assert len(report) <= check_config._REPORT_BYTES
    status, message, details = json.loads(report)
    assert (status, len(message), details[-9:]) == (3, 4000, "the point")
