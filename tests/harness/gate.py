"""A gate in the application: calls block at it until the test opens it, and the test knows how many stand there.

Two FIFOs, so that it works across processes and needs no port; ``apps/raw.py`` holds the other side.
"""

from __future__ import annotations

import os
import select
from pathlib import Path

from harness import BOUND


class Gate:
    def __init__(self, folder: Path) -> None:
        self.arrivals, self.passes = folder / "arrivals", folder / "passes"
        for path in (self.arrivals, self.passes):
            os.mkfifo(path, 0o666)
            path.chmod(0o666)
        # Read-write: opening one end of a FIFO alone would wait for the other, see fifo(7).
        self._arrived = os.open(self.arrivals, os.O_RDWR)
        self._pass = os.open(self.passes, os.O_RDWR)

    @property
    def environ(self) -> dict[str, str]:
        return {"GATE_ARRIVALS": str(self.arrivals), "GATE_PASSES": str(self.passes)}

    def wait_for(self, count: int = 1) -> None:
        """Return when ``count`` further calls stand at the gate."""
        for _ in range(count):
            readable, _, _ = select.select([self._arrived], [], [], BOUND)
            assert readable, "nobody came to the gate"
            os.read(self._arrived, 1)

    def open(self, count: int = 1) -> None:
        """Let ``count`` calls pass, those that come later too."""
        os.write(self._pass, b"." * count)

    def close(self) -> None:
        self.open(1000)  # nobody stays behind
        os.close(self._arrived)
        os.close(self._pass)
