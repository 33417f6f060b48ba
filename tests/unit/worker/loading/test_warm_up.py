"""The first request before the fork: asked in a child, and then here only where the child has left nothing behind."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.config.settings import Settings, defaults
from forkserver.linux import signals
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.loading import warm_up
from forkserver.worker.loading.loader import Code
from harness import BOUND
from harness.log_files import opened_log

First = Callable[[str], int]


class WarmServer:
    """Answers ``check`` by what the test gives as the application, and notes how it was made."""

    made: list[WarmServer]

    def __init__(self, address: tuple[str, int], handler: type, bind_and_activate: bool) -> None:
        self.given: tuple[Any, ...] = ()
        self.closed = False
        self.server_name, self.server_port = address
        self.made.append(self)

    def adopt(self, listeners: list[tuple[int, socket.socket]], *given: Any) -> None:
        self.given = given
        self.listeners = [listener for _, listener in listeners]

    def setup_environ(self) -> None: ...

    def set_app(self, app: First) -> None:
        self.app = app

    def check(self, path: str) -> int:
        return self.app(path)

    def server_close(self) -> None:
        self.closed = True
        for listener in self.listeners:
            listener.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ErrorLog]:
    with opened_log(tmp_path / "log") as made:
        yield made


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[WarmServer]:
    """The servers that this process has made."""
    found: list[WarmServer] = []
    monkeypatch.setattr(WarmServer, "made", found, raising=False)
    return found


def warm(app: First, log: ErrorLog, seconds: float = BOUND, **changes: Any) -> str:
    """The reason why ``app`` was not asked for /warm in this process; empty where it was."""
    code = Code(app, WarmServer, object, {})  # type: ignore[arg-type]
    reasons: list[str] = []

    def here() -> int:
        reasons.append(warm_up.warm(code, defaults(app="site:app", **changes), log, "/warm", seconds))
        return 0

    signals.run(here)
    return reasons[0]


@pytest.mark.process
def test_this_process_is_asked_after_a_child_that_left_nothing(log: ErrorLog, made: list[WarmServer]) -> None:
    asked: list[str] = []

    def app(path: str) -> int:
        asked.append(path)
        return 204

    assert warm(app, log, threads=4, bind=["192.0.2.7:81"]) == ""
    assert asked == ["/warm"], "once here; what the child noted is the child's"
    (server,) = made
    settings = server.given[1]
    assert (settings.threads, server.server_name, server.server_port, server.closed) == (1, "192.0.2.7", 81, True)


@pytest.mark.process
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "it was answered with status 404, not 2xx or 3xx"),
        (ValueError("no database"), "it was not answered: no database"),
    ],
)
def test_a_bad_answer_to_the_child_is_the_reason(
    log: ErrorLog, made: list[WarmServer], status: int | Exception, reason: str
) -> None:
    def app(_path: str) -> int:
        if isinstance(status, Exception):
            raise status
        return status

    assert warm(app, log) == reason
    assert made == []


@pytest.mark.process
def test_what_the_child_leaves_open_is_the_reason(log: ErrorLog, tmp_path: Path, made: list[WarmServer]) -> None:
    kept: list[object] = []

    def app(_path: str) -> int:
        kept.append(open(tmp_path / "rows.db", "w"))
        return 200

    assert warm(app, log) == f"it leaves what processes cannot share: file {tmp_path}/rows.db, open for writing"
    assert made == []


@pytest.mark.process
def test_a_child_that_ends_without_a_word_is_the_reason(log: ErrorLog) -> None:
    def app(_path: str) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 200

    assert warm(app, log) == "the child that was asked first ended: killed by SIGKILL"


@pytest.mark.process
def test_a_child_that_does_not_answer_is_killed_and_leaves_its_stacks(log: ErrorLog) -> None:
    """What it waits for may be a database that is away."""

    def wait_for_ever(_path: str) -> int:
        threading.Event().wait()
        return 200

    faulthandler.register(signal.SIGUSR2, log.dump_fileno(), all_threads=True)  # as a template does
    try:
        reason = warm(wait_for_ever, log, seconds=1.0)
    finally:
        faulthandler.unregister(signal.SIGUSR2)
    assert reason == "it was not answered within 1.0 s, half of what the import had left of boot_timeout"
    assert "(most recent call first)" in Path(log.target).read_text()


def test_without_a_process_for_the_child_nothing_is_asked(
    log: ErrorLog, made: list[WarmServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_main: object) -> int:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(signals, "spawn", refuse)
    assert warm(lambda _: 200, log) == "no child could be asked first: Resource temporarily unavailable"
    assert made == []


@pytest.mark.parametrize(
    ("bind", "name"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("[::1]:81", ("::1", 81)),
        ("0.0.0.0:80", (socket.gethostname(), 80)),
        ("*:80", (socket.gethostname(), 80)),
        ("unix:/run/site.sock", ("localhost", 80)),
        ("fd://3", ("localhost", 80)),
    ],
)
def test_the_request_is_for_the_first_address(bind: str, name: tuple[str, int]) -> None:
    """An application that checks hosts must know it (Django's ALLOWED_HOSTS)."""
    settings: Settings = defaults(bind=[bind, "127.0.0.1:9"])
    assert warm_up._name(settings) == name
