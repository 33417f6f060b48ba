"""Stop after stop under load: who connected before the listener closed is answered.

    python tests/soak/stops.py [--count 50] [-- FLAGS OF THE PROGRAM]          see `make soak-stops`

Only a connect may be refused. The longest wait is printed and not judged.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the tests' own modules, in place of this folder's

from harness import processes
from harness.clients import Address
from harness.load import Load
from harness.program import APPS, Program, own_address
from soak.service import written

WORKERS = 4
CLIENTS = 12  # of each kind
BEFORE = 100  # answers of each kind before the stop
REFUSED = ("connecting: ConnectionRefusedError", "connecting: FileNotFoundError")  # the latter of a Unix socket
KINDS = ("", "Connection: close\r\n")  # kept alive, and a connection for each request


class Stops:
    def __init__(self, folder: Path, flags: Sequence[str] = ()) -> None:
        self.folder = folder
        self.flags = flags  # of the program, beside its own
        self.done = 0
        self.answers = 0
        self.longest = 0.0
        self.wrong: list[str] = []

    def run(self, count: int) -> bool:
        """Whether all went well."""
        for _ in range(count):
            self._stop_once()
        return not self.wrong

    def _stop_once(self) -> None:
        addresses: tuple[Address, ...] = (own_address(), str(self.folder / "stops.sock"))
        # Bound by itself: the queue of a listener that was given belongs to the next program.
        binds = [flag for address in addresses for flag in ("-b", written(address))]
        arguments = ("--pythonpath", str(APPS), *binds, "-w", str(WORKERS), *self.flags, "raw:app")
        program = Program(arguments, cwd=self.folder)
        try:
            program.wait_ready()
            below = [member.pid for member in program.family()]
            self._stop(program, addresses)
        finally:
            program.close()
        self.wrong += [f"left behind: {processes.title(pid)}" for pid in below if not processes.wait_gone(pid, 0)]
        self.done += 1

    def _stop(self, program: Program, addresses: tuple[Address, ...]) -> None:
        with ExitStack() as stack:
            loads = [
                stack.enter_context(Load(address, clients=CLIENTS // 2, headers=headers))
                for address in addresses
                for headers in KINDS
            ]
            for load in loads:
                load.more(BEFORE)
            if (status := program.stop()) != 0:
                self.wrong.append(f"exit status {status}")
        for load in loads:
            self.wrong += [f"stop {self.done + 1}: {loss}" for loss in load.lost if not loss.startswith(REFUSED)]
            self.wrong += [f"status {answer.status}" for answer in load.answers if answer.status != 200]
            self.answers += len(load.answers)
            self.longest = max(self.longest, load.longest())

    def report(self) -> str:
        first = f"{self.done} stops: {self.answers} answers, longest wait {self.longest * 1000:.1f} ms"
        return "\n".join([first, *self.wrong[:20]])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/soak/stops.py", description="Stops under load.")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("flags", nargs="*", help="flags of the program, after --")
    given = parser.parse_args()
    processes.adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="forkserver-stops-") as folder:
        stops = Stops(Path(folder), given.flags)
        well = stops.run(given.count)
    print(stops.report())
    print("nobody was reset" if well else f"FAILED, {len(stops.wrong)} times")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
