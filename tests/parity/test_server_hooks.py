"""Each documented method of the server class, overridden: called alike, in the same order, with the same arguments."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from harness import BOUND
from harness.asking import FORKSERVER, Served, ask, ok, refuse
from harness.clients import Wire, request

STEPS = ("get_request", "verify_request", "process_request", "finish_request", "shutdown_request", "close_request")


def noting(library: ModuleType, names: tuple[str, ...], calls: list[tuple[Any, ...]]) -> Any:
    """A server class that notes the calls of ``names`` with their arguments, and does what the library does."""

    def hook(name: str) -> Any:
        base = getattr(library.WSGIServer, name)

        def method(self: Any, *arguments: Any) -> Any:
            calls.append((name, *arguments))
            return base(self, *arguments)

        return method

    return type("Server", (library.WSGIServer,), {name: hook(name) for name in names})


@pytest.mark.parametrize("named", [STEPS, *((name,) for name in STEPS)], ids=lambda names: names[-1] + "-" * len(names))
def test_the_steps_of_a_request_are_called_in_their_order(
    library: ModuleType, make: Callable[..., Any], named: tuple[str, ...]
) -> None:
    """The page on socketserver: each may be overridden alone, or all of them."""
    calls: list[tuple[Any, ...]] = []
    httpd = make(server=noting(library, named, calls))
    assert ask(httpd).text == "ok"
    assert tuple(call[0] for call in calls) == named
    for name, *arguments in calls:
        if name != "get_request":
            assert isinstance(arguments[0], socket.socket)
        if len(arguments) > 1:
            assert arguments[1][0] == "127.0.0.1"
    assert len({id(call[1]) for call in calls if len(call) > 1}) <= 1, "one socket from step to step"
    assert all(call[1].fileno() == -1 for call in calls if len(call) > 1), "and it is closed"


def test_a_request_not_verified_is_shut_down_and_closed(library: ModuleType, make: Callable[..., Any]) -> None:
    calls: list[tuple[Any, ...]] = []
    noted = noting(library, ("process_request", "shutdown_request", "close_request"), calls)
    httpd = make(server=type("Server", (noted,), {"verify_request": lambda self, request, peer: False}))
    assert refuse(httpd)
    assert [call[0] for call in calls] == ["shutdown_request", "close_request"]


def test_get_request_may_change_the_socket_and_the_address(library: ModuleType, make: Callable[..., Any]) -> None:
    """Where a PROXY header is read, or an option set."""
    kept: dict[str, Any] = {}

    class Server(library.WSGIServer):
        def get_request(self) -> tuple[Any, Any]:
            request, _ = super().get_request()
            request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            request.settimeout(BOUND - 1)
            return request, ("192.0.2.1", 7)

        def finish_request(self, request: Any, client_address: Any) -> None:
            kept.update(
                keepalive=request.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), limit=request.gettimeout()
            )
            super().finish_request(request, client_address)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        kept["REMOTE_ADDR"] = environ["REMOTE_ADDR"]
        return ok(environ, start_response)

    assert ask(make(app, server=Server)).text == "ok"
    assert kept == {"keepalive": 1, "limit": BOUND - 1, "REMOTE_ADDR": "192.0.2.1"}


def test_an_oserror_of_get_request_is_passed_over(library: ModuleType, make: Callable[..., Any]) -> None:
    """A client that was gone before it was accepted ends no server."""

    class Server(library.WSGIServer):
        def get_request(self) -> tuple[Any, Any]:
            super().get_request()[0].close()
            raise OSError("gone")

    assert refuse(make(server=Server))


@pytest.mark.parametrize("name", ["process_request", "finish_request"])
def test_an_exception_in_a_step_is_for_handle_error(library: ModuleType, make: Callable[..., Any], name: str) -> None:
    told: list[Any] = []

    def fail(self: Any, *arguments: Any) -> None:
        raise LookupError("in a step")

    def handle_error(self: Any, request: Any, client_address: Any) -> None:
        told.append((type(request), client_address[0], sys.exc_info()[0]))

    httpd = make(server=type("Server", (library.WSGIServer,), {name: fail, "handle_error": handle_error}))
    assert refuse(httpd)
    assert told == [(socket.socket, "127.0.0.1", LookupError)]


def test_an_exception_in_verify_request_ends_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    """In wsgiref it flies out of serve_forever; the page lists it."""

    class Server(FORKSERVER.WSGIServer):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            raise LookupError("in verify_request")

    with FORKSERVER.make_server("127.0.0.1", 0, ok, server_class=Server) as httpd:
        assert refuse(httpd)
        assert refuse(httpd)
    assert capsys.readouterr().err.count("LookupError: in verify_request") == 2


@pytest.mark.parametrize("name", ["get_environ", "handle"])
def test_system_exit_in_a_hook_ends_the_script(library: ModuleType, make: Callable[..., Any], name: str) -> None:
    """As a signal handler raises it, wherever the server is at that moment."""

    def leave(self: Any) -> None:
        sys.exit(3)

    httpd = make(handler=type("Handler", (library.WSGIRequestHandler,), {name: leave}))
    with pytest.raises(SystemExit):
        refuse(httpd)


def test_handle_error_tells_on_stderr(
    library: ModuleType, make: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    class Handler(library.WSGIRequestHandler):
        def get_environ(self) -> dict[str, Any]:
            raise LookupError("in a hook")

    assert refuse(make(handler=Handler))
    told = capsys.readouterr().err
    assert "Exception occurred during processing of request from ('127.0.0.1'" in told
    assert "LookupError: in a hook" in told


@pytest.mark.parametrize("limit", [0.01, 0])
def test_handle_timeout_is_called_when_nobody_comes(
    library: ModuleType, make: Callable[..., Any], limit: float
) -> None:
    calls: list[str] = []
    httpd = make(server=type("Server", (library.WSGIServer,), {"handle_timeout": lambda self: calls.append("timeout")}))
    httpd.timeout = limit
    httpd.handle_request()
    assert calls == ["timeout"]
    httpd.timeout = BOUND
    assert ask(httpd).text == "ok"
    assert calls == ["timeout"]


def test_a_timeout_of_the_listener_bounds_handle_request(library: ModuleType, make: Callable[..., Any]) -> None:
    """The page: "If timeout is None..."; socketserver takes the shorter of the two, each time."""
    calls: list[str] = []
    httpd = make(server=type("Server", (library.WSGIServer,), {"handle_timeout": lambda self: calls.append("timeout")}))
    httpd.socket.settimeout(0.01)
    assert ask(httpd).text == "ok"
    httpd.handle_request()
    httpd.handle_request()
    assert calls == ["timeout", "timeout"]


def test_service_actions_is_called_while_nothing_comes(library: ModuleType, make: Callable[..., Any]) -> None:
    """At every turn of serve_forever, and by handle_request never."""
    called = threading.Semaphore(0)
    httpd = make(server=type("Server", (library.WSGIServer,), {"service_actions": lambda self: called.release()}))
    assert ask(httpd).text == "ok"
    assert not called.acquire(blocking=False)
    with Served(httpd, poll_interval=0.001) as served:
        for _ in range(3):
            assert called.acquire(timeout=BOUND)
        with Wire(served.address) as wire:
            assert wire.get().text == "ok"


def test_get_app_is_asked_for_each_request(library: ModuleType, make: Callable[..., Any]) -> None:
    calls: list[str] = []

    class Server(library.WSGIServer):
        def get_app(self) -> Any:
            calls.append("get_app")
            return super().get_app()

    httpd = make(server=Server)
    assert [ask(httpd).text for _ in range(2)] == ["ok", "ok"]
    assert calls == ["get_app", "get_app"]


def test_names_of_a_subclass_are_its_own() -> None:
    """settings, log, loop: words that a user's server has for things of its own."""

    class Server(FORKSERVER.WSGIServer):
        def __init__(self, *arguments: Any) -> None:
            self.settings = self.log = self.loop = self._loop = self.hooks = self.errors = self.spool = "mine"
            self.memo = self.classic = self.stopped = self.access = self._stopped = self.concurrency = "mine"
            super().__init__(*arguments)

    class Handler(FORKSERVER.WSGIRequestHandler):
        def setup(self) -> None:
            self.head = self.block = self.names = self.errors = self.seen = self.body = "mine"
            super().setup()

    for handler in (FORKSERVER.WSGIRequestHandler, Handler):
        with FORKSERVER.make_server("127.0.0.1", 0, ok, Server, handler) as httpd:
            assert ask(httpd, request(method="POST", body=b"body")).text == "ok"
            assert ask(httpd, b"nonsense\r\n\r\n").status == 400
            assert httpd.settings == httpd.concurrency == "mine"
