"""A worker's loop in one process with its clients, for a run under valgrind.

    counted.py TREE COUNT [--access-log] [--tls FOLDER]

The questions, COUNT of which are asked, are a JSON list on stdin. valgrind lacks a system call that the whole program
needs (pidfd_open). The loop, its row of the scoreboard and the application are those of a worker; the clients are plain
sockets, or those of the ssl module, and cost the same in each tree. FOLDER has the certificate.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEPT = 4  # connections
TREE, COUNT = Path(sys.argv[1]), int(sys.argv[2])
sys.path[:0] = [str(TREE), str(TREE / "tests")]

import hello  # noqa: E402

from forkserver.config import settings as table  # noqa: E402
from forkserver.logs.access_log import AccessLog  # noqa: E402
from forkserver.tls.contexts import TlsContexts  # noqa: E402
from harness.worker import Clock, Worker  # noqa: E402

VOUCHED_BY_NO_AUTHORITY = ssl.create_default_context()
VOUCHED_BY_NO_AUTHORITY.check_hostname = False
VOUCHED_BY_NO_AUTHORITY.verify_mode = ssl.CERT_NONE


def meanwhile(server: Any, act: Callable[[], Any]) -> Any:
    """What ``act`` gives once nothing is missing for it; the loop turns until then."""
    while True:
        try:
            return act()
        except (BlockingIOError, ssl.SSLWantReadError):
            server.loop.turn(1.0)


def connected(server: Any, tls: bool) -> socket.socket:
    client: socket.socket = server.client()
    if not tls:
        return client
    made = VOUCHED_BY_NO_AUTHORITY.wrap_socket(client, do_handshake_on_connect=False)
    meanwhile(server, made.do_handshake)
    return made


def answered(server: Any, client: socket.socket, question: bytes) -> None:
    """Ask, and turn the loop until the answer is there."""
    client.sendall(question)
    server.loop.turn(1.0)
    data = meanwhile(server, lambda: client.recv(65536))
    if not data.startswith(b"HTTP/1.1 200 ") or not data.endswith(hello.BODY):
        raise SystemExit(f"answered {data!r}")


def tls_context(folder: str) -> ssl.SSLContext:
    files = {"certfile": [f"{folder}/certificate.pem"], "keyfile": [f"{folder}/key.pem"]}
    return TlsContexts(table.defaults(**files)).open()


def main() -> None:
    questions = [question.encode() for question in json.load(sys.stdin)]
    closes = b"Connection: close" in questions[0]
    tls = tls_context(sys.argv[sys.argv.index("--tls") + 1]) if "--tls" in sys.argv else None
    server: Any = Worker(hello.app, Clock(), tls=tls)
    if "--access-log" in sys.argv:
        server.replace(access=AccessLog(os.devnull))
    clients = [] if closes else [connected(server, tls is not None) for _ in range(KEPT)]
    for number in range(COUNT):
        question = questions[number % len(questions)]
        if closes:
            with connected(server, tls is not None) as client:
                answered(server, client, question)
            server._clients.pop()
        else:
            answered(server, clients[number % KEPT], question)
    server.close()


main()
