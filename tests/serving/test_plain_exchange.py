"""Where the extension stops and Python goes on: counts, clocks, descriptors, threads, and what it is not asked for."""

from __future__ import annotations

import gc
import os
import select
import socket
import time
import weakref
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from forkserver.config.accelerator import VARIABLE, accelerator
from forkserver.ipc.scoreboard import ACCELERATED, BUSY_SINCE, DECLINED, LINE_LENGTH, REQUESTS, ROW_WORDS
from forkserver.server.connection import lifecycle, plain_exchange
from harness.plain_answers import CLOSE, GET, Start
from harness.worker import Slow, StartTwoWorkers, StartWorker, arrived, hello, wait_until

pytestmark = pytest.mark.extension
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"


def test_served_and_declined_are_counted_in_the_scoreboard(worker: StartWorker) -> None:
    """Where plain requests decline, the operator sees it."""
    server = worker()
    client = server.client()
    for request in (GET, GET, POST, GET):
        client.sendall(request)
        assert server.until_answered(client, 3).startswith(b"HTTP/1.1 200 OK")
    words = server.row.words
    assert (words[REQUESTS], words[ACCELERATED], words[DECLINED]) == (4, 3, 1)


def test_a_connection_that_stays_plain_has_no_socket_object(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To make one costs as much as to read a request, and two system calls."""

    def of_accepted(_accepted: object) -> None:
        raise AssertionError("a socket object")

    monkeypatch.setattr(lifecycle, "of_accepted", of_accepted)
    server = worker()
    kept = server.client()
    for _ in range(2):
        kept.sendall(GET)
        assert server.until_answered(kept).endswith(b"GET /a 0")
    assert server.until_answered(server.client(CLOSE)).endswith(b"GET /a 0<closed>")
    kept.close()
    server.turn(2)
    assert server.loop.connections == set()
    server.client()
    server.turn(2)
    server.pass_time(3600)
    assert server.loop.connections == set(), "nor where nothing came"


def test_a_connection_without_a_socket_object_ends_with_its_worker(worker: StartWorker) -> None:
    server = worker()
    client = server.client(GET)
    assert server.until_answered(client).endswith(b"GET /a 0")
    server.loop.close()
    assert client.recv(1) == b""


def test_a_child_that_the_application_forks_closes_its_copy_of_such_a_connection(worker: StartWorker) -> None:
    server = worker()
    client = server.client(GET)
    assert server.until_answered(client).endswith(b"GET /a 0")
    (connection,) = server.loop.connections
    copy = os.dup(connection.fd)  # the parent's
    server.loop.forget()
    assert connection.fd == -1
    os.write(copy, b"x")
    os.close(copy)
    assert client.recv(9) == b"x"
    assert client.recv(9) == b""


def test_it_is_switched_off_by_the_variable(worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    assert accelerator() == "python"
    server = worker()
    assert server.loop.plain is None
    assert server.until_answered(server.client(GET), 3).endswith(b"GET /a 0")
    monkeypatch.delenv(VARIABLE)
    assert accelerator() == "C"


def test_an_extension_that_does_not_load_costs_a_line_of_the_log(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that was built against another libc, for example."""

    def load() -> None:
        raise ImportError("undefined symbol: gone")

    monkeypatch.setattr(plain_exchange, "load", load)
    server = worker()
    assert server.until_answered(server.client(GET), 3).endswith(b"GET /a 0")
    told = "Python serves, as the C extension cannot be loaded: undefined symbol: gone; install forkserver anew"
    assert told in capfd.readouterr().err


class Logging(WSGIRequestHandler):
    def log_request(self, code: Any = "-", size: Any = "-") -> None: ...


class OwnEnviron(WSGIRequestHandler):
    def get_environ(self) -> dict[str, Any]:
        return super().get_environ() | {"own": "1"}


@pytest.mark.parametrize("handler", [Logging, OwnEnviron])
def test_where_a_hook_is_called_for_each_request_python_serves(worker: StartWorker, handler: Any) -> None:
    assert worker(handler=handler).loop.plain is None


def test_what_a_slow_call_is_busy_with_is_seen_while_it_lasts(worker: StartWorker, app: Slow) -> None:
    """As Row.begin writes it: without the query, cut at the end of its place."""
    server = worker(app)
    line = b"GET /slow?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n"
    seen: list[Any] = []
    app.during = lambda _environ: seen.append(server.row.busy())
    server.until_answered(server.client(line), 3)
    assert seen[0].line == "GET /slow"
    assert server.row.busy() is None
    server.until_answered(server.client(b"GET /" + b"a" * 400 + b" HTTP/1.1\r\nHost: a\r\n\r\n"), 3)
    assert server.row.words[ROW_WORDS + LINE_LENGTH] == 192
    assert server.row.words[ROW_WORDS + BUSY_SINCE] == 0


def test_the_call_begins_at_the_time_of_the_monotonic_clock(worker: StartWorker, app: Slow) -> None:
    """The master compares it with its own."""
    server = worker(app)
    seen: list[int] = []
    app.during = lambda _environ: seen.append(server.row.words[ROW_WORDS + BUSY_SINCE])
    before = time.monotonic_ns()
    server.until_answered(server.client(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"), 3)
    assert before <= seen[0] <= time.monotonic_ns()


def test_a_call_rouses_the_background_driver(worker: StartWorker, app: Slow) -> None:
    server = worker(app)
    app.during = lambda _environ: server.loop.dozing
    server.until_answered(server.client(GET), 3)
    assert server.loop.background_driver is not None


def test_the_application_runs_outside_the_loop_lock(worker: StartWorker, app: Slow) -> None:
    """Only there may a call be interrupted that lasts too long."""
    server = worker(app)
    seen: list[bool] = []
    app.during = lambda _environ: seen.append(server.loop.loop_lock.outside)
    server.until_answered(server.client(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"), 3)
    assert (seen, server.loop.loop_lock.outside) == ([True], False)


def test_the_date_is_that_of_the_clock(worker: StartWorker) -> None:
    server = worker()
    dates = []
    while len(set(dates)) < 2:  # a second has passed
        answer = server.until_answered(server.client(GET), 2)
        dates.append(answer.partition(b"\r\nDate: ")[2].partition(b"\r\n")[0].decode())
    shown = parsedate_to_datetime(dates[-1]).timestamp()
    assert abs(shown - time.time()) < 60


def test_a_number_that_is_anothers_by_now_is_not_written_to(worker: StartWorker, app: Slow) -> None:
    """The background driver closes a connection during its call, and the kernel gives its number away."""
    server = worker(app)
    pair: list[socket.socket] = []

    def close(_environ: dict[str, Any]) -> bytes:
        (connection,) = server.loop.connections
        number = connection.fd
        with server.loop.loop_lock.mutex:
            connection.close()
        while not any(each.fileno() == number for each in pair):
            pair.extend(socket.socketpair())
        return b"for the first"

    app.during = close
    server.until_answered(server.client(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"), 3)
    readable = select.select(pair, [], [], 0)[0]
    for each in pair:
        each.close()
    assert not readable


@pytest.mark.parametrize("size", [100_000, 9_000_000])
def test_what_the_kernel_does_not_take_follows(worker: StartWorker, size: int) -> None:
    def app(_environ: dict[str, Any], start_response: Start) -> list[bytes]:
        start_response("200 OK", [])
        return [b"".join(b"%09d\n" % number for number in range(size // 10))]

    server = worker(app)
    client = server.client(GET, receive_buffer=4096)
    found = b""
    while piece := server.until_answered(client, 9):
        found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % size in head
    assert body == b"".join(b"%09d\n" % number for number in range(size // 10))


def test_the_application_cannot_end_its_request_by_its_start_response(worker: StartWorker) -> None:
    """It has the object, and what it does with it may cost its own answer alone."""
    refused: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        for call in (start_response.finish, lambda: start_response.answer(app, None, 0, True)):
            with pytest.raises(RuntimeError) as caught:
                call()
            refused.append(str(caught.value))
        return [b"fine"]

    server = worker(app)
    assert server.until_answered(server.client(GET), 3).endswith(b"fine")
    assert refused == ["the call of the application is not over", "a request is answered once"]


def test_requests_of_several_threads_do_not_mix(worker: StartWorker) -> None:
    """They share what an answer is made in."""
    turn: list[str] = []

    def app(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        name = environ["PATH_INFO"]
        start_response("200 OK", [("X-Name", name)])
        turn.append(name)
        wait_until(lambda: len(turn) % 2 == 0)
        return [name.encode()]

    server = worker(app, threads=2)
    clients = [server.client(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number) for number in range(2)]
    found = [b"", b""]
    server.turn_until(lambda: len(turn) == 2)
    for number, client in enumerate(clients):
        while not found[number].endswith(b"/%d" % number):
            found[number] += server.until_answered(client, 1)
        assert b"X-Name: /%d\r\n" % number in found[number]
    assert server.loop.plain is not None
    assert server.loop.plain.served == 2


def test_a_plain_request_that_waits_is_handed_on_whole(two_workers: StartTwoWorkers, app: Slow) -> None:
    """What a sibling reads are the bytes that the client has sent."""
    first, second = two_workers(app)
    app.during = lambda _environ: first.tend()
    slow, waiting = first.client(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"), first.client(GET)
    first.turn(2)
    second.turn(2)
    answers = first.until_answered(slow, 3) + first.until_answered(waiting, 3) + second.until_answered(waiting, 3)
    assert answers.count(b"200 OK") == 2


def test_what_is_read_of_a_request_is_there_when_its_connection_is_looked_at(worker: StartWorker) -> None:
    """A new client in the same turn would have it closed as idle, or the next read be taken for the beginning."""
    server = worker(worker_connections=1)
    client = server.client(GET)
    assert server.until_answered(client).startswith(b"HTTP/1.1 200 ")
    server.clock.now += 1
    upload = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
    newcomer = server.client(GET)
    client.sendall(upload)
    arrived(client)
    assert server.until_answered(client).removesuffix(b"<closed>").endswith(b"POST / 4")
    assert server.until_answered(newcomer).endswith(b"GET /a 0")


def test_what_a_call_had_that_raised_goes_with_its_answer(worker: StartWorker) -> None:
    """No traceback keeps it until the collector comes: a file, for example, or a connection to a database."""
    kept: list[weakref.ref[set[str]]] = []

    def app(_environ: dict[str, Any], _start_response: Any) -> Any:
        mine = {"a"}
        kept.append(weakref.ref(mine))
        raise ValueError

    server = worker(app)
    gc.disable()
    try:
        assert server.until_answered(server.client(GET)).startswith(b"HTTP/1.1 500 ")
        assert kept[0]() is None
    finally:
        gc.enable()


def test_an_application_that_is_set_serves_the_next_request(worker: StartWorker) -> None:
    """Also one that waits in the same turn."""

    def second(_environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return [b"second"]

    def first(environ: dict[str, Any], start_response: Any) -> Any:
        server.httpd.set_app(second)
        return hello(environ, start_response)

    server = worker(first)
    clients = [server.client(), server.client()]
    server.turn(2)
    for client in clients:
        client.sendall(GET)
        arrived(client)
    answered = [server.until_answered(client).rpartition(b"\r\n")[2] for client in clients]
    assert sorted(answered) == [b"GET /a 0", b"second"]
