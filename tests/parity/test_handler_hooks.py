"""Each documented method and attribute of the handler class, overridden: called alike, and seeing the request alike."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from harness.asking import FORKSERVER, WSGIREF, Served, ask, ok
from harness.clients import Wire, request

ASKED = request("/a%20b?c=d", method="POST", headers="X-Name: a name\r\n", body=b"body")
REFUSED = request(headers="X-One: more\r\n" * 100)  # both take a hundred fields, and Host makes one more
# What pages on http.server and socketserver document of an instance.
ATTRIBUTES = ("command", "path", "requestline", "raw_requestline", "request_version")


def seen_by(handler: Any) -> dict[str, Any]:
    """The documented attributes, as a hook sees them."""
    seen = {name: getattr(handler, name) for name in ATTRIBUTES}
    seen |= {"X-Name": handler.headers["x-name"], "types": handler.headers.get_content_type()}
    seen |= {"peer": handler.client_address[0], "port": type(handler.client_address[1])}
    seen |= {"connected": handler.connection is handler.request, "base": handler.server.base_environ["SCRIPT_NAME"]}
    seen |= {"rfile": hasattr(handler.rfile, "read"), "wfile": hasattr(handler.wfile, "write")}
    return seen


EXPECTED = {
    "command": "POST",
    "path": "/a%20b?c=d",
    "requestline": "POST /a%20b?c=d HTTP/1.1",
    "raw_requestline": b"POST /a%20b?c=d HTTP/1.1\r\n",
    "request_version": "HTTP/1.1",
    "X-Name": "a name",
    "types": "text/plain",
    "peer": "127.0.0.1",
    "port": int,
    "connected": True,
    "base": "",
    "rfile": True,
    "wfile": True,
}
CALLED = (
    "get_environ", "get_stderr", "address_string", "log_request", "log_message", "log_date_time_string",
    # From here on for a blocking handler alone.
    "parse_request", "handle",
)  # fmt: skip


@pytest.mark.parametrize("name", CALLED)
def test_a_hook_sees_the_documented_attributes(library: ModuleType, make: Callable[..., Any], name: str) -> None:
    """A subclass of the stdlib's handler is moved over as it is."""
    seen: list[dict[str, Any]] = []
    base = getattr(library.WSGIRequestHandler, name)

    def hook(self: Any, *arguments: Any) -> Any:
        result = base(self, *arguments)
        seen.append(seen_by(self))
        return result

    answer = ask(make(handler=type("Handler", (library.WSGIRequestHandler,), {name: hook})), ASKED)
    assert answer.status == 200
    assert seen[-1] == EXPECTED


def test_what_get_environ_returns_is_what_the_application_gets(library: ModuleType, make: Callable[..., Any]) -> None:
    """Its every key: a prefix moved to SCRIPT_NAME, a host set right, a user added."""
    changes = {"SCRIPT_NAME": "/app", "PATH_INFO": "/x", "QUERY_STRING": "q", "REQUEST_METHOD": "PUT"}
    changes |= {
        "HTTP_HOST": "right.example",
        "REMOTE_USER": "somebody",
        "SERVER_NAME": "s",
        "SERVER_PROTOCOL": "HTTP/1.0",
    }
    kept: dict[str, Any] = {}

    class Handler(library.WSGIRequestHandler):
        def get_environ(self) -> dict[str, Any]:
            return super().get_environ() | changes

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        kept.update(environ)
        return ok(environ, start_response)

    assert ask(make(app, handler=Handler)).status == 200
    assert {key: kept[key] for key in changes} == changes


def test_what_an_override_sets_on_the_handler_is_what_the_environ_says(
    library: ModuleType, make: Callable[..., Any]
) -> None:
    """get_environ documents the attributes as its source, so a changed path or field is the one that counts."""
    kept: dict[str, Any] = {}

    class Handler(library.WSGIRequestHandler):
        def get_environ(self) -> dict[str, Any]:
            self.path = self.path.removeprefix("/mounted")
            self.headers["X-User"] = "somebody"
            del self.headers["X-Name"]
            return super().get_environ()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        kept.update(environ)
        return ok(environ, start_response)

    assert ask(make(app, handler=Handler), request("/mounted/here?x", headers="X-Name: a\r\n")).status == 200
    assert (kept["PATH_INFO"], kept["QUERY_STRING"]) == ("/here", "x")
    assert kept["HTTP_X_USER"] == "somebody"
    assert "HTTP_X_NAME" not in kept


def test_get_environ_is_a_new_dict_each_time(library: ModuleType, make: Callable[..., Any]) -> None:
    twice: list[dict[str, Any]] = []

    class Handler(library.WSGIRequestHandler):
        def get_environ(self) -> dict[str, Any]:
            twice.extend((super().get_environ(), super().get_environ()))
            return twice[0]

    ask(make(handler=Handler))
    assert twice[0] is not twice[1]
    twice[1]["changed"] = True
    assert "changed" not in twice[0]


def test_address_string_becomes_remote_host(library: ModuleType, make: Callable[..., Any]) -> None:
    kept: dict[str, Any] = {}

    class Handler(library.WSGIRequestHandler):
        def address_string(self) -> str:
            return f"name-of-{self.client_address[0]}"

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        kept.update(environ)
        return ok(environ, start_response)

    ask(make(app, handler=Handler))
    dropped = library is WSGIREF and sys.version_info >= (3, 13)  # which the page lists
    assert kept["REMOTE_HOST"] == ("" if dropped else "name-of-127.0.0.1")
    assert kept["REMOTE_ADDR"] == "127.0.0.1"


def test_get_stderr_is_wsgi_errors_and_hears_of_faults(
    library: ModuleType, make: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that redirects errors there has tracebacks there."""
    stream = io.StringIO()

    class Handler(library.WSGIRequestHandler):
        def get_stderr(self) -> Any:
            return stream

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.errors"].write("said by the application\n")
        raise LookupError("raised by the application")

    assert ask(make(app, handler=Handler)).status == 500
    assert "said by the application\n" in stream.getvalue()
    assert "LookupError: raised by the application" in stream.getvalue()
    assert "LookupError" not in capsys.readouterr().err


def test_a_script_logs_each_request_on_stderr(make: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    """As the page on http.server says of log_message; a person at a script's terminal looks for it."""
    ask(make(), request("/a?b"))
    line = r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d\] "GET /a\?b HTTP/1\.1" 200 2\n'
    assert re.fullmatch(line, capsys.readouterr().err)


def test_a_script_logs_each_request_of_a_kept_connection_as_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """A log that shows a connection's first request again for each later one hides what was asked, refusals too."""
    with Served(FORKSERVER.make_server("127.0.0.1", 0, ok)) as served, Wire(served.address) as wire:
        assert [wire.get(target).status for target in ("/one", "/two")] == [200, 200]
        wire.send(b"GET /three HTTP/1.1\r\nHost: a b\r\n\r\n")
        assert wire.answer().status == 400
    logged = re.findall(r'"GET (\S+) HTTP/1\.1" (\d+)', capsys.readouterr().err)
    assert logged == [("/one", "200"), ("/two", "200"), ("/three", "400")]


def test_log_hooks_get_the_same_arguments(library: ModuleType, make: Callable[..., Any]) -> None:
    said: list[tuple[Any, ...]] = []

    class Handler(library.WSGIRequestHandler):
        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            said.append(("log_request", code, size))
            super().log_request(code, size)

        def log_message(self, format: str, *args: Any) -> None:
            said.append(("log_message", format, *args))

    httpd = make(handler=Handler)
    ask(httpd)
    assert said == [("log_request", "200", 2), ("log_message", '"%s" %s %s', "GET / HTTP/1.1", "200", "2")]
    said.clear()
    assert ask(httpd, REFUSED).status == 431
    assert [entry[0] for entry in said] == ["log_message", "log_request", "log_message"]
    assert said[0][1:3] == ("code %d, message %s", 431)
    assert said[2][2:4] == ("GET / HTTP/1.1", "431")


def test_log_error_hears_of_refused_requests(library: ModuleType, make: Callable[..., Any]) -> None:
    said: list[str] = []

    class Handler(library.WSGIRequestHandler):
        def log_error(self, format: str, *args: Any) -> None:
            said.append(format % args)

    ask(make(handler=Handler), REFUSED)
    assert len(said) == 1
    assert said[0].startswith("code 431, message ")


@pytest.mark.parametrize("how", ["attribute", "method"])
def test_the_version_names_the_server_of_a_refusal(library: ModuleType, make: Callable[..., Any], how: str) -> None:
    if how == "attribute":
        own = {"server_version": "Mine/1", "sys_version": "on Python"}
    else:
        own = {"version_string": lambda self: "Mine/1 on " + type(self).__name__}
    handler = type("Python", (library.WSGIRequestHandler,), own)
    assert ask(make(handler=handler), REFUSED).headers["Server"] == "Mine/1 on Python"


def test_the_version_may_depend_on_the_request() -> None:
    """The hook is called where it is documented, with the request there. wsgiref's Server is constant; see the page."""

    class Handler(FORKSERVER.WSGIRequestHandler):
        def version_string(self) -> str:
            return f"Mine{self.path} for {self.headers['X-Name']}"

    with FORKSERVER.make_server("127.0.0.1", 0, ok, handler_class=Handler) as httpd:
        answer = ask(httpd, request("/1", headers="X-Name: a\r\n"))
    assert answer.headers["Server"] == "Mine/1 for a"


def test_error_attributes_shape_a_refusal(library: ModuleType, make: Callable[..., Any]) -> None:
    class Handler(library.WSGIRequestHandler):
        error_message_format = "sorry: %(code)d %(message)s"
        error_content_type = "text/x-sorry"

    answer = ask(make(handler=Handler), REFUSED)
    assert answer.status == 431
    assert answer.headers["Content-Type"] == "text/x-sorry"
    assert answer.text.startswith("sorry: 431 ")
    assert answer.headers["Content-Length"] == str(len(answer.body))


@pytest.mark.parametrize("name", ["get_environ", "get_stderr"])
def test_an_exception_in_a_hook_is_for_handle_error(library: ModuleType, make: Callable[..., Any], name: str) -> None:
    """It costs that connection; the server goes on."""
    told: list[Any] = []

    def hook(self: Any) -> None:
        if self.path == "/fail":
            raise LookupError("in a hook")
        return getattr(library.WSGIRequestHandler, name)(self)

    class Server(library.WSGIServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            told.append(client_address[0])

    httpd = make(server=Server, handler=type("Handler", (library.WSGIRequestHandler,), {name: hook}))
    with pytest.raises(ConnectionResetError):
        ask(httpd, request("/fail"))
    assert told == ["127.0.0.1"]
    assert ask(httpd).status == 200


def test_hooks_are_called_for_every_request_of_a_connection() -> None:
    """A kept-alive connection is many requests, each with a handler of its own."""
    paths: list[str] = []
    handlers: set[int] = set()

    class Handler(FORKSERVER.WSGIRequestHandler):
        def get_environ(self) -> dict[str, Any]:
            handlers.add(id(self))
            self.mine = vars(self).get("mine", 0) + 1
            paths.append(f"{self.path} {self.headers['X-Name']} {self.mine}")
            return super().get_environ()

        def log_message(self, format: str, *args: Any) -> None:
            paths.append(self.path)

    httpd = FORKSERVER.make_server("127.0.0.1", 0, ok, handler_class=Handler)
    with Served(httpd) as served, Wire(served.address) as wire:
        for number in range(3):
            assert wire.get(f"/{number}", headers=f"X-Name: {number}\r\n").text == "ok"
    assert paths == ["/0 0 1", "/0", "/1 1 1", "/1", "/2 2 1", "/2"]


def test_attributes_that_repeat_the_default_do_not_cost_the_fast_way() -> None:
    """protocol_version = "HTTP/1.1" is what many write for keep-alive; it must not take keep-alive away."""

    class Handler(FORKSERVER.WSGIRequestHandler):
        protocol_version = "".join(("HTTP/", "1.1"))
        own_attribute = 1

        def own_method(self) -> None:
            raise AssertionError("it is not called")

    httpd = FORKSERVER.make_server("127.0.0.1", 0, ok, handler_class=Handler)
    with Served(httpd) as served, Wire(served.address) as wire:
        assert [wire.get().text for _ in range(2)] == ["ok", "ok"]


def test_a_handler_that_changes_the_path_lets_no_field_be_forged() -> None:
    """The environ is made anew then; a field with an underscore would pass for one that a proxy guards."""
    seen: dict[str, Any] = {}

    class Rewriting(FORKSERVER.WSGIRequestHandler):  # type: ignore[name-defined, misc]
        def get_environ(self) -> dict[str, Any]:
            self.path = "/rewritten"
            self.headers["X-Own"] = "the handler's"
            return dict(super().get_environ())

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        return ok(environ, start_response)

    forged = "X_Forwarded_For: 6.6.6.6\r\nX_User: root\r\nProxy: evil\r\nX-User: a\r\n"
    with FORKSERVER.make_server("127.0.0.1", 0, app, handler_class=Rewriting) as httpd:
        assert ask(httpd, request(headers=forged)).text == "ok"
    assert (seen["PATH_INFO"], seen["HTTP_X_OWN"], seen["HTTP_X_USER"]) == ("/rewritten", "the handler's", "a")
    assert not {"HTTP_X_FORWARDED_FOR", "HTTP_PROXY"} & set(seen)
