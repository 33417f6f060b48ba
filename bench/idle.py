"""What idle connections cost one worker: its memory for each, and what they add to the requests of active ones.

    python bench/idle.py [--connections 10000] [--rounds 5] [--seconds 4]

Each round measures 16 active connections (wrk, Debian's package) without the crowd, opens the crowd, each of it asks
once and then stays silent, and measures again; the figures are medians of the rounds. The server has core 0, the
clients core 1. Memory is what the first crowd adds to the worker's own; what the kernel keeps for a socket is not in
it. The hard limit of open files must be above the number of connections.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import sys
from typing import NamedTuple

import psutil
from common import HEADERS, HOST, as_flags, measure, running

FIELDS = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
QUESTION = f"GET / HTTP/1.1\r\n{FIELDS}\r\n".encode()
WIDTH = 256  # connections opened and asked together: less than any listen queue


class Memory(NamedTuple):
    resident: int
    proportional: int

    @classmethod
    def of(cls, worker: psutil.Process) -> Memory:
        figures = worker.memory_full_info()
        return cls(figures.rss, figures.pss)


class Crowd:
    """Connections that have each had one answer, and are kept alive."""

    def __init__(self, source: str, port: int, size: int) -> None:
        self.members: list[socket.socket] = []
        while len(self.members) < size:
            self._arrive(source, port, min(WIDTH, size - len(self.members)))

    def _arrive(self, source: str, port: int, count: int) -> None:
        arriving = [socket.create_connection((HOST, port), source_address=(source, 0)) for _ in range(count)]
        for member in arriving:
            member.sendall(QUESTION)
        for member in arriving:
            answer = member.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"one of the crowd was answered {answer[:60]!r}")
        self.members += arriving

    def still_there(self) -> int:
        return sum(self._open(member) for member in self.members)

    @staticmethod
    def _open(member: socket.socket) -> bool:
        member.setblocking(False)
        try:
            return member.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def leave(self) -> None:
        for member in self.members:
            member.close()


def worker_of(master: int) -> psutil.Process:
    return next(each for each in psutil.Process(master).children(recursive=True) if "worker" in each.cmdline()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    flags = ["--worker-connections", str(options.connections + 100), "--keep-alive", "3600"]
    alone: list[tuple[float, float]] = []
    beside: list[tuple[float, float]] = []
    grown: list[Memory] = []
    with running("forkserver", *flags) as (server, port):
        os.sched_setaffinity(0, {1})
        for turn in range(options.rounds):
            alone.append(measure(server.pid, port, options.seconds, *as_flags(HEADERS)))
            worker = worker_of(server.pid)
            before = Memory.of(worker)
            # A source address for each round: ports of the last one may still be in TIME_WAIT.
            crowd = Crowd(f"127.0.0.{2 + turn % 250}", port, options.connections)
            after = Memory.of(worker)
            grown.append(Memory(*(late - early for late, early in zip(after, before, strict=True))))
            beside.append(measure(server.pid, port, options.seconds, *as_flags(HEADERS)))
            if (left := crowd.still_there()) < options.connections:
                print(f"   only {left} of the crowd were kept")
            crowd.leave()
    report(options.connections, options.rounds, alone, beside, grown)


def report(
    size: int, rounds: int, alone: list[tuple[float, float]], beside: list[tuple[float, float]], grown: list[Memory]
) -> None:
    print(f"Python {sys.version.split()[0]}, {size} idle connections on one worker, medians of {rounds} rounds")
    # Later crowds find what the one before gave back to the allocator, and would look cheaper.
    first = grown[0]
    print(f"bytes a connection (first crowd): RSS {first.resident / size:.0f}, PSS {first.proportional / size:.0f}")
    medians = [tuple(statistics.median(column) for column in zip(*part, strict=True)) for part in (alone, beside)]
    for name, (rate, cpu) in zip(("without the crowd", "beside the crowd"), medians, strict=True):
        print(f"{name:18} {rate:9.0f} requests/s {cpu:8.2f} CPU µs a request")
    print(f"the crowd adds {(medians[1][1] / medians[0][1] - 1) * 100:+.1f} % CPU a request")


if __name__ == "__main__":
    main()
