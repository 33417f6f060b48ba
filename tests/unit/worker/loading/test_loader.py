"""What a worker serves is loaded whole, and a failure is reported as what it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import pytest

import forkserver
from forkserver.config.settings import defaults
from forkserver.errors import ConfigError, LoadError
from forkserver.ipc.messages import LoadFailed
from forkserver.logs.error_log import ErrorLog
from forkserver.server.loop.worker_server import NoHandler, WorkerServer
from forkserver.server.wsgi.script_name import ScriptName
from forkserver.worker.loading import loader
from harness.log_files import opened_log

SITE = """
import forkserver
from http.server import BaseHTTPRequestHandler

def app(environ, start_response): return []
def post_fork(worker): pass

class Server(forkserver.WSGIServer):
    def server_bind(self): pass

class Handler(BaseHTTPRequestHandler): pass
"""


@pytest.fixture(autouse=True)
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with the module ``loaded_site``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "loaded_site.py").write_text(SITE)
    yield
    sys.modules.pop("loaded_site", None)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ErrorLog]:
    with opened_log(tmp_path / "log") as made:
        yield made


def test_the_application_its_classes_and_hooks_come_together(log: ErrorLog) -> None:
    code = loader.load(defaults(app="loaded_site:app", hooks="loaded_site"), log)
    assert code.app({}, None) == []
    assert (code.server_class, code.handler_class) == (WorkerServer, NoHandler)
    assert "post_fork" in code.hooks
    assert Path(log.target).read_text() == ""


def test_a_method_of_a_server_class_that_is_not_called_is_warned_about(log: ErrorLog) -> None:
    """The master has bound the listeners long before."""
    code = loader.load(defaults(app="loaded_site:app", server_class="loaded_site:Server"), log)
    assert code.server_class.__name__ == "Server"
    assert "warning" in Path(log.target).read_text()
    assert "loaded_site:Server.server_bind is not called here" in Path(log.target).read_text()


def test_without_an_application_the_way_out_is_told(log: ErrorLog) -> None:
    with pytest.raises(ConfigError, match="no application given; name it as MODULE:APP"):
        loader.load(defaults(), log)


@pytest.mark.parametrize(
    ("error", "report"),
    [
        (LoadError("why", "its traceback"), LoadFailed(LoadError.exit_status, "why", "its traceback")),
        (ConfigError("why"), LoadFailed(ConfigError.exit_status, "why", "")),
    ],
)
def test_an_error_with_a_sentence_of_its_own_is_reported_by_that(error: Exception, report: LoadFailed) -> None:
    assert loader.load_failed(error) == report


def test_any_other_error_is_reported_with_its_traceback() -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        report = loader.load_failed(error)
    assert (report.exit_status, report.message) == (1, "cannot load: division by zero")
    assert "in test_any_other_error" in report.traceback


@pytest.mark.parametrize(
    ("changes", "below"), [({}, False), ({"root_path": "/site"}, True), ({"forwarded_fields": ["script_name"]}, True)]
)
def test_an_application_is_mounted_where_a_path_is_named(changes: dict[str, Any], below: bool) -> None:
    """By the settings, or by a proxy that is trusted to."""

    def app(environ: object, start_response: Callable[..., object]) -> list[bytes]:
        return []

    found = loader.mounted(app, defaults(**changes))
    assert isinstance(found, ScriptName) if below else found is app


@pytest.mark.parametrize("named", [{"server_class": "loaded_site:Server"}, {"handler_class": "loaded_site:Handler"}])
def test_where_one_class_is_named_the_other_is_the_documented_one(named: dict[str, str], log: ErrorLog) -> None:
    code = loader.load(defaults(app="loaded_site:app", **named), log)
    assert issubclass(code.server_class, forkserver.WSGIServer)
    assert issubclass(code.handler_class, BaseHTTPRequestHandler)


_LEAN = """
import sys
from forkserver.config import loading
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.loading import loader

sys.path.insert(0, {site!r})
settings = loading.load(["lean_site:app"], {{}})
loader.preload_modules(settings)
from forkserver.worker.fork_safety import verdict
imported = verdict.Import()
with imported.watched():
    loader.load(settings, ErrorLog("-", "info", "test"))
assert not imported.findings()
print(*sys.modules)
"""
# Each takes a start milliseconds, and a worker memory; most bring others along.
_NOT_NEEDED: Final = {
    *(
        "http.server",
        "http.client",
        "wsgiref.handlers",
        "wsgiref.simple_server",
        "socketserver",
        "email",
        "ssl",
        "html",
    ),
    *("urllib", "platform", "datetime", "uuid", "secrets", "hashlib", "tempfile", "shutil", "string", "inspect", "ast"),
    *("logging", "dataclasses", "queue"),
}


def test_a_worker_loads_nothing_that_serving_does_not_need(tmp_path: Path) -> None:
    """What the application imports itself is its own matter."""
    (tmp_path / "lean_site.py").write_text("def app(environ, start_response): return []")
    code = f"import sys; sys.path[:] = {sys.path!r}; {_LEAN.format(site=str(tmp_path)).lstrip()}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert _NOT_NEEDED.isdisjoint(done.stdout.split())


def test_what_the_settings_ask_for_is_loaded_before_the_application(tmp_path: Path) -> None:
    code = f"""import sys; sys.path[:] = {sys.path!r}
from forkserver.config.settings import defaults
from forkserver.worker.loading import loader
loader.preload_modules(defaults(app="x:y", {{}}), shared=False)
print(*sys.modules)
"""
    for named, module in (
        ("certfile=['x']", "forkserver.server.connection.tls_transport"),
        ("handler_class='x:Y'", "forkserver.server.wsgi_server"),
        ("threads=2", "forkserver.server.threads.thread_pool"),
    ):
        command = [sys.executable, "-I", "-S", "-c", code.format(named)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert module in done.stdout.split()
