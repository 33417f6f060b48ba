"""A worker without classes of the application's serves as one with the documented classes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref import simple_server

import pytest

from forkserver import WSGIRequestHandler, WSGIServer
from forkserver.config.settings import defaults
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.server.context import context_of
from forkserver.server.loop.worker_server import WorkerServer
from forkserver.server.wsgi import overrides
from harness.log_files import opened_log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ErrorLog]:
    with opened_log(tmp_path / "log") as made:
        yield made


def adopted(server: Any, log: ErrorLog) -> Any:
    listener = PlainSocket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server.adopt([(1, listener)], None, defaults(), log, AccessLog(None), None, None)
    server.set_app(simple_server.demo_app)
    return server


def test_it_is_to_the_application_as_the_documented_server(log: ErrorLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overrides, "_found", {})  # nothing that was found of a class which another test has changed
    made = adopted(WorkerServer(("127.0.0.1", 0)), log)
    known = adopted(WSGIServer(("127.0.0.1", 0), WSGIRequestHandler, bind_and_activate=False), log)
    try:
        assert made.base_environ == known.base_environ | {"SERVER_PORT": str(made.server_port)}
        assert made.server_name == known.server_name
        assert made.application is simple_server.demo_app
        ours, theirs = context_of(made), context_of(known)
        assert vars(ours.hooks) == vars(theirs.hooks)
        assert ours.concurrency == theirs.concurrency
        assert made.check("/") == known.check("/") == 200
    finally:
        made.server_close()
        known.server_close()
    assert made.socket.fileno() == -1


def test_a_fault_is_told_in_the_error_log(log: ErrorLog) -> None:
    made = adopted(WorkerServer(("127.0.0.1", 0)), log)
    try:
        raise ValueError("broken")
    except ValueError:
        made.handle_error(None, ("192.0.2.1", 1))
    finally:
        made.server_close()
    assert "exception while serving 192.0.2.1" in Path(log.target).read_text()


def test_an_exception_of_ours_is_had_without_the_servers_modules() -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from forkserver import RequestTimeout, BindError; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not {"http.server", "forkserver.server"} & set(done.stdout.split())
