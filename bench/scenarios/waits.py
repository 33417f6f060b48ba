"""How long a client waits: beside slow calls, beside slow clients, and where calls sleep."""

from __future__ import annotations

import collections
import itertools
import random
import time
from collections.abc import Iterator

from bench import crowd, wrk
from bench.client import Load, Question, percentile
from bench.peers import PeerError, Setup
from bench.questions import question
from bench.scenario import CPU, RATE, Figure, Figures, Scenario, Stand, total, worst
from bench.wrk import Asking

SLOW_SHARE = 0.02
SLOW_CLIENTS = 1000
DRIP_SECONDS = 0.5
PATIENCE_SECONDS = 5.0
SLEEPY = "sleepy:app"  # /sleep/MILLISECONDS/… sleeps
LOST = Figure("lost", "lost", over=total)
LONGEST = Figure("longest", "longest ms", "{:,.1f}", worst)


def fast_and_slow(number: int) -> Iterator[Question]:
    """Two in a hundred are slow, at places that are drawn, the same ones in every run."""
    fast, slow = question("/sleep/0/"), question("/sleep/300/")
    draw = random.Random(number).random
    while True:
        yield Question("slow", slow) if draw() < SLOW_SHARE else Question("fast", fast)


def only_fast(_: int) -> Iterator[Question]:
    return itertools.repeat(Question("fast", question("/10k/item")))


def waits(load: Load) -> Figures:
    """Milliseconds, of the fast ones only; ``worst`` is the p95 of the client that fares worst."""
    each: dict[int, list[float]] = collections.defaultdict(list)
    for answer in load.answers:
        if answer.kind == "fast":
            each[answer.client].append(answer.seconds * 1000)
    fast = [value for values in each.values() for value in values]
    if not fast:
        raise PeerError(load.why())
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    worst_off = max(percentile(values, shares["p95"]) for values in each.values())
    if len(each) < load.clients:
        worst_off = load.timeout * 1000  # somebody had no answer at all
    return {key: percentile(fast, share) for key, share in shares.items()} | {"longest": max(fast), "worst": worst_off}


def mixed(stand: Stand) -> Figures:
    server = stand.server(Setup(app=SLEEPY, workers=4, threads=1))
    with Load(server.port, 12, fast_and_slow) as load:
        load.run(stand.seconds)
        load.finish()
        return waits(load) | {
            "lost": load.lost.total(),
            "rate": len(load.answers) / stand.seconds,
        }


def beside_slow_clients(stand: Stand) -> Figures:
    """Each kind of slowness in turn; the figures are those of the worst."""
    server = stand.server(Setup(app="bodies:app", workers=2, connections=2 * SLOW_CLIENTS))
    return {
        f"{kind}-{key}": value
        for kind in ("head", "body", "read")
        for key, value in _beside(server.port, kind, stand).items()
    }


def _beside(port: int, kind: str, stand: Stand) -> Figures:
    dripped = 0.0

    def over() -> bool:
        nonlocal dripped
        now = time.monotonic()
        if now - dripped > DRIP_SECONDS:
            crowding.drip()
            dripped = now
        return now > until

    with crowd.slow(port, SLOW_CLIENTS, kind) as crowding, Load(port, 4, only_fast, PATIENCE_SECONDS) as load:
        until = time.monotonic() + max(stand.seconds, 2 * PATIENCE_SECONDS)
        load.run_until(over)
        held = crowding.held()
        load.finish()
    # Who answers nobody has lost them all, and made them wait for as long as they would.
    fast = waits(load) if load.answers else {"p99": PATIENCE_SECONDS * 1000}
    return {"p99": fast["p99"], "lost": load.lost.total(), "answered": len(load.answers), "held": held}


def sleeping_calls(stand: Stand) -> Figures:
    """Calls of 3 ms: four workers of one thread, and one."""
    load = Asking(path="/sleep/3/")
    one = wrk.ask(stand.server(Setup(app=SLEEPY, threads=1)), load, stand.seconds)
    four = wrk.ask(stand.server(Setup(app=SLEEPY, workers=4, threads=1)), load, stand.seconds)
    return {"one": one["rate"], "rate": four["rate"], "times": four["rate"] / one["rate"], "p99": four["p99"]}


def many_threads(stand: Stand) -> Figures:
    server = stand.server(Setup(app=SLEEPY, threads=64))
    return wrk.ask(server, Asking(path="/sleep/50/", connections=64), stand.seconds)


PER_KIND = tuple(
    Figure(f"{kind}-{key}", f"{kind}: {heading}", form, over)
    for kind in ("head", "body", "read")
    for key, heading, form, over in (
        ("p99", "p99 ms", "{:,.1f}", worst),
        ("lost", "lost", "{:,.0f}", total),
        ("held", "slow held", "{:,.0f}", worst),
    )
)
MAIN = (
    Scenario(
        "mixed",
        "Fast requests beside slow ones",
        "12 keep-alive clients, 4 workers of one thread; 2 % of the requests sleep 300 ms. The times are those of"
        " the fast ones, from question to answer.",
        (
            Figure("p95", "p95 ms", "{:,.1f}"),
            Figure("p50", "p50 ms", "{:,.2f}"),
            Figure("p99", "p99 ms", "{:,.1f}"),
            Figure("worst", "worst client's p95 ms", "{:,.1f}"),
            LONGEST,
            LOST,
            RATE,
        ),
        mixed,
        ("p50", "p95", "p99"),
        main=True,
        rounds=5,
        seconds=5,
        logarithmic=True,
    ),
)
MORE = (
    Scenario(
        "calls",
        "Calls that sleep, on one worker and on four",
        "16 clients whose calls sleep 3 ms, on one worker of one thread and on four.",
        (
            Figure("times", "four do, of one", "{:.2f}", less_is_better=False),
            Figure("one", "one: requests/s"),
            Figure("rate", "four: requests/s"),
            Figure("p99", "four: p99 ms", "{:,.1f}"),
        ),
        sleeping_calls,
        ("times",),
    ),
    Scenario(
        "threads",
        "64 threads",
        "One worker of 64 threads, 64 clients, calls that sleep 50 ms: 1,280 requests/s can be had.",
        (RATE, CPU, Figure("p50", "p50 ms", "{:,.1f}"), Figure("p99", "p99 ms", "{:,.1f}")),
        many_threads,
        ("cpu",),
        peers=("forkserver", "gunicorn-gthread", "uwsgi", "granian", "waitress", "cheroot"),
    ),
    Scenario(
        "slow-clients",
        "Normal clients beside slow ones",
        f"4 keep-alive clients beside {SLOW_CLIENTS:,} that send a head, or a body, or read an answer of 1 MB,"
        f" by a few bytes twice a second; 2 workers. The normal ones give an answer {PATIENCE_SECONDS:g} seconds.",
        PER_KIND,
        beside_slow_clients,
        tuple(each.key for each in PER_KIND if each.key.endswith("p99")),
        rounds=1,
        peers=("forkserver", "gunicorn-sync", "gunicorn-gthread", "granian", "bjoern", "fastpysgi"),
        logarithmic=True,
    ),
)
