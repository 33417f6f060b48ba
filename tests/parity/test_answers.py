"""What an application says, and what the client gets of it: the same from wsgiref and from forkserver."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness import BOUND
from harness.asking import FORKSERVER, PLAIN, WSGIREF, App, Served, ask
from harness.clients import Answer, Wire, request

OF_THE_SERVER = {"date", "server", "connection", "content-length", "transfer-encoding"}


def fields(answer: Answer) -> list[tuple[str, str]]:
    """What the application has set, in order."""
    return [(name, value) for name, value in answer.headers.items() if name.lower() not in OF_THE_SERVER]


def closing(body: Any, closed: list[str]) -> Any:
    class Closing:
        def __iter__(self) -> Iterator[bytes]:
            return iter(body)

        def close(self) -> None:
            closed.append("closed")

    return Closing()


def status(line: str, *headers: tuple[str, str], body: bytes = b"body") -> App:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(line, [*PLAIN, *headers])
        return [body] if body else []

    return app


def by_write(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    write = start_response("200 OK", [*PLAIN])
    write(b"one ")
    write(b"")
    write(b"two ")
    return [b"three"]


def by_generator(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [*PLAIN])  # a generator starts late: PEP 3333 allows it until the first block
    yield b""
    yield b"one "
    yield b"two"


def by_file(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"a file that is none"), 5)


def by_real_file(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN])
    return environ["wsgi.file_wrapper"](Path(__file__).open("rb"), 1000)


def second_thoughts(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("X-First", "1")])
    try:
        raise LookupError("not there")
    except LookupError:
        start_response("404 Not Found", [*PLAIN], sys.exc_info())
    return [b"gone"]


SAYING: dict[str, App] = {
    "ok": status("200 OK"),
    "created": status("201 Created", ("Location", "/new")),
    "own-reason": status("299 As You Like It"),
    "long-reason": status("404 Not Found, And Nobody Knows Where It Went"),
    "redirect": status("302 Found", ("Location", "http://test/other"), body=b""),
    "client-error": status("418 I'm a Teapot"),
    "server-error": status("503 Service Unavailable", ("Retry-After", "3")),
    "two-cookies": status("200 OK", ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/")),
    "strange-fields": status("200 OK", ("X-Empty", ""), ("x-lower", "\xe9t\xe9"), ("X-TAB", "a\tb")),
    "length": status("200 OK", ("Content-Length", "4")),
    "empty": status("200 OK", body=b""),
    "write": by_write,
    "generator": by_generator,
    "file": by_file,
    "real-file": by_real_file,
    "exc-info": second_thoughts,
    "tuple": lambda environ, start_response: (start_response("200 OK", [*PLAIN]), (b"a", b"b"))[1],
    "iterator": lambda environ, start_response: (start_response("200 OK", [*PLAIN]), iter([b"a", b"b"]))[1],
}


def answers(app: App, data: bytes = request(), **more: Any) -> tuple[Answer, Answer]:
    found = []
    for library in (WSGIREF, FORKSERVER):
        with library.make_server("127.0.0.1", 0, app) as httpd:
            found.append(ask(httpd, data, **more))
    return found[0], found[1]


@pytest.mark.parametrize("name", SAYING)
def test_status_fields_and_body_are_those_of_wsgiref(name: str) -> None:
    theirs, ours = answers(SAYING[name])
    assert (ours.status, ours.reason) == (theirs.status, theirs.reason)
    assert fields(ours) == fields(theirs)
    assert ours.body == theirs.body
    assert len([name for name in ours.headers if name.lower() == "content-length"]) <= 1


@pytest.mark.parametrize("code", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_a_body_has_none(code: str) -> None:
    theirs, ours = answers(status(code, body=b""))
    assert (ours.status, fields(ours)) == (theirs.status, fields(theirs))
    assert "Transfer-Encoding" not in ours.headers


def test_head_has_the_fields_of_get_and_no_body(make: Callable[..., Any], library: ModuleType) -> None:
    """wsgiref sends the body along; RFC 9110 section 9.3.2 forbids it. The page lists it."""
    httpd = make(status("200 OK", ("X-Name", "a"), ("Content-Length", "4")))
    got = ask(httpd)
    head = ask(httpd, request(method="HEAD"), to_head=True)
    assert (head.status, fields(head)) == (got.status, fields(got))
    assert head.headers["Content-Length"] == got.headers["Content-Length"]
    if library is FORKSERVER:
        assert ask(httpd, request(method="HEAD", headers="Connection: close\r\n"), to_head=True).body == b""


def _raises(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    raise LookupError("an error of the application")


def _exits(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    sys.exit("an error of the application")


def _never_starts(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    return [b"body"]


def _starts_twice(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [*PLAIN])
    start_response("200 OK", [*PLAIN])
    return [b"body"]


BREAKING: dict[str, App] = {
    "raises": _raises,
    "exits": _exits,
    "never-starts": _never_starts,
    "starts-twice": _starts_twice,
    "none": lambda environ, start_response: start_response("200 OK", [*PLAIN]) and None,
    "text": lambda environ, start_response: (start_response("200 OK", [*PLAIN]), ["text"])[1],
    "number": lambda environ, start_response: 7,
    "write-text": lambda environ, start_response: [start_response("200 OK", [*PLAIN])("text")],
    "bytes-status": lambda environ, start_response: [start_response(b"200 OK", [*PLAIN])],
    "short-status": lambda environ, start_response: [start_response("OK", [*PLAIN])],
    "pair-of-three": lambda environ, start_response: [start_response("200 OK", [("a", "b", "c")])],
    "number-as-value": lambda environ, start_response: [start_response("200 OK", [("Age", 3)])],
}


@pytest.mark.parametrize("name", BREAKING)
def test_a_fault_of_the_application_is_500_and_told_on_stderr(
    make: Callable[..., Any], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client learns nothing of it, the operator what happened."""
    answer = ask(make(BREAKING[name]))
    assert (answer.status, answer.reason) == (500, "Internal Server Error")
    assert b"application" not in answer.body
    told = capsys.readouterr().err
    assert '"GET / HTTP/1.1" 500' in told
    assert len(told.splitlines()) > 1
    if name == "raises":
        assert "LookupError: an error of the application" in told
        assert "in _raises" in told


def test_an_error_after_the_head_cuts_the_answer(make: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing may be put behind what was sent: an error page in the middle of a file is a broken file."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", "100")])
        yield b"begun"
        raise LookupError("an error of the application")

    with pytest.raises(ConnectionResetError):
        ask(make(app))
    assert "LookupError: an error of the application" in capsys.readouterr().err


def test_exc_info_is_raised_again_after_the_head(make: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    """PEP 3333: too late for another status."""
    seen: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", "5")])(b"begun")
        try:
            raise LookupError("late")
        except LookupError:
            try:
                start_response("500 Oh", [*PLAIN], sys.exc_info())
            except LookupError as error:
                seen.append(str(error))
        return []

    assert ask(make(app)).text == "begun"
    assert seen == ["late"]


@pytest.mark.parametrize("body", [[b"a", b"b"], [], None])
def test_close_is_called_once_whatever_happens(make: Callable[..., Any], body: Any) -> None:
    """An application frees there what the answer needed; ``None``: its iteration fails."""
    closed: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [*PLAIN])
        return closing(body, closed)

    assert ask(make(app)).status == (500 if body is None else 200)
    assert closed == ["closed"]


def test_each_block_reaches_the_client_before_the_next_is_made(make: Callable[..., Any]) -> None:
    """PEP 3333 "Buffering and Streaming": a block is on its way when the next is asked for."""
    go_on = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", "6")])
        yield b"one"
        assert go_on.wait(BOUND)
        yield b"two"

    with Served(make(app)) as served, Wire(served.address) as wire:
        wire.ask()
        wire.head()
        assert wire.exactly(3) == b"one"
        go_on.set()
        assert wire.exactly(3) == b"two"
