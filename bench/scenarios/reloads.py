"""What a reload costs clients: keep-alive load over two HUPs, on an application whose import takes two seconds."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

from bench.client import Load, Question
from bench.peers import PeerError, Setup, UnableError
from bench.questions import question
from bench.scenario import Figure, Figures, Scenario, Stand, total, worst
from bench.servers import Server

REPLACED_WITHIN_SECONDS = 90.0
LOOK_SECONDS = 0.2
PEERS = ("forkserver", "gunicorn-sync", "gunicorn-gthread", "uwsgi", "granian")


def hello(_: int) -> Iterator[Question]:
    return itertools.repeat(Question("hello", question("/item/1?page=1")))


def reloading(how: str, every_core: bool) -> Callable[[Stand], Figures]:
    """``how`` the import passes its two seconds: ``wait`` or ``burn``."""
    setup = Setup(app="slow_import:app", workers=4, every_core=every_core, environ=(("BENCH_IMPORT", how),))

    def measure(stand: Stand) -> Figures:
        if not stand.peer.reloads:
            raise UnableError("cannot reload")
        with stand.fresh(setup) as server, Load(server.port, 16, hello) as load:
            load.run(stand.seconds)
            quiet = load.longest()
            took = [_reload(server, load) for _ in range(2)]
            load.run(1)
            load.finish()
            if not load.answers:
                raise PeerError(load.why())
            return {
                "lost": load.lost.total(),
                "longest": load.longest() * 1000,
                "quiet": quiet * 1000,
                "took": max(took),
                "answered": len(load.answers),
            }

    return measure


def _reload(server: Server, load: Load) -> float:
    """Seconds until no process of before was left and the answers came from a new import."""
    before, asked, looked = server.pids(), time.time(), 0.0
    begun = time.monotonic()
    server.reload()

    def replaced() -> bool:
        nonlocal looked
        now = time.monotonic()
        if now > begun + REPLACED_WITHIN_SECONDS:
            raise PeerError(f"still the old code {REPLACED_WITHIN_SECONDS:.0f} s after HUP; lost: {load.why()}")
        if now < looked + LOOK_SECONDS:
            return False
        looked = now
        return bool(load.answers) and load.answers[-1].born > asked and not before & server.pids()

    load.run_until(replaced)
    return time.monotonic() - begun


def turnover(stand: Stand) -> Figures:
    """A start, and a reload, until the last worker has imported and the server rests."""
    with stand.fresh(COMPUTING) as server:
        started = server.await_rest() - server.started
        if not stand.peer.reloads:
            return {"start": started}
        before, begun = server.pids(), time.monotonic()
        server.reload()
        while before & server.pids():
            if time.monotonic() > begun + REPLACED_WITHIN_SECONDS:
                raise PeerError(f"still the old workers {REPLACED_WITHIN_SECONDS:.0f} s after HUP")
            time.sleep(LOOK_SECONDS)
        return {"start": started, "reload": server.await_rest() - begun}


COMPUTING = Setup(
    app="slow_import:app",
    workers=8,
    every_core=True,
    environ=(("BENCH_IMPORT", "burn"), ("BENCH_SECONDS", "1")),
)
FIGURES = (
    Figure("longest", "longest wait ms", "{:,.1f}", worst),
    Figure("lost", "requests lost", over=total),
    Figure("quiet", "longest before, ms", "{:,.1f}", worst),
    Figure("took", "until the last old process left, s", "{:.1f}", worst),
    Figure("answered", "answered", over=total, less_is_better=False),
)
MAIN = (
    Scenario(
        "reload",
        "Reload under load",
        "16 keep-alive clients on 4 workers, and two HUPs; the application's import waits two seconds.",
        FIGURES,
        reloading("wait", every_core=False),
        ("longest", "quiet"),
        main=True,
        rounds=1,
        seconds=2,
        peers=PEERS,
        logarithmic=True,
    ),
)
MORE = (
    Scenario(
        "turnover",
        "Start and reload of 8 workers with an import that computes",
        "The import computes for a second; seconds until the last worker has imported, on every core and without"
        " clients. forkserver-unshared has `--preload off`.",
        (Figure("start", "start s", "{:.1f}"), Figure("reload", "reload s", "{:.1f}")),
        turnover,
        ("start", "reload"),
        peers=("forkserver", "forkserver-unshared", "gunicorn-sync", "uwsgi", "granian"),
    ),
    Scenario(
        "reload-busy",
        "Reload under load, with an import that computes",
        "The same on every core, with an import that computes for two seconds: it takes a core from the others.",
        FIGURES,
        reloading("burn", every_core=True),
        ("longest", "quiet"),
        rounds=1,
        seconds=2,
        peers=PEERS,
        logarithmic=True,
    ),
)
