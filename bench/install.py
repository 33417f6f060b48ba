"""The peers, each installed by itself: one that cannot be must not keep the others from being compared.

What pip said of it is kept, and stands in its rows.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from bench.peers import OWN, PEERS, REFUSALS

HEADERS = (Path("/usr/include/ev.h"), Path("/usr/local/include/ev.h"))


def main() -> None:
    for warning in warnings():
        print(f"warning: {warning}", file=sys.stderr)
    shutil.rmtree(REFUSALS, ignore_errors=True)
    REFUSALS.mkdir()
    for distribution in sorted({peer.distribution for name, peer in PEERS.items() if not name.startswith(OWN)}):
        print(f"installing {distribution}", flush=True)
        if refusal := install(distribution):
            (REFUSALS / distribution).write_text(refusal + "\n")
            print(f"  cannot: {refusal}", file=sys.stderr)


def warnings() -> Iterator[str]:
    """What this machine lacks, and what will be missing for it."""
    if shutil.which("cc") is None:
        yield "there is no C compiler: uWSGI and bjoern cannot be built; on Debian: apt install gcc"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        yield "Python's headers are missing: uWSGI and bjoern cannot be built; on Debian: apt install python3-dev"
    if not any(header.exists() for header in HEADERS):
        yield "libev's headers are missing: bjoern cannot be built; on Debian: apt install libev-dev"
    if shutil.which("wrk") is None:
        yield "wrk is missing: most scenarios need it; on Debian: apt install wrk"


def install(distribution: str) -> str:
    """Pip's last error, or nothing."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", distribution]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if not done.returncode:
        return ""
    errors = [line.strip() for line in done.stdout.splitlines() if "error:" in line.lower()]
    return f"does not install: {(errors or ['pip says nothing'])[0]}"
