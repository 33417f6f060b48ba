"""What is not HTTP, or not HTTP we accept: an error status, the end, no call of the application, a line in each log."""

from __future__ import annotations

import re

import pytest

from harness.clients import request
from harness.program import StartProgram

HOST = b"Host: test\r\n"
SINS = {
    "no-http-at-all": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "no-version": (b"GET /\r\n\r\n", 400),
    "unknown-version": (b"GET / HTTP/3.0\r\n" + HOST + b"\r\n", 505),
    "no-host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two-hosts": (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    "space-before-colon": (b"GET / HTTP/1.1\r\nHost : test\r\n\r\n", 400),
    "folded-header": (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n", 400),
    "no-colon": (b"GET / HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n", 400),
    "nul-in-value": (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\x00c\r\n\r\n", 400),
    "bare-cr": (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\rc\r\n\r\n", 400),
    "two-lengths": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "length-and-chunked": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "length-with-sign": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +1\r\n\r\na", 400),
    "unknown-coding": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n", (400, 501)),
    "bad-chunk-size": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    "long-line": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "long-field": (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 9000 + b"\r\n\r\n", 431),
    "many-fields": (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 101 + b"\r\n", 431),
}


@pytest.mark.parametrize("sin", SINS)
def test_a_malformed_request_is_refused_and_the_connection_ended(program: StartProgram, sin: str) -> None:
    data, status = SINS[sin]
    server = program("raw:printing", "--access-log", "-")
    with server.connect() as wire:
        wire.send(data)
        answer = wire.answer()
        assert answer.status in (status if isinstance(status, tuple) else (status,))
        assert wire.ended()
    told = server.log.wait(r"info .*refused \d+ to 127\.0\.0\.1: ").text
    assert server.stop() == 0
    assert "Traceback" not in server.log.text()
    (noted,) = [entry.text for entry in server.output.entries if " - - [" in entry.text]
    refused = re.fullmatch(r'127\.0\.0\.1 - - \[.*?\] "(.*)" (\d+) (\d+) "-" "-"', noted)
    assert refused is not None, noted
    assert int(refused[2]) in (status if isinstance(status, tuple) else (status,))
    assert int(refused[3]) == len(answer.body)
    asked = data.partition(b"\r\n")[0]
    if asked.isascii() and asked.decode().isprintable() and len(asked) < 100:
        assert refused[1] == asked.decode()
        assert f': "{refused[1]}" (request ' in told
    assert refused[1].startswith(r"\x16\x03" if data.startswith(b"\x16") else asked[:5].decode())
    assert "printed by the application" not in server.output.text()


def test_a_refusal_ends_the_pipeline(program: StartProgram) -> None:
    """After a request that cannot be understood nobody knows where the next one starts."""
    server = program("raw:app")
    with server.connect() as wire:
        wire.send(request() + b"nonsense\r\n\r\n" + request())
        assert [wire.answer().status, wire.answer().status] == [200, 400]
        assert wire.ended()


def test_the_next_client_is_served(program: StartProgram) -> None:
    server = program("raw:app")
    for data, _ in SINS.values():
        with server.connect() as wire:
            wire.send(data)
            wire.answer()
    with server.connect() as wire:
        assert wire.get().status == 200


@pytest.mark.parametrize("handler", ["forkserver:WSGIRequestHandler", "own_classes:Blocking"])
def test_an_attack_does_not_fill_the_error_log(program: StartProgram, handler: str) -> None:
    """One line for one client, the rest is counted; the access log has each."""
    server = program("raw:app", "--access-log", "-", "--log-level", "info", "--handler-class", handler)
    for _ in range(50):
        with server.connect() as wire:
            wire.send(b"GET /attack HTTP/1.1\r\n\r\n")
            wire.answer()
    assert server.stop() == 0
    server.output.until(lambda: server.output.ended, "the end of the output")
    assert server.output.text().count('"GET /attack HTTP/1.1" 400 ') == 50
    told = [entry.text for entry in server.log.entries if "attack" in entry.text or " 400" in entry.text]
    assert 1 <= len(told) < 25, "one at once, and one in five seconds of a slow machine"
    assert all(" info worker=1 gen=1 " in line and "refused 400 to 127.0.0.1: " in line for line in told)


def test_a_failing_application_is_a_500_with_its_traceback_in_the_log(program: StartProgram) -> None:
    server = program("raw:app")
    since = server.log.mark()
    with server.connect() as wire:
        assert wire.get("/fail").status == 500
    server.log.wait("the application fails on purpose", since)
    with server.connect() as wire:
        assert wire.get().status == 200
