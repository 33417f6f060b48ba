"""What a server takes: memory of many workers and of idle connections, and the time to its first answer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from bench import wrk
from bench.client import Load, Question
from bench.crowd import Idle
from bench.peers import PeerError, Setup
from bench.questions import question
from bench.scenario import RATE, Figure, Figures, Scenario, Stand
from bench.servers import Server
from bench.wrk import Asking

MIB = 1024 * 1024
IDLE = 10_000
SOURCES = itertools.cycle(range(2, 250))  # an address for each crowd: the last one's ports may be in TIME_WAIT
WORKERS = 8
STARTED = (1, 4, 32)  # workers
REPLACED_WITHIN_SECONDS = 60.0
PROJECT = Setup(app="django_site:app", workers=WORKERS, every_core=True)


def first_answer(stand: Stand) -> Figures:
    counts = STARTED if stand.peer.many else STARTED[:1]
    return {key: value for workers in counts for key, value in _start(stand, workers).items()}


def _start(stand: Stand, workers: int) -> Figures:
    with stand.starting(Setup(workers=workers)) as server:
        first = server.await_answer(pause=0.001)
        return {f"start{workers}": first * 1000, f"cpu{workers}": server.settled_cpu_seconds() * 1000}


def beside_a_crowd(stand: Stand) -> Figures:
    """A server of its own in each round: what the last crowd gave back would make the next one look cheaper."""
    with stand.fresh(Setup(connections=IDLE + 100)) as server:
        alone = wrk.ask(server, Asking(), stand.seconds)
        before = server.proportional()
        crowd = Idle(server.port, IDLE, f"127.0.0.{next(SOURCES)}")
        try:
            grown = server.proportional() - before
            beside = wrk.ask(server, Asking(), stand.seconds)
            if (kept := crowd.still_there()) < IDLE:
                raise PeerError(f"kept {kept:,} of {IDLE:,} idle connections")
        finally:
            crowd.leave()
    return {
        "each": grown / IDLE,
        "alone": alone["cpu"],
        "cpu": beside["cpu"],
        "rate": beside["rate"],
        "adds": (beside["cpu"] / alone["cpu"] - 1) * 100,
    }


def of_many_workers(stand: Stand) -> Figures:
    """Memory when every worker has worked, and again after a reload."""
    with stand.fresh(PROJECT) as server:
        server.await_rest()  # the last worker may start a while after the first one answers
        _work(server, stand.seconds)
        memory = server.proportional() / MIB
        before = server.pids()
        server.reload()
        _await_replaced(server, before)
        server.await_rest()
        _work(server, stand.seconds)
        return {"memory": memory, "again": server.proportional() / MIB}


def _work(server: Server, seconds: float) -> None:
    """A connection per request, so that every worker gets some."""
    with Load(server.port, 4 * WORKERS, _pages, timeout=10.0) as load:
        load.run(seconds)
        load.finish()
        if len(load.answers) < 10 * WORKERS:
            raise PeerError(f"{len(load.answers)} answered; lost: {load.why()}")


def _pages(_: int) -> Iterator[Question]:
    data = question("/item/1").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    return itertools.repeat(Question("page", data))


def _await_replaced(server: Server, before: set[int]) -> None:
    until = time.monotonic() + REPLACED_WITHIN_SECONDS
    while before & server.pids():
        if time.monotonic() > until:
            raise PeerError(f"workers of before HUP were there {REPLACED_WITHIN_SECONDS:.0f} s after it")
        time.sleep(0.1)
    server.await_answer()


ALL = (
    Scenario(
        "idle",
        "10,000 idle connections",
        "16 active connections, alone and beside 10,000 that have each had one answer and are kept. Memory (PSS) is"
        " what the crowd adds to the server's processes; what the kernel keeps for a socket is not in it.",
        (
            Figure("each", "bytes an idle connection"),
            Figure("alone", "alone: CPU µs", "{:,.1f}"),
            Figure("cpu", "beside them: CPU µs", "{:,.1f}"),
            Figure("adds", "they add %", "{:+.1f}"),
            RATE,
        ),
        beside_a_crowd,
        ("each",),
    ),
    Scenario(
        "start",
        "Start to first answer",
        "From the start of the process to the first answer, asked for every millisecond; and the CPU time of all"
        " processes until every worker has started and they rest.",
        tuple(
            Figure(f"{key}{workers}", f"{workers} worker{'s'[: workers - 1]}: {unit}")
            for workers in STARTED
            for key, unit in (("start", "ms"), ("cpu", "CPU ms"))
        ),
        first_answer,
        ("start1", "start32"),
        rounds=15,
    ),
    Scenario(
        "memory",
        "Memory of 8 workers",
        "A Django project with its usual applications, 8 workers; PSS of all processes after each has worked, and"
        " again after a reload. forkserver-warm has `--warm-path /`, forkserver-unshared `--preload off`.",
        (Figure("memory", "MiB", "{:,.0f}"), Figure("again", "after a reload, MiB", "{:,.0f}")),
        of_many_workers,
        ("memory", "again"),
        rounds=1,
        peers=(
            "forkserver",
            "forkserver-warm",
            "forkserver-unshared",
            "gunicorn-sync",
            "gunicorn-preload",
            "uwsgi",
            "granian",
        ),
    ),
)
