"""What ``forkserverctl profile`` costs while it runs: the same server with a profile and without, in turns.

    python -m bench profiled [--rounds 7] [--seconds 3] [--rate 100]

Each round asks once without and once with a profile, the order turned round in every second one. What counts is the CPU
time of the whole process tree by the requests answered; the median of the rounds' ratios is told, and how much of a
processor the sampling thread has taken, which other work on the machine does not change as much. The client that reads
the samples runs on the client's core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from bench import machine, servers, wrk
from bench.machine import environment
from bench.peers import OWN, PEERS, PeerError, Setup
from bench.servers import Server
from bench.wrk import Asking

LOADS = {
    "small answers": (Setup(), Asking(connections=4)),
    "Flask": (Setup(app="flask_site:app"), Asking(connections=4)),
    "Django": (Setup(app="django_site:app"), Asking(connections=4)),
    "Django, 4 threads": (Setup(app="django_site:app", threads=4), Asking(connections=8)),
}
_MORE_SECONDS = 2  # that a profile lasts longer than the load


@contextmanager
def profiling(socket: str, seconds: int, rate: int) -> Iterator[None]:
    """A client that takes a profile by path meanwhile; PeerError where there is none."""
    command = [sys.executable, "-m", "forkserver.cli.control", "--socket", socket, "profile", "--by-path"]
    flags = ["--seconds", str(seconds + _MORE_SECONDS), "--rate", str(rate), "--json"]
    with tempfile.TemporaryFile() as out:
        client = subprocess.Popen([*command, *flags], stdout=out, stderr=out, env=environment())
        try:
            yield
        finally:
            status = client.wait()
        if status:
            out.seek(0)
            raise PeerError(f"no profile: {out.read()[-500:].decode(errors='replace')}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m bench profiled", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=100)
    options = parser.parse_args(arguments)
    machine.prepare()
    machine.need("wrk")
    print(machine.description(), flush=True)
    for name, (setup, asking) in LOADS.items():
        ratios, shares = _measured(setup, asking, options)
        print(
            f"{name}: {100 * (statistics.median(ratios) - 1):+.1f} % CPU a request "
            f"({100 * (min(ratios) - 1):+.1f} to {100 * (max(ratios) - 1):+.1f}); "
            f"the sampling thread takes {100 * statistics.median(shares):.1f} % of a processor",
            flush=True,
        )
    return 0


def _measured(setup: Setup, asking: Asking, options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Of each round: CPU a request with a profile by that without, and the thread's share of a processor."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        socket = str(Path(folder) / "control.sock")
        controlled = Setup(setup.app, threads=setup.threads, environ=(("FORKSERVER_CONTROL_SOCKET", socket),))
        with servers.running(PEERS[OWN], controlled) as server:
            ratios, shares = [], []
            for number in range(options.rounds):
                cost = {}
                for profiled in (False, True) if number % 2 else (True, False):
                    profile = profiling(socket, options.seconds, options.rate) if profiled else nullcontext()
                    with profile:
                        cost[profiled] = wrk.ask(server, asking, options.seconds)["cpu"]
                        if profiled:
                            shares.append(_share_of_youngest(server))
                ratios.append(cost[True] / cost[False])
    return ratios, shares


def _share_of_youngest(server: Server) -> float:
    """How much of a processor the thread has used that was started last, since it was. Source: proc(5), schedstat."""
    folders = (Path(f"/proc/{process.pid}/task") for process in server.tree())
    youngest = max((task for folder in folders for task in folder.iterdir()), key=lambda task: int(task.name))
    used = int((youngest / "schedstat").read_text().split()[0]) / 1e9
    started = int((youngest / "stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return used / (time.clock_gettime(time.CLOCK_BOOTTIME) - started)
