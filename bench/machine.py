"""The machine that measures: which core is whose, what it is, and what it lacks. Prints nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[1]
APPS = Path(__file__).with_name("apps")
HOST = "127.0.0.1"
CORES = sorted(os.sched_getaffinity(0))
SERVER, CLIENT = {CORES[0]}, {CORES[-1]}
PR_SET_CHILD_SUBREAPER = 36


class MissingError(Exception):
    """A program that the bench needs is not installed; the message says how to get it."""


def prepare() -> None:
    """Give this process the client's core and every descriptor it may have, and make orphans its own children."""
    if len(CORES) < 2:
        raise MissingError("the bench needs two cores: one for the server, one for the client")
    os.sched_setaffinity(0, CLIENT)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A worker whose master was killed comes to us, and is ended with the rest (servers.end_all).
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """What is started within runs on these cores: affinity is inherited."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def need(program: str) -> str:
    """The path of ``program``."""
    found = shutil.which(program)
    if found is None:
        raise MissingError(f"{program} is not installed; on Debian: apt install {program}")
    return found


def description() -> str:
    """Processor, kernel and interpreter in one line."""
    return f"{len(CORES)} cores of {_processor()}, Linux {platform.release()}, CPython {platform.python_version()}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def revision() -> str:
    """The commit of this tree, and whether files differ from it; empty outside a repository."""
    git = ["git", "-C", str(TOP)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if commit.returncode:
        return ""
    status = [*git, "status", "--porcelain", "--", "forkserver"]
    changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    return commit.stdout.strip() + (" and changes" if changed else "")


def environment(*paths: str, **more: str) -> dict[str, str]:
    """The environment of a server: our applications importable, behind ``paths``; no setting of ours or a peer's."""
    foreign = (
        "FORKSERVER_",
        "GUNICORN_",
        "GRANIAN_",
        "UWSGI_",
        "PYTHON",
        "PORT",
        "WEB_CONCURRENCY",
        "NOTIFY_",
        "LISTEN_",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {"PYTHONPATH": os.pathsep.join([*paths, str(APPS)]), **more}


def beside_python(program: str) -> str:
    """The path of a program of this Python's environment."""
    return str(Path(sys.executable).with_name(program))
