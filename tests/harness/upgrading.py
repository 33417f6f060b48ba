"""An upgrade by SIGUSR2: a copy of the package that becomes another version, and waits for what the log says of it."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import psutil

import forkserver
from harness.clients import get
from harness.processes import descriptors, wait_gone
from harness.program import Program

UPGRADED = r"upgraded to forkserver"
REFUSED = r"upgrade refused: .*; the running program serves on"
APP = """
{before}
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "1")])
    return [b"{version}"]
"""


class PackageCopy:
    """A copy of the package, to be changed as an installation of another version changes it.

    A change keeps the lines where they are: what runs of a copy counts as covered in the package.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(
            Path(forkserver.__file__).parent, folder / "forkserver", ignore=shutil.ignore_patterns("__pycache__")
        )
        self.environ = {"PYTHONPATH": str(folder)}

    def change(self, file: str, before: str, after: str) -> None:
        path = self.folder / "forkserver" / file
        text = path.read_text()
        assert before in text, f"{file} holds no {before!r}"
        assert "\n" not in before + after
        path.write_text(text.replace(before, after))

    def mark(self, version: str) -> None:
        """Another version: its master says so in the log, and its workers in each answer."""
        self.change("config/settings.py", '](words.field_value, "', f'](words.field_value, "{version}-')


def signature(server: Program) -> str:
    """The version whose worker answers."""
    return get(server.address).headers["server"]


def upgrade(server: Program) -> None:
    """USR2, and wait until the workers are the next program's too, and no process of before is left."""
    since, before = server.log.mark(), server.family()
    server.send(signal.SIGUSR2)
    server.log.wait(UPGRADED, since)
    server.log.wait(r"generation \d+ serves", since)
    for member in before:
        assert wait_gone(member.pid), member


def at_rest(server: Program) -> None:
    """Return when the master has seen all that has happened: deaths are learnt before the signals that came after."""
    since = server.log.mark()
    server.send(signal.SIGUSR1)
    server.log.wait("log files are opened again", since)


def refused(server: Program) -> str:
    """USR2, and what the log says of the refusal."""
    since = server.log.mark()
    server.send(signal.SIGUSR2)
    entry = server.log.wait(REFUSED, since)
    server.said.wait("STATUS=upgrade refused: ")
    return entry.text


def kinds_of_descriptors(pid: int) -> list[str]:
    """What ``pid`` holds open while it sleeps, by kind; read until it is the same twice.

    So without what is open for a moment, as the socket of a status line is, however long that moment is made by others.
    """
    process, found, before = psutil.Process(pid), None, None
    while found is None or found != before:
        if process.status() == psutil.STATUS_SLEEPING:
            held = descriptors(pid).values()
            found, before = sorted(each.partition("[")[0] for each in held), found
    return found
