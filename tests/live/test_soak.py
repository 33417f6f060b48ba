"""Short runs of what `make soak`, `make soak-reloads` and `make soak-stops` run for long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import processes
from harness.program import clean_environment
from soak.reloads import Reloads
from soak.stops import Stops

SOAK = Path(__file__).parents[1] / "soak"
SECONDS = 60
HANGS = 300.0  # seconds; no soak of a minute that goes well takes so long


def test_the_books_of_a_minute_of_faults_balance(tmp_path: Path) -> None:
    """Every request is answered rightly, or its loss is named by the line of the death that caused it."""
    command = [sys.executable, str(SOAK), "--seconds", str(SECONDS), "--seed", "1", "--folder", str(tmp_path)]
    with (tmp_path / "report").open("w+") as report:
        soak = subprocess.Popen(
            command, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=report, stderr=subprocess.STDOUT
        )
        if not processes.wait_gone(soak.pid, HANGS):
            soak.kill()
        status = soak.wait()
        report.seek(0)
        said = report.read()
    print(said)
    assert status == 0, said


def test_reloads_under_keep_alive_load_lose_and_leave_nothing(tmp_path: Path) -> None:
    reloads = Reloads(tmp_path, import_seconds=0)
    assert reloads.run(3), reloads.report()


def test_stops_under_load_reset_nobody_who_was_connected(tmp_path: Path) -> None:
    """By a TCP port and by a Unix socket, kept alive and a connection for each request."""
    stops = Stops(tmp_path)
    assert stops.run(3), stops.report()
