"""A worker's loop in one process with its clients, for a run under valgrind: ``counted.py TREE COUNT [--access-log]``.

The questions, COUNT of which are asked, are a JSON list on stdin. valgrind lacks a system call that the whole program
needs (pidfd_open). The loop, its row of the scoreboard and the application are those of a worker; the clients are plain
sockets, and cost the same in each tree.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

KEPT = 4  # connections
TREE, COUNT = Path(sys.argv[1]), int(sys.argv[2])
sys.path[:0] = [str(TREE), str(TREE / "tests")]

import hello  # noqa: E402

from forkserver.logs.access_log import AccessLog  # noqa: E402
from harness.worker import Clock, Worker  # noqa: E402


def answered(server: Any, client: socket.socket, question: bytes) -> None:
    """Ask, and turn the loop until the answer is there."""
    client.sendall(question)
    server.loop.turn(1.0)
    while True:
        try:
            data = client.recv(65536)
        except BlockingIOError:
            server.loop.turn(1.0)
            continue
        if not data.startswith(b"HTTP/1.1 200 ") or not data.endswith(hello.BODY):
            raise SystemExit(f"answered {data!r}")
        return


def main() -> None:
    questions = [question.encode() for question in json.load(sys.stdin)]
    closes = b"Connection: close" in questions[0]
    server: Any = Worker(hello.app, Clock())
    if "--access-log" in sys.argv:
        server.replace(access=AccessLog(os.devnull))
    clients = [server.client() for _ in range(KEPT)]
    for number in range(COUNT):
        question = questions[number % len(questions)]
        if closes:
            with server.client() as client:
                answered(server, client, question)
            server._clients.pop()
        else:
            answered(server, clients[number % KEPT], question)
    server.close()


main()
