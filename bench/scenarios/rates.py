"""Requests a second, and what one costs: small answers to wrk's sixteen connections."""

from __future__ import annotations

from collections.abc import Callable

from bench import wrk
from bench.machine import CORES
from bench.peers import Setup
from bench.scenario import CPU, RATE, Figure, Figures, Scenario, Stand
from bench.wrk import Asking


def asking(load: Asking, setup: Setup = Setup()) -> Callable[[Stand], Figures]:  # noqa: B008 - it is frozen
    """A measurement by ``load`` of one server that is kept."""
    return lambda stand: wrk.ask(stand.server(setup), load, stand.seconds)


def with_access_log(stand: Stand) -> Figures:
    """The same server with the log and without, one after the other in each round."""
    off = wrk.ask(stand.server(Setup()), Asking(), stand.seconds)
    on = wrk.ask(stand.server(Setup(access_log=True)), Asking(), stand.seconds)
    return on | {"off": off["cpu"], "adds": (on["cpu"] / off["cpu"] - 1) * 100}


def one_and_two(stand: Stand) -> Figures:
    one = wrk.ask(stand.server(Setup()), Asking(), stand.seconds)
    setup = Setup(workers=2, every_core=True)
    two = wrk.ask(stand.server(setup), Asking(), stand.seconds)
    return {
        "one": one["rate"],
        "cpu": one["cpu"],
        "rate": two["rate"],
        "cpu2": two["cpu"],
        "times": two["rate"] / one["rate"],
    }


MAIN = (
    Scenario(
        "proxied",
        "A proxy's connections",
        "16 connections that stay, header fields of a browser, and another client on each request: agent, cookie,"
        " forwarded address, request id and path differ from one to the next.",
        (CPU, RATE),
        asking(Asking(proxied=True)),
        ("cpu",),
        main=True,
        rounds=5,
        seconds=4,
    ),
    Scenario(
        "keepalive",
        "Keep-alive",
        "16 connections that stay, header fields of a browser, the same on each request; path, query and one field"
        " of the answer vary.",
        (CPU, RATE),
        asking(Asking()),
        ("cpu",),
        main=True,
        rounds=5,
        seconds=4,
    ),
    Scenario(
        "fresh",
        "Headers that never repeat",
        "The same, with a value in `X-Request-Id` that no other request has: no whole block of fields repeats.",
        (CPU, RATE),
        asking(Asking(fresh=True)),
        ("cpu",),
        rounds=5,
        seconds=4,
    ),
    Scenario(
        "close",
        "A connection per request",
        "The same requests with `Connection: close`.",
        (CPU, RATE),
        asking(Asking(close=True)),
        ("cpu",),
        main=True,
        rounds=5,
        seconds=4,
    ),
)
OVER_TLS = ("forkserver", "gunicorn-sync", "gunicorn-gthread", "granian", "cheroot-tls")
MORE = (
    Scenario(
        "flask",
        "Hello under Flask",
        "The keep-alive load on a view of Flask that says hello.",
        (CPU, RATE),
        asking(Asking(path="/item/"), Setup(app="flask_site:app")),
        ("cpu",),
    ),
    Scenario(
        "django",
        "Hello under Django",
        "The keep-alive load on a view of a Django project, behind its usual middleware.",
        (CPU, RATE),
        asking(Asking(path="/item/"), Setup(app="django_site:app")),
        ("cpu",),
    ),
    Scenario(
        "access-log",
        "Access log on",
        "The keep-alive load with a line in a file for each request, and without.",
        (CPU, Figure("off", "without the log", "{:,.1f}"), Figure("adds", "the log adds %", "{:+.1f}"), RATE),
        with_access_log,
        ("cpu", "off"),
        peers=("forkserver", "gunicorn-sync", "gunicorn-gthread", "uwsgi", "granian"),
    ),
    Scenario(
        "tls",
        "Keep-alive over TLS",
        "The keep-alive load over HTTPS: TLS 1.3 and a key on P-256, on connections that stay.",
        (CPU, RATE),
        asking(Asking(), Setup(tls=True)),
        ("cpu",),
        peers=OVER_TLS,
    ),
    Scenario(
        "handshakes",
        "A handshake per request",
        "The same with `Connection: close`: a handshake, none of them resumed, and one request on each connection.",
        (Figure("rate", "handshakes/s", less_is_better=False), Figure("cpu", "CPU µs a handshake", "{:,.1f}")),
        asking(Asking(close=True), Setup(tls=True)),
        ("rate",),
        peers=OVER_TLS,
    ),
    Scenario(
        "workers",
        "One worker and two",
        "The keep-alive load on one worker that has a core for itself, and on two that may use every core"
        + (", the client's among them: this machine has no third one." if len(CORES) < 3 else "."),
        (
            Figure("times", "two do, of one", "{:.2f}", less_is_better=False),
            Figure("one", "one: requests/s"),
            Figure("cpu", "one: CPU µs", "{:,.1f}"),
            Figure("rate", "two: requests/s"),
            Figure("cpu2", "two: CPU µs", "{:,.1f}"),
        ),
        one_and_two,
        ("one", "rate"),
        peers=("forkserver", "gunicorn-sync", "gunicorn-gthread", "uwsgi", "granian", "bjoern", "fastpysgi"),
    ),
)
