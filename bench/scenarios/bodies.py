"""Bodies, large and small, up and down. wrk asks for the small ones; the large ones are taken by our own client.

wrk reads by 8 KiB, so that a body of megabytes would measure the client. Ours reads by a mebibyte.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.client import Load, Question
from bench.peers import PeerError, Setup
from bench.questions import question
from bench.scenario import CPU, RATE, Figure, Figures, Scenario, Stand
from bench.scenarios.rates import asking
from bench.wrk import Asking

APP = Setup(app="bodies:app")
MIB = 1024 * 1024
FILE_BYTES = 100 * 1000 * 1000
LARGE = 10 * 1000 * 1000  # ten million: FastPySGI takes no more
TRANSFER = (
    Figure("bytes", "MB/s", "{:,.0f}", less_is_better=False),
    Figure("cpu", "CPU ms a request", "{:,.2f}"),
    RATE,
    Figure("peak", "memory at most, MiB", "{:,.0f}"),
)
SECONDS_AT_MOST = 60.0


def transferring(data: bytes, clients: int, size: int, setup: Setup = APP) -> Callable[[Stand], Figures]:
    """``clients`` that send ``data`` and take the answer; ``size`` is what counts of one request, in bytes."""

    def measure(stand: Stand) -> Figures:
        server = stand.server(setup)
        before = server.cpu_seconds()
        with Load(server.port, clients, lambda _: itertools.repeat(Question("body", data)), SECONDS_AT_MOST) as load:
            load.run(stand.seconds)
            load.finish()
            if not load.answers or load.lost.total():
                raise PeerError(f"{len(load.answers)} answered; lost: {load.why()}")
            first = min(answer.asked for answer in load.answers)
            seconds = max(answer.asked + answer.seconds for answer in load.answers) - first
            count = len(load.answers)
        used = server.cpu_seconds() - before
        return {
            "bytes": count * size / seconds / 1e6,
            "cpu": used / count * 1e3,
            "rate": count / seconds,
            "peak": server.peak() / MIB,
        }

    return measure


def sending_a_file(stand: Stand) -> Figures:
    """The file is made once for each measurement, without blocks on the disk: what is read is the page cache."""
    with ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")), "file")
        with file.open("wb") as made:
            made.truncate(FILE_BYTES)
        target = f"/file{file}"
        return transferring(question(target), 4, FILE_BYTES)(stand)


ALL = (
    Scenario(
        "body-10k",
        "Answers of 10 KB",
        "Keep-alive, one block of 10,000 bytes.",
        (CPU, RATE),
        asking(Asking(path="/10k/"), APP),
        ("cpu",),
    ),
    Scenario(
        "body-1m",
        "Answers of 1 MB",
        "Keep-alive, 16 clients, one block of a million bytes.",
        TRANSFER,
        transferring(question("/1m/item"), 16, 1000 * 1000),
        ("bytes",),
    ),
    Scenario(
        "chunks",
        "Streams",
        "Keep-alive; 100 yielded blocks of 100 bytes, without a length: each goes out at once.",
        (CPU, RATE),
        asking(Asking(path="/chunks/"), APP),
        ("cpu",),
    ),
    Scenario(
        "post-10k",
        "Uploads of 10 KB",
        "Keep-alive; the application reads the body.",
        (CPU, RATE),
        asking(Asking(path="/post/", body=10_000), APP),
        ("cpu",),
    ),
    Scenario(
        "post-10m",
        "Uploads of 10 MB",
        "Keep-alive, 4 clients; the application reads the body by 64 KiB.",
        TRANSFER,
        transferring(question("/post/item", b"x" * LARGE), 4, LARGE),
        ("bytes",),
    ),
    Scenario(
        "file-100m",
        "A file of 100 MB",
        "Keep-alive, 4 clients; the application returns a `wsgi.file_wrapper`, where there is one.",
        TRANSFER,
        sending_a_file,
        ("bytes",),
    ),
)
