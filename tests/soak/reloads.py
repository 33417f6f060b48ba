"""Reload after reload under keep-alive load: nothing lost, nothing reset, nothing grown.

    python tests/soak/reloads.py [--count 100] [--import-seconds 2] [--clients 16] [-- FLAGS OF THE PROGRAM]

`make soak-reloads` runs it.

The longest wait is printed and not judged: it is the machine's as much as the program's.
"""

from __future__ import annotations

import argparse
import gc
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the tests' own modules, in place of this folder's

import psutil

from harness import processes
from harness.load import Load
from harness.program import Program, listener
from soak import growth

WORKERS = 4
CLIENTS = 16
CALM = 200  # answers before each reload, and after it
TURNS = 5  # reloads under one load; then its books are closed
SOURCE = """
import time
time.sleep({seconds})
BODY = b"{version}"
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
"""


class Reloads:
    def __init__(self, folder: Path, import_seconds: float, clients: int = CLIENTS, flags: Sequence[str] = ()) -> None:
        self.folder = folder
        self.flags = flags  # of the program, beside its own
        self.clients = clients
        self.import_seconds = import_seconds
        self.version = 0
        self.answers = 0
        self.longest = 0.0
        self.wrong: list[str] = []
        self.sizes: list[growth.Size] = []

    def run(self, count: int) -> bool:
        """Whether all went well."""
        program = self._start()
        try:
            self._turn(program, 1)
            self._measure(program)
            for done in range(0, count, TURNS):
                self._turn(program, min(TURNS, count - done))
            self._measure(program)
            if (status := program.stop()) != 0:
                self.wrong.append(f"exit status {status}")
        finally:
            program.close()
        self.wrong += growth.grown(self.sizes[0], self.sizes[-1])
        return not self.wrong

    def _start(self) -> Program:
        self._release()
        with listener() as made:
            arguments = ("-w", str(WORKERS), "--log-level", "debug", *self.flags, "release:app")
            program = Program(arguments, cwd=self.folder, listeners=[made], address=made.getsockname())
        return program.wait_ready()

    def _release(self) -> None:
        self.version += 1
        fresh = self.folder / "release.py.new"
        fresh.write_text(SOURCE.format(version=self.version, seconds=self.import_seconds))
        fresh.rename(self.folder / "release.py")

    def _reload(self, program: Program) -> float:
        """When the new release serves, and nothing else any more."""
        since = program.log.mark()
        self._release()
        program.send(signal.SIGHUP)
        return program.log.wait(rf"generation {self.version} serves", since).at

    def _turn(self, program: Program, count: int) -> None:
        with Load(program.address, clients=self.clients) as load:
            for _ in range(count):
                load.more(CALM)
                serves = self._reload(program)
                load.more(CALM)
                late = {answer.body for answer in load.after(serves)} - {str(self.version)}
                self.wrong += [f"release {body} answers after {self.version} serves" for body in late]
        self.wrong += load.lost
        self.wrong += [f"status {answer.status}" for answer in load.answers if answer.status != 200]
        self.answers += len(load.answers)
        self.longest = max(self.longest, load.longest())

    def _measure(self, program: Program) -> None:
        """A generation that has not served yet, and nothing of older ones."""
        self._reload(program)
        now = {member.pid for member in program.family() if member.generation == self.version}
        for child in psutil.Process(program.pid).children(recursive=True):
            if child.pid not in now and not processes.wait_gone(child.pid):
                self.wrong.append(f"{processes.title(child.pid)} does not end")
        self.sizes.append(growth.measure(program.pid))

    def report(self) -> str:
        lines = [
            f"{self.version - 1} reloads, an import takes {self.import_seconds:g} s",
            f"{self.answers} answers, longest wait {self.longest * 1000:.1f} ms",
            *(f"{when}: {size}" for when, size in zip(("first", "last"), self.sizes, strict=False)),
            *self.wrong[:20],
        ]
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/soak/reloads.py", description="Reloads under keep-alive load.")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--import-seconds", type=float, default=2)
    parser.add_argument("--clients", type=int, default=CLIENTS, help="they never pause: many of them fill every core")
    parser.add_argument("flags", nargs="*", help="flags of the program, after --")
    given = parser.parse_args()
    processes.adopt_orphans()
    gc.disable()  # a collection among a million answers that are kept would be measured as a client's wait
    with tempfile.TemporaryDirectory(prefix="forkserver-reloads-") as folder:
        reloads = Reloads(Path(folder), given.import_seconds, given.clients, given.flags)
        well = reloads.run(given.count)
    print(reloads.report())
    print("nothing lost, nothing grown" if well else f"FAILED, {len(reloads.wrong)} times")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
