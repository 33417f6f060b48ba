"""The environ of the same request, from wsgiref and from forkserver, key by key."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.handlers import BaseHandler
from wsgiref.util import FileWrapper

import pytest

from harness.asking import FORKSERVER, PLAIN, WSGIREF, ask
from harness.clients import request

PAGE = (Path(__file__).parents[2] / "docs" / "differences.md").read_text()
# Keys that only one of them has, each a sentence of docs/differences.md.
OURS_ALONE = {
    "REMOTE_PORT", "REQUEST_URI", "RAW_URI", "wsgi.input_terminated", "forkserver.extend_deadline",
    "forkserver.request_id",
}  # fmt: skip
PROCESS = set(BaseHandler.os_environ)  # as wsgiref saw it when it was imported
# Values that are of the one request or the one library.
OWN = {"SERVER_PORT", "REMOTE_PORT", "SERVER_SOFTWARE", "wsgi.input", "wsgi.errors", "wsgi.file_wrapper"}

REQUESTS = {
    "plain": request("/"),
    "query": request("/a/b?name=value&other=%20x"),
    "empty-query": request("/?"),
    "query-with-question-mark": request("/?a?b"),
    "percent": request("/caf%C3%A9/%20/%25"),
    "encoded-slash": request("/a%2Fb"),
    "bad-percent": request("/100%/%zz"),
    "plus-and-semicolon": request("/a+b;c=d,e"),
    "http-1.0": b"GET /old HTTP/1.0\r\n\r\n",
    "http-1.0-with-host": b"GET /old HTTP/1.0\r\nHost: a.example:8080\r\n\r\n",
    "fields": request(headers="User-Agent: a browser\r\nAccept: */*\r\nX-One-Two: three\r\n"),
    "value-with-blanks": request(headers="X-Padded: \t a  b \t\r\n"),
    "empty-value": request(headers="X-Empty:\r\n"),
    "repeated": request(headers="X-List: one\r\nX-Other: x\r\nX-List: two\r\n"),
    "latin-1": "GET / HTTP/1.1\r\nHost: test\r\nX-Name: caf\xe9\r\n\r\n".encode("latin-1"),
    "one-cookie": request(headers="Cookie: a=1; b=2\r\n"),
    "post": request("/form", method="POST", headers="Content-Type: text/x-form\r\n", body=b"a=1&b=2"),
    "post-nothing": request("/form", method="POST", headers="Content-Type: text/x-form\r\n"),
    "type-without-body": request(headers="Content-Type: application/json\r\n"),
    "put": request("/thing", method="PUT", headers="Content-Type: image/png\r\n", body=b"\0" * 300),
    "delete": request("/thing", method="DELETE"),
    "head": request("/thing", method="HEAD"),
    "options": request("/thing", method="OPTIONS"),
    "own-method": request("/thing", method="PROPFIND"),
    "connection": request(headers="Connection: keep-alive\r\n"),
    "authorization": request(headers="Authorization: Basic YTpi\r\n"),
}


class Kept(dict[str, Any]):
    """An application that keeps the environ, with the body in place of its stream."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.update(environ)
        self["body"] = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
        start_response("200 OK", [*PLAIN])
        return [b"kept"]


def environ_of(library: ModuleType, data: bytes, base: dict[str, str] | None = None) -> Kept:
    kept = Kept()
    with library.make_server("127.0.0.1", 0, kept) as httpd:
        httpd.base_environ.update(base or {})
        answer = ask(httpd, data, to_head=data.startswith(b"HEAD"))
        assert answer.status == 200
        assert kept["SERVER_PORT"] == str(httpd.server_port)
        assert kept["SERVER_NAME"] == httpd.server_name
    return kept


@pytest.mark.parametrize("name", REQUESTS)
def test_the_environ_is_the_same_but_for_what_the_page_lists(name: str) -> None:
    """An application moved from one to the other must read the same request."""
    data = REQUESTS[name]
    theirs, ours = environ_of(WSGIREF, data), environ_of(FORKSERVER, data)
    for key in PROCESS:
        theirs.pop(key, None)
    if b"Content-Type" not in data:
        assert theirs.pop("CONTENT_TYPE") == "text/plain", "wsgiref claims it for a request that says nothing"
    since_http_1_1 = {"wsgi.early_hints"} if ours["SERVER_PROTOCOL"] == "HTTP/1.1" else set()
    assert set(ours) - set(theirs) == OURS_ALONE | since_http_1_1
    assert set(theirs) - set(ours) == set()
    differing = {key: (theirs[key], ours[key]) for key in theirs if key not in OWN and theirs[key] != ours[key]}
    assert differing == {}


def test_every_key_that_differs_is_on_the_page() -> None:
    """A difference that is not listed there is a bug."""
    for key in (*OURS_ALONE, "CONTENT_TYPE", "wsgi.early_hints"):
        assert f"`{key}`" in PAGE


def test_the_process_environment_is_not_merged() -> None:
    """It shows secrets to every error page that prints the environ."""
    assert set(environ_of(WSGIREF, request())) >= PROCESS
    assert not PROCESS & set(environ_of(FORKSERVER, request()))


def test_the_streams_are_what_pep_3333_wants(library: ModuleType) -> None:
    kept = environ_of(library, request(method="POST", body=b"abc"))
    for name in ("read", "readline", "readlines", "__iter__"):
        assert hasattr(kept["wsgi.input"], name)
    for name in ("write", "writelines", "flush"):
        assert hasattr(kept["wsgi.errors"], name)
    assert issubclass(kept["wsgi.file_wrapper"], FileWrapper)
    assert list(kept["wsgi.file_wrapper"](io.BytesIO(b"abc"))) == [b"abc"]
    assert kept["wsgi.version"] == (1, 0)
    assert type(kept) is not dict
    assert kept["body"] == b"abc"


def test_the_software_is_named_by_the_handler_class(library: ModuleType) -> None:
    """RFC 3875 section 4.1.17."""
    assert environ_of(library, request())["SERVER_SOFTWARE"] == library.WSGIRequestHandler.server_version


@pytest.mark.parametrize(("value", "scheme"), [("on", "https"), ("1", "https"), ("yes", "https"), ("off", "http")])
def test_https_in_base_environ_makes_the_scheme(library: ModuleType, value: str, scheme: str) -> None:
    """Behind a proxy that speaks TLS a script says so, and redirects come out right."""
    assert environ_of(library, request(), {"HTTPS": value})["wsgi.url_scheme"] == scheme


def test_a_value_of_base_environ_reaches_the_application(library: ModuleType) -> None:
    assert environ_of(library, request(), {"site.name": "a name"})["site.name"] == "a name"


def test_what_wsgiref_leaves_ambiguous_is_read_as_the_page_lists() -> None:
    """An absolute target, two cookies and a name with an underscore: a proxy in front reads them so too."""
    ours = environ_of(FORKSERVER, request("http://other.example/a?b"))
    assert (ours["PATH_INFO"], ours["QUERY_STRING"], ours["HTTP_HOST"]) == ("/a", "b", "other.example")
    ours = environ_of(FORKSERVER, request(headers="Cookie: a=1\r\nCookie: b=2\r\nX_Forged: x\r\n"))
    assert ours["HTTP_COOKIE"] == "a=1; b=2"
    assert "HTTP_X_FORGED" not in ours
    assert environ_of(FORKSERVER, request("//twice//"))["PATH_INFO"] == "//twice//"


@pytest.mark.parametrize("target", ["/a%20b//c?d=%20", "http://other.example/a?b", "*"])
def test_the_target_is_there_as_it_was_sent(target: str) -> None:
    """Under the name that gunicorn gives it, too: signatures are made over it."""
    ours = environ_of(FORKSERVER, request(target, method="OPTIONS"))
    assert ours["RAW_URI"] == ours["REQUEST_URI"] == target


def test_a_chunked_body_is_one_body_with_its_length() -> None:
    """wsgiref hands its framing to the application; wsgi.input_terminated says that it need not care."""
    data = request(method="POST", headers="Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
    ours = environ_of(FORKSERVER, data + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert (ours["body"], ours["CONTENT_LENGTH"]) == (b"abcde", "5")
    assert "HTTP_TRANSFER_ENCODING" not in ours
    assert ours["wsgi.input_terminated"] is True
