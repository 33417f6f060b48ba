"""The ways to serve: handle_request, serve_forever and shutdown, the context manager; and what may change meanwhile."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any
from wsgiref.simple_server import demo_app

import pytest

from harness import BOUND
from harness.asking import FORKSERVER, PLAIN, WSGIREF, Served, ask, ok
from harness.clients import Wire, get


def test_our_classes_are_the_stdlibs() -> None:
    """isinstance in a user's code must go on holding."""
    assert issubclass(FORKSERVER.WSGIServer, WSGIREF.WSGIServer)
    assert issubclass(FORKSERVER.WSGIRequestHandler, WSGIREF.WSGIRequestHandler)
    assert issubclass(FORKSERVER.BindError, OSError)
    assert FORKSERVER.demo_app is demo_app


def test_a_server_has_its_documented_attributes(library: ModuleType, make: Callable[..., Any]) -> None:
    httpd = make()
    assert httpd.server_address == httpd.socket.getsockname()
    assert httpd.server_port == httpd.server_address[1]
    assert httpd.server_name == socket.getfqdn("127.0.0.1")
    assert httpd.fileno() == httpd.socket.fileno()
    assert httpd.RequestHandlerClass is library.WSGIRequestHandler
    assert (httpd.address_family, httpd.socket_type) == (socket.AF_INET, socket.SOCK_STREAM)
    assert (httpd.timeout, httpd.allow_reuse_address) == (None, 1)
    assert (httpd.get_app(), httpd.application) == (ok, ok)
    names = {"SERVER_NAME", "GATEWAY_INTERFACE", "SERVER_PORT", "REMOTE_HOST", "CONTENT_LENGTH", "SCRIPT_NAME"}
    assert set(httpd.base_environ) == names
    assert httpd.base_environ["SERVER_PORT"] == str(httpd.server_port)


def test_setup_environ_may_be_overridden(library: ModuleType, make: Callable[..., Any]) -> None:
    kept: dict[str, Any] = {}

    class Server(library.WSGIServer):
        def setup_environ(self) -> None:
            super().setup_environ()
            self.base_environ["HTTPS"] = "on"

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        kept.update(environ)
        return ok(environ, start_response)

    assert ask(make(app, server=Server)).text == "ok"
    assert (kept["HTTPS"], kept["wsgi.url_scheme"]) == ("on", "https")


def test_binding_may_wait(library: ModuleType) -> None:
    """bind_and_activate=False, then server_bind and server_activate: as the page on socketserver has it."""
    with library.WSGIServer(("127.0.0.1", 0), library.WSGIRequestHandler, bind_and_activate=False) as httpd:
        httpd.server_bind()
        httpd.server_activate()
        httpd.set_app(ok)
        assert ask(httpd).text == "ok"


def test_handle_request_serves_what_select_announces(make: Callable[..., Any]) -> None:
    """fileno is the listener's: a program with a loop of its own asks it, then calls handle_request."""
    httpd = make()
    with Wire(httpd.server_address) as wire:
        assert select.select([httpd], [], [], BOUND)[0] == [httpd]
        wire.ask()
        httpd.handle_request()
        assert wire.answer().text == "ok"
        assert wire.ended()
    assert select.select([httpd], [], [], 0)[0] == []


def test_handle_request_returns_when_the_client_has_gone(make: Callable[..., Any]) -> None:
    httpd = make()
    Wire(httpd.server_address).close()
    httpd.handle_request()
    assert ask(httpd).text == "ok"


def test_a_large_answer_has_reached_the_kernel_when_handle_request_returns(make: Callable[..., Any]) -> None:
    """The script may end then, or close everything: the client gets all."""
    size = 8 * 1024 * 1024

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", str(size))])
        return [bytes(size)]

    httpd = make(app)
    with Wire(httpd.server_address) as wire:
        wire.ask()
        serving = threading.Thread(target=lambda: (httpd.handle_request(), httpd.server_close()))
        serving.start()
        wire.head()
        assert wire.count(size) == size
        serving.join(BOUND)
        assert not serving.is_alive()


def test_serve_forever_may_end_and_begin_again(make: Callable[..., Any]) -> None:
    httpd = make()
    for _ in range(2):
        served = Served(httpd)
        assert [get(served.address).text for _ in range(3)] == ["ok"] * 3
        served.stop()
    assert ask(httpd).text == "ok"


def test_shutdown_before_serve_forever_has_begun_waits_for_it(make: Callable[..., Any]) -> None:
    """A thread that has not got as far must not begin to serve afterwards, on a listener that may be closed by then."""
    for _ in range(50):
        httpd = make()
        with Served(httpd):
            httpd.shutdown()


def test_shutdown_lets_the_answer_in_hand_reach_its_client(make: Callable[..., Any]) -> None:
    """With a client that reads late. What idles is closed: no client would hear it."""
    size = 8 * 1024 * 1024
    called, may_go_on = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/idle":
            return ok(environ, start_response)
        called.set()
        assert may_go_on.wait(BOUND)
        start_response("200 OK", [*PLAIN, ("Content-Length", str(size))])
        return [bytes(size)]

    served = Served(make(app))
    with Wire(served.address) as idle, Wire(served.address) as reading:
        assert idle.get("/idle").text == "ok"
        reading.ask()
        assert called.wait(BOUND)
        stopping = threading.Thread(target=served.stop)
        stopping.start()
        may_go_on.set()
        reading.head()
        assert reading.count(size) == size
        stopping.join(BOUND)
        assert not stopping.is_alive()
        assert idle.ended()
    served.httpd.server_close()


def test_changes_show_on_the_next_request_of_a_connection() -> None:
    """set_app, base_environ changed and replaced: also where the client keeps its connection."""

    def named(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [*PLAIN])
        return [environ.get("site.name", "no name").encode()]

    httpd = FORKSERVER.make_server("127.0.0.1", 0, ok)
    with Served(httpd) as served, Wire(served.address) as wire:
        assert wire.get().text == "ok"
        httpd.set_app(named)
        assert wire.get().text == "no name"
        httpd.base_environ["site.name"] = "one"
        assert wire.get().text == "one"
        httpd.base_environ = {**httpd.base_environ, "site.name": "two"}
        assert wire.get().text == "two"
        del httpd.base_environ["site.name"]
        assert wire.get().text == "no name"


def test_the_context_manager_closes_the_listener(library: ModuleType) -> None:
    with library.make_server("127.0.0.1", 0, ok) as httpd:
        address = httpd.server_address
    assert httpd.fileno() == -1
    with pytest.raises(ConnectionRefusedError):
        Wire(address)
    httpd.server_close()


def test_requests_of_several_threads_calling_handle_request_are_all_answered(make: Callable[..., Any]) -> None:
    """An old pattern: each thread of a few calls it in a loop."""
    httpd = make()
    httpd.timeout = BOUND
    threads = [threading.Thread(target=httpd.handle_request) for _ in range(4)]
    wires = [Wire(httpd.server_address) for _ in threads]
    for wire in wires:
        wire.ask(headers="Connection: close\r\n")
    for thread in threads:
        thread.start()
    answered = [wire.answer().text for wire in wires]
    for thread, wire in zip(threads, wires, strict=True):
        thread.join(BOUND)
        wire.close()
    assert answered == ["ok"] * 4
    assert not any(thread.is_alive() for thread in threads)


def test_a_refusal_ends_the_connection_and_not_the_server(make: Callable[..., Any]) -> None:
    httpd = make()
    with Served(httpd) as served:
        for _ in range(2):
            with Wire(served.address) as wire:
                wire.send(b"nonsense and more of it\r\n\r\n")
                wire.ended()
        assert get(served.address).text == "ok"
