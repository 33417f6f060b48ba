"""How long a client waits: beside slow calls, beside slow clients, and where calls sleep."""

from __future__ import annotations

import collections
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from bench import crowd, queueing, wrk
from bench.client import Answer, Arrivals, Load, Question, percentile
from bench.peers import PeerError, Setup
from bench.questions import question
from bench.scenario import CPU, RATE, Figure, Figures, Scenario, Stand, total, worst
from bench.servers import Server
from bench.wrk import Asking

SLOW_SHARE = 0.02
SLOW_SECONDS = 0.3
CLIENTS = 12
WORKERS = 4
CONNECTIONS = 64  # for questions that come at random moments
LIMIT = 600.0  # requests a second of which slow calls alone fill 3.6 of four workers
SLOW_CLIENTS = 1000
DRIP_SECONDS = 0.5
PATIENCE_SECONDS = 5.0
SLEEPY = "sleepy:app"  # /sleep/MILLISECONDS/… sleeps
LOST = Figure("lost", "lost", over=total)
LONGEST = Figure("longest", "longest ms", "{:,.1f}", worst)


def fast_and_slow(number: int) -> Iterator[Question]:
    """Two in a hundred are slow, at places that are drawn, the same ones in every run."""
    fast, slow = question("/sleep/0/"), question(f"/sleep/{SLOW_SECONDS * 1000:.0f}/")
    draw = random.Random(number).random
    while True:
        yield Question("slow", slow) if draw() < SLOW_SHARE else Question("fast", fast)


def only_fast(_: int) -> Iterator[Question]:
    return itertools.repeat(Question("fast", question("/10k/item")))


def waits(load: Load) -> Figures:
    """Milliseconds, of the fast ones only; ``worst`` is the p95 of the client that fares worst."""
    if not any(answer.kind == "fast" for answer in load.answers):
        raise PeerError(load.why())
    figures = of_fast_ones(load.answers)
    if len({answer.client for answer in load.answers if answer.kind == "fast"}) < load.clients:
        figures["worst"] = load.timeout * 1000  # a client had no answer at all
    return figures


def of_fast_ones(answers: Iterable[Answer]) -> Figures:
    """As ``waits``, of clients that all have answers."""
    each: dict[int, list[float]] = collections.defaultdict(list)
    for answer in answers:
        if answer.kind == "fast":
            each[answer.client].append(answer.seconds * 1000)
    fast = [value for values in each.values() for value in values]
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    worst_off = max(percentile(values, shares["p95"]) for values in each.values())
    return {key: percentile(fast, share) for key, share in shares.items()} | {"longest": max(fast), "worst": worst_off}


def mixed(stand: Stand) -> Figures:
    server = stand.server(Setup(app=SLEEPY, workers=WORKERS, threads=1))
    with Load(server.port, CLIENTS, fast_and_slow) as load:
        load.run(stand.seconds)
        load.finish()
        return waits(load) | {
            "lost": load.lost.total(),
            "rate": len(load.answers) / stand.seconds,
        }


def at_the_limit(stand: Stand) -> Figures:
    """As ``mixed``, beside one perfect queue with the same clients."""
    server, (fast, turn) = _calibrated(stand)
    with Load(server.port, CLIENTS, fast_and_slow) as load:
        load.run(stand.seconds)
        load.finish()
        return _beside_perfect(
            waits(load),
            queueing.closed(CLIENTS, WORKERS, fast_and_slow, _service(fast - turn), turn, stand.seconds),
        )


def below_the_limit(rate: float, stand: Stand) -> Figures:
    """Questions at random moments, ``rate`` a second, and what a perfect queue makes of the same ones."""
    server, (fast, _) = _calibrated(stand)
    with Arrivals(server.port, CONNECTIONS, fast_and_slow, rate, seed=int(rate)) as load:
        load.run(stand.seconds)
        load.finish()
        asked = [(answer.asked, answer.client, answer.kind) for answer in load.answers]
        return _beside_perfect(of_fast_ones(load.answers), queueing.opened(asked, WORKERS, _service(fast)))


def _calibrated(stand: Stand) -> tuple[Server, tuple[float, float]]:
    """The server; seconds of a fast request that nothing is before, and how many of them are the clients' own work."""
    server = stand.server(Setup(app=SLEEPY, workers=WORKERS, threads=1))
    with Load(server.port, 1, only_fast) as alone:
        alone.run(1.0)
        alone.finish()
    with Load(server.port, CLIENTS, only_fast) as together:
        together.run(1.0)
        together.finish()
    fast = percentile([answer.seconds for answer in alone.answers], 0.5)
    return server, (fast, min(fast, 1.0 / len(together.answers)))


def _service(fast: float) -> queueing.Service:
    return lambda kind: fast + (SLOW_SECONDS if kind == "slow" else 0.0)


def _beside_perfect(figures: Figures, answers: list[Answer]) -> Figures:
    return figures | {f"perfect-{key}": value for key, value in of_fast_ones(answers).items()}


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


def queued(name: str, title: str, about: str, measure: Callable[[Stand], Figures]) -> Scenario:
    headings = {"p95": "p95 ms", "p99": "p99 ms", "worst": "worst client's p95 ms"}
    figures = [
        Figure(prefix + key, named, "{:,.1f}")
        for key, heading in headings.items()
        for prefix, named in (("", heading), ("perfect-", "perfect"))
    ]
    return Scenario(
        name,
        title,
        f"{about} 2 % sleep 300 ms. Beside each figure stands that of one perfect queue before {WORKERS} workers,"
        " simulated with the same clients.",
        tuple(figures),
        measure,
        ("p95", "perfect-p95"),
        seconds=20,
        peers=("forkserver", "gunicorn-sync", "gunicorn-gthread", "granian", "bjoern", "fastpysgi"),
        logarithmic=True,
    )


MORE = (
    queued(
        "queue",
        "Fast requests beside slow ones, and the limit",
        f"{CLIENTS} keep-alive clients that ask again at once, as many as the workers can serve.",
        at_the_limit,
    ),
    queued(
        "queue-half",
        "The same at half the load",
        f"{LIMIT / 2:.0f} requests a second at random moments, by {CONNECTIONS} connections.",
        partial(below_the_limit, LIMIT / 2),
    ),
    queued(
        "queue-quarter",
        "The same at a quarter of the load",
        f"{LIMIT / 4:.0f} requests a second at random moments, by {CONNECTIONS} connections.",
        partial(below_the_limit, LIMIT / 4),
    ),
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
