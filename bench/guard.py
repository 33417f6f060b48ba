"""Whether this tree costs more CPU per request than another commit: both started side by side, measured in turn.

    python -m bench guard [--base main] [--rounds 9] [--seconds 2] [SCENARIO...]
    python -m bench guard --instructions [--base v1.0.0] [SCENARIO...]

Fails (status 1) where a request costs over 5 % more. In each round both are measured, in changing order; the figure is
the median of the rounds' ratios, the noise is how far such a median wanders (1.25 standard deviations by the root of
the rounds, the deviation taken from the median absolute one). Timed tests lie on machines that do something else: for
use by hand, before a merge. With --instructions valgrind counts what the processor executes outside the kernel, which
other work does not move, with the extension and without it.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench import instructions, machine
from bench.peers import OWN, PEERS, Peer
from bench.scenario import Stand
from bench.scenarios import SCENARIOS

ALLOWED = 1.05
GUARDED = ("keepalive", "fresh", "proxied", "close", "access-log", "tls", "handshakes")


class Verdict(NamedTuple):
    here: float  # CPU µs a request
    base: float
    ratio: float
    noise: float

    @classmethod
    def of(cls, here: list[float], base: list[float]) -> Verdict:
        ratios = [one / other for one, other in zip(here, base, strict=True)]
        middle = statistics.median(ratios)
        deviation = 1.4826 * statistics.median(abs(each - middle) for each in ratios)
        return cls(statistics.median(here), statistics.median(base), middle, 1.25 * deviation / math.sqrt(len(ratios)))

    def words(self) -> str:
        if self.ratio > ALLOWED:
            return "WORSE" if self.ratio - self.noise > ALLOWED else "WORSE, but the noise could be all of it"
        return (
            "good" if self.ratio + self.noise <= ALLOWED else "good, but the noise reaches over the limit: more rounds"
        )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m bench guard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", default=GUARDED, metavar="SCENARIO", help=", ".join(GUARDED))
    parser.add_argument("--base", default="main", help="a branch, tag or commit")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--instructions", action="store_true", help="count them in place of time")
    options = parser.parse_args(arguments)
    if unknown := set(options.scenarios) - set(GUARDED):
        parser.error(f"not guarded: {', '.join(sorted(unknown))}; there are {', '.join(GUARDED)}")
    if options.instructions:
        machine.need("valgrind")
    else:
        machine.prepare()
    with archived(options.base) as folder:
        if options.instructions:
            worse = [instructions.costs_more(name, machine.TOP, folder, ALLOWED) for name in options.scenarios]
            return int(any(worse))
        here, base = at("this tree", machine.TOP), at(options.base, folder)
        print(f"{machine.description()}; this tree ({machine.revision()}) against {options.base}")
        verdicts = [compared(name, here, base, options.rounds, options.seconds) for name in options.scenarios]
    return int(any(each.ratio > ALLOWED for each in verdicts))


@contextmanager
def archived(base: str) -> Iterator[Path]:
    """The files of that commit, in a folder of their own, with the extension built if it has one."""
    with tempfile.TemporaryDirectory(prefix="bench-base-") as folder:
        archive = subprocess.run(["git", "-C", str(machine.TOP), "archive", base], capture_output=True, check=False)
        if archive.returncode:
            raise machine.MissingError(f"git knows no {base!r}: {archive.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        if Path(folder, "setup.py").exists():
            _build(Path(folder))
        yield Path(folder)


def _build(tree: Path) -> None:
    """Build the extension of that tree, with what it asks for, and put it beside its sources."""
    with tempfile.TemporaryDirectory(prefix="bench-build-") as built:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", built, str(tree)]
        subprocess.run(command, check=True)
        for extension in Path(built).glob("forkserver/**/*.so"):
            shutil.copy(extension, tree / extension.relative_to(built))


def at(name: str, folder: Path) -> Peer:
    """Our server from that folder, in place of the one that is installed."""
    peer = replace(PEERS[OWN], name=name, paths=(str(folder),))
    question = [sys.executable, "-c", "import forkserver; print(forkserver.__file__)"]
    variables = machine.environment(*peer.paths)
    found = subprocess.run(question, env=variables, cwd=machine.APPS, capture_output=True, text=True, check=True).stdout
    if not Path(found.strip()).is_relative_to(folder):
        raise machine.MissingError(f"{found.strip()} would be measured in place of {folder}")
    return peer


def compared(scenario: str, here: Peer, base: Peer, rounds: int, seconds: int) -> Verdict:
    measure = SCENARIOS[scenario].measure
    costs: dict[str, list[float]] = {here.name: [], base.name: []}
    with ExitStack() as stack:
        stands = [Stand(peer, stack, seconds) for peer in (here, base)]
        for number in range(rounds + 1):
            for stand in stands[:: -1 if number % 2 else 1]:
                cost = measure(stand)["cpu"]
                if number:  # the first round warms both up
                    costs[stand.peer.name].append(cost)
    verdict = Verdict.of(costs[here.name], costs[base.name])
    figures = f"{verdict.here:.2f} µs here, {verdict.base:.2f} µs there: {(verdict.ratio - 1) * 100:+.1f} %"
    print(f"{scenario:10} {figures} ± {verdict.noise * 100:.1f} %: {verdict.words()}", flush=True)
    return verdict
