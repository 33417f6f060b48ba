"""A normal client beside a thousand slow ones: what it loses and how long it waits, forkserver and peers in turn.

    python bench/slow_clients.py [--connections 1000] [--seconds 25] [--workers 2] [SERVER...]

Needs slowhttptest (Debian's package of that name); servers other than forkserver must be installed beside it. Three
attacks on each server, on loopback only: request heads that never end, bodies that never end, and a mebibyte of answer
that is hardly read. The normal client asks every 10 ms on one connection kept alive, and gives an answer 5 seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from common import HOST, running

ATTACKS = {
    "slow head": "-H -i 10",
    "slow body": "-B -i 10 -s 8192",
    "slow read": "-X -w 64 -y 512 -n 5 -z 32",
}
SERVERS = {
    "forkserver": ["--worker-connections", "4000"],
    "gunicorn": ["-k", "sync"],
}
PAUSE_SECONDS = 0.01
PATIENCE_SECONDS = 5.0


class Normal:
    """A client such as everyone has: one connection kept alive, opened again where the server closed it politely."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_SECONDS)
        self.waits: list[float] = []
        self.lost: list[str] = []

    def ask(self) -> None:
        asked = time.monotonic()
        try:
            self.connection.request("GET", "/")
            answer = self.connection.getresponse()
            if answer.status != 200:
                raise http.client.HTTPException(f"status {answer.status}")
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.lost.append(repr(error))
            self.connection.close()
        else:
            self.waits.append(time.monotonic() - asked)

    def ask_while(self, attack: subprocess.Popen[bytes]) -> None:
        while attack.poll() is None:
            self.ask()
            time.sleep(PAUSE_SECONDS)


class Outcome(NamedTuple):
    held: int  # attacking connections open at once, at most
    out_of_service: int  # seconds in which slowhttptest's own probe had no answer
    normal: Normal


def attack(flags: str, port: int, connections: int, seconds: int) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        size = ["-c", str(connections), "-r", str(connections // 5), "-l", str(seconds), "-p", "3"]
        target = ["-u", f"http://{HOST}:{port}/large", "-g", "-o", str(report)]
        command = ["slowhttptest", *flags.split(), *size, *target]
        normal = Normal(port)
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as attacker:
            normal.ask_while(attacker)
        with report.with_suffix(".csv").open() as rows:
            return Outcome(*read_report(rows), normal)


def read_report(rows: Iterable[str]) -> tuple[int, int]:
    seconds = list(csv.DictReader(rows))
    held = max(int(row["Connected"]) for row in seconds)
    return held, sum(row["Service Available"] == "0" for row in seconds)


def line(name: str, mode: str, outcome: Outcome) -> str:
    normal = outcome.normal
    counts = f"{outcome.held:6} {outcome.out_of_service:8} {len(normal.waits):9} {len(normal.lost):6}"
    words = f"{mode:10} {name:11} {counts}"
    if len(normal.waits) < 2:
        return f"{words}        -        -        -"
    milliseconds = [wait * 1000 for wait in normal.waits]
    p99 = statistics.quantiles(milliseconds, n=100, method="inclusive")[98]
    return f"{words} {statistics.median(milliseconds):8.2f} {p99:8.2f} {max(milliseconds):8.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", default=["forkserver"], metavar="SERVER", help=" ".join(SERVERS))
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=25)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mode", action="append", choices=ATTACKS, help="only this one; may be repeated")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {options.workers} workers, {options.connections} slow connections")
    print("                         slow  seconds    normal client:              ms")
    print("mode       server        held  no probe  answered   lost   median      p99      max")
    for mode in options.mode or ATTACKS:
        for name in options.servers:
            with running(name, *SERVERS[name], module="large", workers=options.workers, core=None) as (_, port):
                outcome = attack(ATTACKS[mode], port, options.connections, options.seconds)
            print(line(name, mode, outcome), flush=True)
            for reason in sorted(set(outcome.normal.lost)):
                print(f"    lost: {outcome.normal.lost.count(reason)} x {reason}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
