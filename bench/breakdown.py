"""Where a kept connection's request spends its time: one worker's loop in this process, whole and with parts left out.

    python -m bench breakdown [--rounds 15]

16 clients of this process ask, then the loop's turns are timed until all have their answers: what clients spend is not
in it. Each line is the fastest of the rounds; a part's price is what is saved without it. Nobody misses it here: no
worker retires, and nothing hangs or is malformed.
"""

from __future__ import annotations

import argparse
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench import machine
from bench.questions import question

CLIENTS = 16
TURNS = 120  # of every client in a round
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\nX-Seen: /item/100 119\r\n\r\nHello, world!\n"
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m bench breakdown", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args(arguments).rounds
    machine.prepare()
    sys.path.insert(0, str(machine.APPS))
    import hello

    print(f"{machine.description()}; µs a request, the fastest of {rounds} rounds\n")
    floor = _floor(rounds, lambda: None)
    print(f"{floor:6.2f}  poll, recv and send of a constant, in Python: the floor")
    environ = {"PATH_INFO": "/item/100", "QUERY_STRING": "page=3", "HTTP_USER_AGENT": "x" * 100}
    app = _floor(rounds, lambda: hello.app(environ, lambda _status, _headers: None)) - floor
    print(f"{app:6.2f}  the application")
    whole = _worker(rounds, hello.app)
    for without, what in _PARTS:
        with without():
            print(f"{whole - _worker(rounds, hello.app):6.2f}  {what}")
    print(f"{whole:6.2f}  in all; what no line names is reading the head, the environ, and the loop itself")
    return 0


def _asked(number: int) -> bytes:
    return question(f"/item/{number % 1000}?page={number % 7}")


def _floor(rounds: int, work: Callable[[], object]) -> float:
    with socket.create_server((machine.HOST, 0)) as listener, select.epoll() as poll:
        clients = [_client(listener.getsockname()) for _ in range(CLIENTS)]
        served = {}
        for _ in clients:
            sock, _peer = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            served[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)

        def turn() -> int:
            events = poll.poll()
            for number, _ in events:
                served[number].recv(16 * 1024)
                work()
                served[number].send(ANSWER)
            return len(events)

        try:
            return _fastest(rounds, clients, turn)
        finally:
            for each in (*clients, *served.values()):
                each.close()


def _worker(rounds: int, app: Any) -> float:
    from forkserver import WSGIRequestHandler, WSGIServer
    from forkserver.config import settings as table
    from forkserver.ipc.scoreboard import REQUESTS, SERVING, STATE, Scoreboard
    from forkserver.logs.access_log import AccessLog
    from forkserver.logs.error_log import ErrorLog

    board = Scoreboard(2)
    row = board[0]
    row.words[STATE], board.serving = SERVING, 1
    ends = [end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
    listener = socket.create_server((machine.HOST, 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    httpd = WSGIServer((machine.HOST, 0), WSGIRequestHandler, bind_and_activate=False)
    log = ErrorLog("-", "info", "bench")
    httpd.adopt([(1, listener)], (ends[0], ends[1]), table.defaults(), log, AccessLog(None), row, board)
    httpd.set_app(app)
    httpd.open()
    clients = [_client(listener.getsockname()) for _ in range(CLIENTS)]

    def turn() -> int:
        before = row.words[REQUESTS]
        httpd.handle_request()
        return row.words[REQUESTS] - before

    try:
        return _fastest(rounds, clients, turn)
    finally:
        for each in clients:
            each.close()
        httpd.server_close()


def _client(address: Any) -> socket.socket:
    client = socket.create_connection(address)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _fastest(rounds: int, clients: list[socket.socket], turn: Callable[[], int]) -> float:
    return min(_round(clients, turn) for _ in range(rounds)) / (TURNS * len(clients)) * 1e6


def _round(clients: list[socket.socket], turn: Callable[[], int]) -> float:
    spent = 0.0
    for number in range(TURNS):
        for client in clients:
            client.sendall(_asked(number))
        left, began = len(clients), time.perf_counter()
        while left > 0:
            left -= turn()
        spent += time.perf_counter() - began
        for client in clients:
            client.recv(16 * 1024)
    return spent


# What is left out


@contextmanager
def _replaced(owner: Any, **others: Any) -> Iterator[None]:
    own = {name: getattr(owner, name) for name in others}
    for name, value in others.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in own.items():
            setattr(owner, name, value)


@contextmanager
def _without_scoreboard() -> Iterator[None]:
    from forkserver.ipc.scoreboard import REQUESTS, Row

    def end(row: Row, _thread: int = 0) -> None:
        row.words[REQUESTS] += 1

    with _replaced(Row, begin=lambda *_: None, end=end):
        yield


@contextmanager
def _without_background_driver() -> Iterator[None]:
    from forkserver.server.loop.event_loop import EventLoop

    def rouse_driver(loop: EventLoop) -> None:
        loop.dozing = False

    with _replaced(EventLoop, rouse_driver=rouse_driver):
        yield


@contextmanager
def _without_response() -> Iterator[None]:
    from forkserver.server.connection import exchange

    def run(app: Any, environ: dict[str, Any], response: Any) -> None:
        app(environ, lambda _status, _headers: None)
        response.sink.send(ANSWER)

    with _replaced(exchange, run=run):
        yield


_PARTS = (
    (_without_response, "start_response checked, the head made, the protocol of PEP 3333"),
    (_without_scoreboard, "the scoreboard: who serves what, since when"),
    (_without_background_driver, "the background driver, while no call is slow"),
)
