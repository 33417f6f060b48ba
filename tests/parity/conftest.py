"""Both libraries, asked the same: a test with ``library`` runs with wsgiref and with forkserver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from harness.asking import FORKSERVER, WSGIREF, ok


@pytest.fixture(params=(WSGIREF, FORKSERVER), ids=("wsgiref", "forkserver"))
def library(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
def make(library: ModuleType) -> Iterator[Callable[..., Any]]:
    """``make_server`` of the library on a free port of loopback; what it makes is closed at the end."""
    made: list[Any] = []

    def make_server(app: Any = ok, server: Any = None, handler: Any = None, host: str = "127.0.0.1") -> Any:
        classes = server or library.WSGIServer, handler or library.WSGIRequestHandler
        made.append(library.make_server(host, 0, app, *classes))
        return made[-1]

    yield make_server
    for httpd in made:
        httpd.server_close()
