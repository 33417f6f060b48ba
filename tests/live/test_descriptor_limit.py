"""Worker and master have the open files that they need; the import and the hooks have the limit that a person gave."""

from __future__ import annotations

import os
import resource
import signal
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.master.resources.open_files import PER_CHILD, needed
from harness.program import StartProgram
from harness.worker import wait_until

GIVEN = 128  # less than a master with a single worker counts on
NOTES = """
import resource

def note(*_):
    with open({path!r}, "a") as file:
        file.write(f"{{resource.getrlimit(resource.RLIMIT_NOFILE)[0]}}\\n")

note()
post_fork = note
"""


@pytest.fixture
def hard() -> Iterator[int]:
    """A low soft limit for what this test starts; the hard one."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield most
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@pytest.mark.parametrize("nofile", ["auto", "keep"])
def test_only_a_worker_has_the_limit_that_its_connections_need(program: StartProgram, nofile: str) -> None:
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    server = program("raw:app", "--nofile", nofile, "--worker-connections", "5000")
    (worker,) = server.workers()
    wanted = max(before, min(hard, 11_024)) if nofile == "auto" else before
    assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE) == (wanted, hard)
    assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (before, hard)
    assert server.stop() == 0


@pytest.mark.parametrize("nofile", ["auto", "keep"])
def test_the_master_raises_its_limit_and_what_it_starts_does_not_see_that(
    program: StartProgram, tmp_path: Path, hard: int, nofile: str
) -> None:
    """At the start, when more workers are wanted, at a reload, and in the next program of an upgrade.

    The template has room for a pidfd of each worker that there may be, but not while it forks.
    """
    notes = tmp_path / "notes"
    (tmp_path / "noting.py").write_text(NOTES.format(path=str(notes)))

    def limits() -> tuple[int, ...]:
        return tuple(resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] for pid in (server.pid, server.template().pid))

    resource.setrlimit(resource.RLIMIT_NOFILE, (GIVEN, hard))
    more = "--workers", "2", "--max-workers", "40", "--preload", "on", "--hooks", "noting"
    server = program("raw:app", "--nofile", nofile, *more)
    master, template = (GIVEN, GIVEN) if nofile == "keep" else (needed(2, 1), GIVEN + 80)
    assert limits() == (master, template)
    server.send(signal.SIGTTIN)
    server.log.wait(r"worker=3 \S+ \S+ is ready")
    master = GIVEN if nofile == "keep" else needed(3, 1)
    assert limits() == (master, template)
    server.reload()
    server.send(signal.SIGUSR2)
    server.log.wait(r"generation 3 serves")
    server.until(lambda: len(server.family()) == 3, "the processes of before to leave")
    assert limits() == (master, template)
    assert ("which nofile = keep leaves" in server.log.text()) == (nofile == "keep")
    assert server.stop() == 0
    assert set(notes.read_text().split()) == {str(GIVEN)}


def test_a_worker_that_the_master_cannot_hold_is_waited_for(program: StartProgram) -> None:
    """It was called none of ours, in a line of its own for each try."""
    server = program("raw:app", "--workers", "2", "--nofile", "keep")
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    server.send(signal.SIGUSR1)
    server.log.wait("log files are opened again")  # what the master loads after READY=1 is loaded
    looks: deque[set[int]] = deque(maxlen=20)

    def settled() -> bool:
        """Whether nothing was open for a moment only, in the last looks."""
        looks.append({int(number) for number in os.listdir(f"/proc/{server.pid}/fd")})
        return len(looks) == looks.maxlen and all(look == looks[0] for look in looks)

    wait_until(settled)
    limit = next(most for most in range(before) if most - sum(number < most for number in looks[0]) == PER_CHILD)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, hard))
    server.send(signal.SIGTTIN)
    server.log.wait(f"no new process: cannot hold a worker: Too many .*RLIMIT_NOFILE is {limit}; .*next try in 0.5")
    server.log.wait("no new process: the same again, 1 time; next try in 1.0 s")
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (before, hard))
    server.log.wait(r"worker=3 \S+ \S+ is ready")
    assert "none of ours" not in server.log.text()
    assert server.stop() == 0
