"""What a test needs of the machine, and the skip where it is missing. ``conftest.py`` makes skips failures in CI."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def program(name: str) -> str:
    """The path of ``name``: of this interpreter's environment, of PATH, or of /usr/sbin, where Debian keeps nginx."""
    places = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin")
    found = shutil.which(name, path=os.pathsep.join(places))
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def module(name: str) -> None:
    """Skip where the module ``name`` is not installed; the extra ``world`` has those of applications."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


def namespaces() -> None:
    """Skip where this process may not make namespaces: many a container forbids it, to root too."""
    command = [program("unshare"), "--mount", "--pid", "--fork", "--mount-proc", "true"]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if ran.returncode:
        pytest.skip(f"namespaces (mount, PID) cannot be made here: {ran.stderr.strip()}")


def systemd(least: int) -> None:
    """Skip where systemd is not installed, or its version is below ``least``."""
    ran = subprocess.run([program("systemctl"), "--version"], capture_output=True, text=True, check=True)
    found = re.match(r"systemd (\d+)", ran.stdout)
    assert found, ran.stdout
    if int(found[1]) < least:
        pytest.skip(f"systemd {least} or newer is not installed (this is {found[1]})")
