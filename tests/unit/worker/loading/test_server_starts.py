"""Servers that an application starts while it is imported."""

from __future__ import annotations

import importlib
import os
import socketserver
import sys
import threading
from pathlib import Path

import pytest

from forkserver.worker.loading import server_starts


class Served(socketserver.BaseServer):
    """It serves nothing, and returns."""

    def __init__(self) -> None:
        super().__init__(("", 0), socketserver.BaseRequestHandler)
        self.shutdown_was_asked = 0

    def fileno(self) -> int:
        self._BaseServer__shutdown_request = True  # so that serve_forever ends at once
        self.shutdown_was_asked += 1
        return self._pipe[0]

    def __enter__(self) -> Served:
        self._pipe = os.pipe()
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._pipe:
            os.close(number)


def test_a_server_in_the_thread_of_the_import_is_refused() -> None:
    refusal = r"socketserver's serve_forever would start a server here.*__main__"
    with Served() as served, server_starts.refused(), pytest.raises(RuntimeError, match=refusal):
        served.serve_forever()
    assert served.shutdown_was_asked == 0


def test_a_server_in_another_thread_runs() -> None:
    """Libraries serve figures, or a debugger, so."""
    with Served() as served, server_starts.refused():
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        thread.join()
    assert served.shutdown_was_asked == 1


def test_after_the_import_each_function_is_what_it_was() -> None:
    before = socketserver.BaseServer.serve_forever
    with server_starts.refused():
        kept = socketserver.BaseServer.serve_forever
        assert kept is not before
    assert socketserver.BaseServer.serve_forever is before
    with Served() as served:
        kept(served, 0.01)
    assert served.shutdown_was_asked == 1, "what the application has kept of it serves, too"


def test_a_module_that_the_import_loads_is_watched_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "waitress", raising=False)
    (tmp_path / "waitress.py").write_text("def serve(app): return 'served'\n")
    with server_starts.refused():
        waitress = importlib.import_module("waitress")
        with pytest.raises(RuntimeError, match="waitress's serve would start a server here"):
            waitress.serve(None)
    assert waitress.serve(None) == "served"
    monkeypatch.delitem(sys.modules, "waitress")
