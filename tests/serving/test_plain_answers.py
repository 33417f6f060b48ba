"""A worker with the extension answers as one without it: to the byte, in the access log, and in the scoreboard."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.plain_answers import GET, REQUESTS, Application, Start, Told

pytestmark = pytest.mark.extension


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> None:
    """The workers serve all tests of the module."""


class Text(str):
    """A str that says of itself what it likes."""

    def __str__(self) -> str:
        return "another"


class Block(bytes):
    """Bytes that say of their length what they like."""

    def __len__(self) -> int:
        return 1


class Closing(list[bytes]):
    def close(self) -> None:
        raise ValueError("in close")


def answers(status: Any = "200 OK", headers: Any = (), body: Any = (b"body",)) -> Application:
    def app(_environ: dict[str, Any], start_response: Start) -> Any:
        start_response(status, list(headers) if type(headers) is tuple else headers)
        return list(body) if type(body) is tuple else body() if callable(body) else body

    return app


def raises_before(_environ: dict[str, Any], _start_response: Start) -> Any:
    raise ValueError("before")


def raises_after(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [])
    raise ValueError("after")


def exits(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [])
    sys.exit(3)


def says_nothing(_environ: dict[str, Any], _start_response: Start) -> Any:
    return [b"body"]


def writes(_environ: dict[str, Any], start_response: Start) -> Any:
    write = start_response("200 OK", [("Content-Length", "9")])
    write(b"first ")
    return [b"and"]


def starts_twice(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [])
    start_response("201 Created", [])
    return [b"body"]


def starts_again(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [("X-First", "1")])
    try:
        raise ValueError("inside")
    except ValueError:
        start_response("500 Own", [("X-Second", "2")], sys.exc_info())
    return [b"body"]


def starts_with_none(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [("X-A", "1")], None)
    return [b"body"]


def starts_by_names(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response(status="200 OK", headers=[("X-A", "1")])
    return [b"body"]


def starts_with_exc_info(_environ: dict[str, Any], start_response: Start) -> Any:
    try:
        raise ValueError("inside")
    except ValueError:
        start_response("500 Own", [("X-A", "1")], sys.exc_info())
    return [b"body"]


def changes_its_list(_environ: dict[str, Any], start_response: Start) -> Any:
    headers = [("X-A", "1")]
    start_response("200 OK", headers)
    headers.append(("X-B", "2\r\nX-C: 3"))
    return [b"body"]


def hints(environ: dict[str, Any], start_response: Start) -> Any:
    if "wsgi.early_hints" in environ:
        environ["wsgi.early_hints"]([("Link", "</a>")])
    start_response("200 OK", [])
    return [b"body"]


def changes_its_environ(environ: dict[str, Any], start_response: Start) -> Any:
    environ.update(REMOTE_ADDR="192.0.2.1", REMOTE_USER="a user", HTTP_USER_AGENT="changed")
    start_response("200 OK", [])
    return [b"body"]


def empties_its_environ(environ: dict[str, Any], start_response: Start) -> Any:
    environ.clear()
    start_response("200 OK", [])
    return [b"body"]


def odd_users(environ: dict[str, Any], start_response: Start) -> Any:
    environ.update(REMOTE_ADDR=Text("a"), REMOTE_USER=7)
    start_response("200 OK", [])
    return [b"body"]


def a_file(environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](BytesIO(b"of a file"))


def a_stream(_environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [])
    return iter([b"a", b"", b"bc"])


def late_start(_environ: dict[str, Any], start_response: Start) -> Any:
    def body() -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"late"

    return body()


def reads(environ: dict[str, Any], start_response: Start) -> Any:
    start_response("200 OK", [])
    return [environ["wsgi.input"].read(), environ["PATH_INFO"].encode()]


PLAIN: dict[str, Application] = {
    "one block": answers(),
    "a tuple": answers(body=lambda: (b"a", b"b")),
    "several blocks": answers(body=(b"a", b"", b"bc")),
    "nothing": answers(body=()),
    "an empty block": answers(body=(b"",)),
    "its length": answers(headers=(("Content-Length", "4"),)),
    "its length with zeros": answers(headers=(("content-length", "0004"),)),
    "headers": answers(headers=(("Content-Type", "text/plain"), ("Set-Cookie", "a=b"), ("Set-Cookie", "c"))),
    "headers beyond ASCII": answers(headers=(("X-Name", "J\xf6rg\t"),)),
    "an empty value": answers(headers=(("X-Empty", ""),)),
    "an own status": answers("299 Own Reason", body=(b"a",)),
    "a status beyond ASCII": answers("200 J\xf6rg"),
    "no reason": answers("200 "),
    "no content": answers("204 No Content", body=()),
    "no content, with a body": answers("204 No Content", (("Content-Length", "4"),)),
    "not modified": answers("304 Not Modified", body=()),
    "not modified, of a length": answers("304 Not Modified", (("Content-Length", "77"),), ()),
    "an error": answers("404 Not Found"),
    "a large block": answers(body=(b"x" * 40_000,)),
    "a middling block": answers(body=(b"x" * 32_768,)),
    "exc_info of None": starts_with_none,
    "exc_info at first": starts_with_exc_info,
    "a list changed afterwards": changes_its_list,
    "an environ changed": changes_its_environ,
    "an environ emptied": empties_its_environ,
    "what it reads": reads,
    "odd users": odd_users,
}
LEFT: dict[str, Application] = {
    "an exception before": raises_before,
    "an exception afterwards": raises_after,
    "an exit": exits,
    "no start_response": says_nothing,
    "write": writes,
    "two starts": starts_twice,
    "another start": starts_again,
    "names of arguments": starts_by_names,
    "early hints": hints,
    "a file": a_file,
    "a stream": a_stream,
    "a late start": late_start,
    "many blocks": answers(body=(b"x" * 20_000, b"y" * 20_000)),
    "a length too long": answers(headers=(("Content-Length", "5"),)),
    "a length too short": answers(headers=(("Content-Length", "3"),)),
    "two lengths": answers(headers=(("Content-Length", "4"), ("Content-Length", "4"))),
    "lengths that differ": answers(headers=(("Content-Length", "4"), ("Content-Length", "5"))),
    "a length that is none": answers(headers=(("Content-Length", "+4"),)),
    "a length of digits elsewhere": answers(headers=(("Content-Length", "\u0664"),)),
    "a long length": answers(headers=(("Content-Length", "0" * 18 + "4"),)),
    "an own Date": answers(headers=(("Date", "today"),)),
    "an own Server": answers(headers=(("SERVER", "own"),)),
    "a close": answers(headers=(("Connection", "close"),)),
    "a keep-alive": answers(headers=(("Connection", "keep-alive"), ("Keep-Alive", "7"))),
    "chunks of its own": answers(headers=(("Transfer-Encoding", "chunked"),)),
    "an upgrade": answers(headers=(("Upgrade", "h2c"), ("TE", "a"), ("Trailer", "b"), ("Proxy-Connection", "c"))),
    "a status of three digits": answers("200"),
    "an interim status": answers("100 Continue"),
    "a status without a blank": answers("200-OK"),
    "a status too high": answers("1000 Many"),
    "a status of bytes": answers(b"200 OK"),
    "a status with a line feed": answers("200 OK\r\nX-Injected: 1"),
    "a status beyond latin-1": answers("200 \u20ac"),
    "a status of its own class": answers(Text("200 OK")),
    "no list": answers(headers=iter(())),
    "no tuple": answers(headers=[["X-A", "1"]]),
    "a tuple of three": answers(headers=(("X-A", "1", "2"),)),
    "a name that is none": answers(headers=(("X A", "1"),)),
    "an empty name": answers(headers=(("", "1"),)),
    "a name of its own class": answers(headers=((Text("X-A"), Text("1")),)),
    "a value with a line feed": answers(headers=(("X-A", "1\nX-Injected: 1"),)),
    "a value with NUL": answers(headers=(("X-A", "1\0"),)),
    "a value with DEL": answers(headers=(("X-A", "1\x7f"),)),
    "a value beyond latin-1": answers(headers=(("X-A", "\u20ac"),)),
    "a value with a surrogate": answers(headers=(("X-A", "\udc80"),)),
    "a value of bytes": answers(headers=(("X-A", b"1"),)),
    "a body of str": answers(body=("body",)),
    "a body that is bytes": answers(body=b"body"),
    "a body that is None": answers(body=None),
    "a block of its own class": answers(body=(Block(b"body"),)),
    "a list that closes": answers(body=lambda: Closing([b"body"])),
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("name", PLAIN | LEFT)
def test_every_answer_is_the_same(name: str, request_name: str, pair: tuple[Told, Told]) -> None:
    app, requests = (PLAIN | LEFT)[name], REQUESTS[request_name]
    with_c, without = pair
    assert with_c.ask(app, requests) == without.ask(app, requests)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_answer_is_sent_by_the_extension(name: str, pair: tuple[Told, Told]) -> None:
    with_c, without = pair
    before = with_c.served
    with_c.ask(PLAIN[name], GET * 3)
    assert with_c.served == before + 3
    assert not without.served


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_plain_is_left_to_the_python_code(name: str, pair: tuple[Told, Told]) -> None:
    with_c, _ = pair
    before = with_c.served
    with_c.ask(LEFT[name])
    assert with_c.served == before


# Searched for

texts = st.text(st.characters(max_codepoint=0x110), max_size=8)
statuses = st.one_of(st.sampled_from(["200 OK", "204 No Content", "304 Not Modified", "404 Not Found"]), texts)
names = st.one_of(
    st.sampled_from(["Content-Type", "Content-Length", "Date", "Server", "Connection", "TE", "X-A", "x_b"]),
    st.text("abC-_!# :", max_size=6),
)
values = st.one_of(st.sampled_from(["0", "4", "5", "close", "text/plain"]), texts)
headers = st.lists(st.tuples(names, values), max_size=4)
blocks = st.lists(st.binary(max_size=6), max_size=3)


@settings(
    max_examples=250, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(status=statuses, fields=headers, body=blocks, request_name=st.sampled_from(sorted(REQUESTS)))
def test_answers_that_are_searched_for_are_the_same(
    status: str, fields: list[tuple[str, str]], body: list[bytes], request_name: str, pair: tuple[Told, Told]
) -> None:
    with_c, without = pair
    app, requests = answers(status, fields, body), REQUESTS[request_name]
    assert with_c.ask(app, requests) == without.ask(app, requests)
