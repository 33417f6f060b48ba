"""Responses of an application, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forkserver.errors import AppError
from forkserver.linux.sockets.resets import resets_at_close
from harness.worker import StartWorker

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_stream_is_not_one_block_behind_after_a_large_one(worker: StartWorker) -> None:
    """PEP 3333: a block is on its way before the next is asked for."""
    server: Any = None
    client: Any = None
    seen = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        yield b"x" * 6_000_000
        while server.loop.connections and (connection := next(iter(server.loop.connections))).transport.out:
            client.recv(1 << 20)
            connection.transport.flush()
        yield b"small"
        seen.append(bool(connection.transport.out))

    server = worker(app)
    client = server.client(GET % b"", receive_buffer=4096)
    client.settimeout(20)  # what the kernel has taken may be on its way yet
    server.turn(2)
    assert seen == [False]


def test_an_answer_that_is_whole_survives_what_its_generator_does_then(worker: StartWorker) -> None:
    """The last byte of Content-Length was sent: there is nothing left to spoil."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("Content-Length", "5")])
        yield b"whole"
        raise ValueError

    server = worker(app)
    assert server.until_answered(server.client(GET % b"")).endswith(b"whole<closed>")


def test_only_the_end_of_the_connection_that_ends_a_body_is_an_orderly_one(worker: StartWorker) -> None:
    """A client of HTTP/1.0 takes the end of the connection for the end of the body, also where a kill has made it."""
    resets = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        for block in (b"first ", b"second"):
            yield block
            resets.append(resets_at_close(next(iter(server.loop.connections)).sock))

    server = worker(app)
    assert server.until_answered(server.client(b"GET / HTTP/1.0\r\n\r\n")).endswith(b"first second<closed>")
    assert resets == [True, True]
    assert server.until_answered(server.client(GET % b"")).endswith(b"0\r\n\r\n")
    assert resets[2:] == [False, False], "chunks say by themselves where the body ends"


def test_a_late_write_does_not_reach_the_next_answer(worker: StartWorker) -> None:
    """An application that keeps write() speaks to no client."""
    kept = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        write = start_response("200 OK", [])
        if kept:
            kept[0](b"from the first request")
        kept.append(write)
        write(b"own")
        return []

    server = worker(app)
    client = server.client(GET % b"")
    server.until_answered(client, 3)
    client.sendall(GET % b"")
    assert server.until_answered(client, 3).startswith(b"HTTP/1.1 200 OK")


def test_late_early_hints_do_not_reach_the_next_answer(worker: StartWorker) -> None:
    """A proxy's kept connection carries another client's request by then."""
    kept: list[Callable[..., None]] = []
    refused: list[AppError] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        for hints in kept:
            try:
                hints([("Link", "</of-an-earlier-request>")])
            except AppError as error:
                refused.append(error)
        kept.append(environ["wsgi.early_hints"])
        start_response("200 OK", [])
        return [b"own"]

    server = worker(app)
    client = server.client()
    for _ in range(4):  # the environ of a header block that has come twice is remembered
        client.sendall(GET % b"")
        assert server.until_answered(client, 3).startswith(b"HTTP/1.1 200 OK")
    assert len(refused) == 1 + 2 + 3


def test_a_connection_field_is_reported_once(worker: StartWorker, capfd: Any) -> None:
    """An application that sets one sets it in every answer."""
    server = worker(lambda environ, start: (start("200 OK", [("Upgrade", "x")]), [b""])[1])
    for _ in range(3):
        server.until_answered(server.client(GET % b""), 3)
    assert capfd.readouterr().err.count("dropped upgrade") <= 1


@pytest.mark.parametrize("accelerated", [pytest.param(True, marks=pytest.mark.extension), False])
def test_the_end_of_an_iterable_that_is_given_up_runs_without_the_loop_lock(
    worker: StartWorker, accelerated: bool
) -> None:
    """It is the application's code, and may take its time: others are served meanwhile."""
    locked: list[bool] = []

    class Rows:
        def __iter__(self) -> Iterator[bytes]:
            try:
                yield b"body"
            finally:
                locked.append(server.loop.loop_lock.mutex._is_owned())  # type: ignore[attr-defined]

    def app(_environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        return Rows()

    server = worker(app)
    if not accelerated:
        server.loop.plain = None
    answer = server.until_answered(server.client(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"), 5)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert locked == [False]
