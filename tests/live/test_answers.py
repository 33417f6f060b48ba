"""Real applications behind the real program, asked by the clients that people use."""

from __future__ import annotations

import hashlib
import http.client
import subprocess
from collections.abc import Iterator

import pytest
import requests

from harness.clients import request
from harness.needs import program as needs_program
from harness.program import Program, StartProgram

SITES = {"flask": "flask_site:app", "django": "django_site:app"}
APPS = {**SITES, "raw": "raw:app", "demo": "raw:demo"}
FIRST_WORDS = {"flask": "hello from Flask", "django": "hello from Django", "raw": "hello from", "demo": "Hello world!"}
STDLIB = ("--handler-class", "wsgiref.simple_server:WSGIRequestHandler")


@pytest.fixture(params=[(), STDLIB], ids=["ours", "stdlib-handler"])
def handler(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


@pytest.fixture(params=APPS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(name: str, handler: tuple[str, ...], program: StartProgram) -> Program:
    return program(APPS[name], "-w", "4", *handler)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


def url(server: Program, target: str = "/") -> str:
    return f"http://{server.address[0]}:{server.address[1]}{target}"


def test_curl_gets_the_page_twice_in_one_run(server: Program, name: str) -> None:
    """curl keeps a connection where it may and opens another where it must; both must work."""
    curl = needs_program("curl")
    page = url(server)
    ran = subprocess.run([curl, "-sS", "--fail", page, page], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(FIRST_WORDS[name]) == 2


def test_requests_gets_the_page_in_one_session(server: Program, name: str, session: requests.Session) -> None:
    for _ in range(8):
        answer = session.get(url(server), timeout=30)
        assert answer.status_code == 200
        assert FIRST_WORDS[name] in answer.text


def test_http_client_gets_the_page_on_one_connection(server: Program, name: str, handler: tuple[str, ...]) -> None:
    """Our handler keeps the connection; the stdlib's speaks HTTP/1.0 and ends it, as it does under wsgiref."""
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    connection.connect()
    first = connection.sock
    for _ in range(8):
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.status, FIRST_WORDS[name] in answer.read().decode()) == (200, True)
        if not handler:
            assert connection.sock is first
    connection.close()


@pytest.mark.parametrize("handler", [()], ids=["ours"], indirect=True)
def test_head_has_the_headers_and_no_body(server: Program) -> None:
    """RFC 9110 section 9.3.2. The stdlib's own handler sends the body all the same, and is left to."""
    with server.connect() as wire:
        wire.ask(method="HEAD", headers="Connection: close\r\n")
        assert wire.answer(to_head=True).status == 200
        assert wire.ended()


def test_pipelined_requests_are_answered_in_order(program: StartProgram) -> None:
    """RFC 9112 section 9.3.2: a client may send before it has its answers, and gets them in its own order."""
    server = program("raw:app", "-w", "4")
    with server.connect() as wire:
        bodies = [f"request {number}".encode() for number in range(50)]
        wire.send(b"".join(request("/echo", method="POST", body=body) for body in bodies))
        assert [wire.answer().body for _ in bodies] == bodies


@pytest.mark.parametrize("handler", [(), STDLIB], ids=["ours", "stdlib-handler"], indirect=True)
@pytest.mark.parametrize("name", SITES, indirect=True)
class TestSites:
    """What frameworks do with a request: queries, forms, files, streams."""

    def test_a_query_reaches_the_view(self, server: Program, session: requests.Session) -> None:
        answer = session.get(url(server, "/query"), params={"name": "Zoë & co"}, timeout=30)
        assert answer.json()["name"] == "Zoë & co"
        assert answer.json()["agent"].startswith("python-requests")

    def test_a_form_reaches_the_view(self, server: Program, session: requests.Session) -> None:
        answer = session.post(url(server, "/form"), data={"name": "Ada", "age": "36"}, timeout=30)
        assert answer.text == "Ada is 36"

    def test_an_uploaded_file_is_whole(self, server: Program, session: requests.Session) -> None:
        content = bytes(range(256)) * 4096
        answer = session.post(url(server, "/upload"), files={"file": ("a.bin", content)}, timeout=30)
        assert answer.text == hashlib.sha256(content).hexdigest()

    def test_a_streamed_answer_is_whole(self, server: Program, session: requests.Session) -> None:
        answer = session.get(url(server, "/stream"), timeout=30)
        assert answer.text.splitlines() == [f"line {number}" for number in range(100)]


def test_a_body_in_chunks_reaches_a_site(program: StartProgram, session: requests.Session) -> None:
    """requests sends a generator chunked; the application gets it whole, as a body of known length."""
    server = program("raw:app", "-w", "4")
    answer = session.post(url(server, "/echo"), data=iter([b"one ", b"two ", b"three"]), timeout=30)
    assert answer.text == "one two three"


def test_http_1_0_gets_its_answer_and_the_end(program: StartProgram) -> None:
    server = program("raw:app", "-w", "4")
    with server.connect() as wire:
        wire.send(b"GET /chunks HTTP/1.0\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, b"one two three")
        assert "Transfer-Encoding" not in answer.headers


def test_expect_100_continue_is_told_to_go_on(program: StartProgram) -> None:
    """curl waits a second for it otherwise (RFC 9110 section 10.1.1)."""
    server = program("raw:app")
    with server.connect() as wire:
        wire.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert wire.head().status == 100
        wire.send(b"hello")
        assert wire.answer().body == b"hello"


def test_python_m_and_the_console_script_are_one_program(program: StartProgram) -> None:
    script = needs_program("forkserver")
    server = program("raw:app", command=[script])
    with server.connect() as wire:
        assert wire.get().status == 200
    assert server.stop() == 0


@pytest.mark.parametrize("spec", ["raw", "raw:app", "raw:site.app", "raw:create_app()"])
def test_every_form_of_naming_an_application_serves(program: StartProgram, spec: str) -> None:
    server = program(spec)
    with server.connect() as wire:
        assert wire.get().text.startswith("hello from")
