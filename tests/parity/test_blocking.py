"""Classes that need a blocking socket get one: overrides of handle and its like, other handlers, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn
from types import ModuleType
from typing import Any
from wsgiref import simple_server
from wsgiref.validate import validator

import pytest

from forkserver.server.buffers.spool import Spool
from forkserver.server.context import context_of
from harness import BOUND
from harness.asking import FORKSERVER, PLAIN, Served, ask, ok
from harness.clients import Wire, request

POST = request("/form", method="POST", body=b"a body")


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [*PLAIN])
    return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))]


@pytest.mark.parametrize(
    "name", ["setup", "handle", "finish", "parse_request", "send_error", "end_headers", "__init__"]
)
def test_an_override_that_needs_the_socket_is_called_with_it(
    library: ModuleType, make: Callable[..., Any], name: str
) -> None:
    """Our handle is whole: an override may do something first and leave the rest to it."""
    called: list[str] = []
    base = getattr(library.WSGIRequestHandler, name)

    def hook(self: Any, *arguments: Any) -> Any:
        called.append(name)
        assert name == "__init__" or self.request.getpeername() == self.client_address
        return base(self, *arguments)

    httpd = make(validator(echo), handler=type("Handler", (library.WSGIRequestHandler,), {name: hook}))
    assert ask(httpd, POST).text == "a body"
    refused = ask(httpd, request(headers="X-One: more\r\n" * 100))
    assert refused.status == 431
    assert set(called) == {name}


def test_the_timeout_of_a_handler_class_holds(library: ModuleType, make: Callable[..., Any]) -> None:
    """The page on socketserver: StreamRequestHandler.timeout is set on the connection."""
    seen: list[float | None] = []

    class Handler(library.WSGIRequestHandler):
        timeout = 7.5

        def get_environ(self) -> dict[str, Any]:
            seen.append(self.connection.gettimeout())
            return super().get_environ()

    assert ask(make(handler=Handler)).text == "ok"
    assert seen == [7.5]


def test_a_handle_written_out_as_in_the_stdlib_works(library: ModuleType, make: Callable[..., Any]) -> None:
    """Frameworks copy handle to run a handler of their own: what parse_request and get_environ promise must do."""

    class Handler(library.WSGIRequestHandler):
        def handle(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.parse_request():
                return
            handler = simple_server.ServerHandler(self.rfile, self.wfile, self.get_stderr(), self.get_environ())
            handler.request_handler = self
            handler.run(self.server.get_app())

    assert ask(make(echo, handler=Handler), POST).text == "a body"


def test_a_handle_that_loops_keeps_the_connection() -> None:
    """close_connection says after parse_request what the client wants, as the page on http.server has it."""

    class Handler(FORKSERVER.WSGIRequestHandler):
        def handle(self) -> None:
            self.close_connection = False
            while not self.close_connection:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(self.path)))
                self.end_headers()
                self.wfile.write(self.path.encode())

    httpd = FORKSERVER.make_server("127.0.0.1", 0, ok, handler_class=Handler)
    with Served(httpd) as served, Wire(served.address) as wire:
        assert [wire.get(path).text for path in ("/1", "/2")] == ["/1", "/2"]
        assert wire.get("/3", headers="Connection: close\r\n").text == "/3"
        assert wire.ended()


@pytest.mark.parametrize("status", [200, 204, 500])
def test_an_answer_of_a_blocking_handler_that_ends_the_connection_says_so(status: int) -> None:
    """In HTTP/1.1, which the status line says, it would be taken for kept (RFC 9112 section 9.6)."""

    class Writing(FORKSERVER.WSGIRequestHandler):
        def handle(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            self.parse_request()
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if self.path == "/said":
                self.send_header("connection", "close")
            self.end_headers()

    class Whole(FORKSERVER.WSGIRequestHandler):
        def setup(self) -> None:
            super().setup()

    def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if status == 500:
            raise LookupError
        start_response(f"{status} Some", [])
        return []

    for handler in (Writing, Whole):
        with FORKSERVER.make_server("127.0.0.1", 0, app, handler_class=handler) as httpd:
            for path in ("/", "/said"):
                answer = ask(httpd, f"GET {path} HTTP/1.0\r\n\r\n".encode())
                assert (answer.version, answer.status) == ("HTTP/1.1", status)
                assert answer.headers.get_all("Connection") == ["close"]


@pytest.mark.parametrize(("length", "status"), [(1 << 40, 413), (8 << 20, 503)], ids=["too large", "no room"])
def test_an_upload_that_a_blocking_handler_refuses_is_read_to_its_end(length: int, status: int) -> None:
    """A reset would overtake the answer."""

    class Handler(FORKSERVER.WSGIRequestHandler):
        def setup(self) -> None:
            super().setup()

    size = 4 << 20
    httpd = FORKSERVER.make_server("127.0.0.1", 0, ok, handler_class=Handler)
    object.__setattr__(context_of(httpd), "spool", Spool("/nowhere", 0))
    head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode()
    with Served(httpd) as served, Wire(served.address) as wire:
        wire.send(head)
        wire.send(bytes(size))
        assert wire.answer().status == status
        assert wire.ended()


@pytest.mark.parametrize("size", [1, 64 << 20], ids=["a fault", "a client that takes nothing"])
def test_an_answer_of_a_blocking_handler_that_breaks_off_ends_by_a_reset(size: int) -> None:
    """In HTTP/1.0 an orderly end would make it pass for the whole."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [*PLAIN])
        yield b"x" * size
        raise RuntimeError("no more")

    class Handler(FORKSERVER.WSGIRequestHandler):
        timeout = 0.2

        def handle(self) -> None:
            super().handle()

    def read(wire: Wire) -> None:
        while wire.socket.recv(1024):
            pass

    httpd = FORKSERVER.make_server("127.0.0.1", 0, app, handler_class=Handler)
    with httpd, Wire(httpd.server_address) as wire:
        wire.send(b"GET / HTTP/1.0\r\n\r\n")
        httpd.handle_request()
        with pytest.raises(ConnectionResetError):
            read(wire)


def test_an_interim_answer_says_nothing_of_the_end() -> None:
    class Handler(FORKSERVER.WSGIRequestHandler):
        def setup(self) -> None:
            super().setup()

    made = FORKSERVER.make_server("127.0.0.1", 0, echo, handler_class=Handler)
    with made as httpd, Wire(httpd.server_address) as wire:
        headers = "Expect: 100-continue\r\nConnection: close\r\n"
        wire.send(request("/", method="POST", headers=headers, body=b"x"))
        httpd.handle_request()
        interim = wire.head()
        assert (interim.status, interim.headers.get("Connection")) == (100, None)
        assert wire.answer().headers["Connection"] == "close"


def test_expect_100_is_heard_where_the_page_says(make: Callable[..., Any]) -> None:
    """handle_expect_100 may refuse a body before it is sent."""

    class Handler(FORKSERVER.WSGIRequestHandler):
        def handle_expect_100(self) -> bool:
            if self.path != "/large":
                return super().handle_expect_100()
            self.send_error(417)
            return False

    expecting = "Expect: 100-continue\r\n"
    with FORKSERVER.make_server("127.0.0.1", 0, echo, handler_class=Handler) as httpd:
        assert ask(httpd, request("/large", method="POST", headers=expecting, body=b"x")).status == 417
        with Wire(httpd.server_address) as wire:
            wire.send(request("/small", method="POST", headers=expecting, body=b"x"))
            httpd.handle_request()
            assert wire.head()[:2] == ("HTTP/1.1", 100)
            assert wire.answer().text == "x"


def test_the_stdlibs_own_handler_serves(make: Callable[..., Any], library: ModuleType) -> None:
    httpd = make(echo, handler=simple_server.WSGIRequestHandler)
    answer = ask(httpd, POST)
    assert (answer.version, answer.text) == ("HTTP/1.0", "a body")


def test_the_stdlibs_own_server_takes_our_handler() -> None:
    """make_server's handler_class is ours where a server class written for wsgiref is given alone."""

    class Server(ThreadingMixIn, simple_server.WSGIServer):
        pass

    with FORKSERVER.make_server("127.0.0.1", 0, validator(echo), server_class=Server) as httpd:
        assert ask(httpd, POST).text == "a body"
        assert ask(httpd, b"nonsense\r\n\r\n").status == 400


def test_a_head_without_an_end_is_served_when_the_connection_ends(make: Callable[..., Any]) -> None:
    """The stdlib's handlers take what `printf 'GET / HTTP/1.0\\n' | nc` sends."""
    httpd = make(handler=simple_server.WSGIRequestHandler)
    with Wire(httpd.server_address) as wire:
        wire.send(b"GET / HTTP/1.0\n")
        wire.socket.shutdown(1)
        httpd.handle_request()
        assert wire.answer().text == "ok"


def test_a_factory_and_any_other_handler_are_called_with_request_address_and_server(make: Callable[..., Any]) -> None:
    calls: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            calls.append(format % args)

    def factory(request: Any, client_address: Any, server: Any) -> Any:
        calls.append((client_address[0], server))
        return Handler(request, client_address, server)

    httpd = make(handler=factory)
    assert ask(httpd).status == 200
    assert calls[0] == ("127.0.0.1", httpd)


@pytest.mark.parametrize("daemon", [True, False])
def test_threads_answer_at_once_and_server_close_waits_for_them(
    library: ModuleType, make: Callable[..., Any], daemon: bool
) -> None:
    """Each application call waits for the other: one thread could answer neither."""
    meeting, may_end = threading.Barrier(2), threading.Event()
    before = set(threading.enumerate())

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        meeting.wait(BOUND)
        assert may_end.wait(BOUND)
        return ok(environ, start_response)

    class Server(ThreadingMixIn, library.WSGIServer):
        daemon_threads = daemon

    httpd = make(app, server=Server)
    with Wire(httpd.server_address) as first, Wire(httpd.server_address) as second:
        for wire in (first, second):
            wire.ask()
            httpd.handle_request()
        closer = threading.Thread(target=httpd.server_close)
        closer.start()
        if daemon:
            closer.join(BOUND)
            assert not closer.is_alive()
        may_end.set()
        assert [wire.answer().text for wire in (first, second)] == ["ok", "ok"], "their sockets are theirs"
        closer.join(BOUND)
        assert not closer.is_alive()
    for thread in set(threading.enumerate()) - before:
        thread.join(BOUND)


def test_threads_are_told_to_the_application() -> None:
    """wsgi.multithread: PEP 3333 wants the truth; wsgiref always says no, which the page lists."""
    told: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        told.append((environ["wsgi.multithread"], environ["wsgi.multiprocess"]))
        return ok(environ, start_response)

    for bases in ((FORKSERVER.WSGIServer,), (ThreadingMixIn, FORKSERVER.WSGIServer)):
        with FORKSERVER.make_server("127.0.0.1", 0, app, server_class=type("Server", bases, {})) as httpd:
            assert ask(httpd).text == "ok"
    assert told == [(False, False), (True, False)]
