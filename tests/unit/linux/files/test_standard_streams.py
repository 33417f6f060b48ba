"""Descriptors 0, 1 and 2 are open before anything of ours is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forkserver.errors import ForkserverError
from forkserver.linux.files import standard_streams

# Its answer goes to 9, which is out of the way.
SCRIPT = """
import os, sys
from forkserver.linux.files import standard_streams
standard_streams.open_missing()
print("to nowhere", flush=True)
sys.stderr.write("to nowhere")
found = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
found += [str(os.get_inheritable(number)) for number in range(3)] + [sys.stdin.read()]
os.write(9, "\\n".join(found).encode())
"""


def found_with(closed: str) -> list[str]:
    command = ["sh", "-c", f'exec 9>&1; exec "$@" {closed}', "sh", sys.executable, "-c", SCRIPT]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.removeprefix("to nowhere\n").split("\n")


@pytest.mark.process
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "<&- >&-", "2>&-", ">&-"])
def test_what_is_closed_is_opened_on_dev_null(closed: str) -> None:
    """Also in programs that are started from here, and as Python's streams, which an application expects."""
    found = found_with(closed)
    links, inheritable, read = found[:3], found[3:6], found[6]
    for number, mark in enumerate(("<&-", ">&-", "2>&-")):
        if mark in closed.split():
            assert links[number] == os.devnull
    assert inheritable == ["True"] * 3
    assert read == ""


def test_what_is_open_is_left_alone() -> None:
    before = [os.fstat(number) for number in range(3)]
    standard_streams.open_missing()
    assert [os.fstat(number) for number in range(3)] == before


def test_without_dev_null_the_reason_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a directory that became the root without a /dev."""
    monkeypatch.setattr(os, "devnull", str(tmp_path / "null"))
    with pytest.raises(ForkserverError, match="null: no such file or directory; mount a /dev with"):
        standard_streams.open_null(0)


@pytest.mark.process
@pytest.mark.parametrize("module", ["forkserver", "forkserver.cli.control"])
def test_help_needs_no_standard_output(module: str) -> None:
    command = ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-m", module, "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
