"""warm_path: what the first request loads is there before the fork."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.clients import get
from harness.program import Program, StartProgram

# What the first request of a process makes, and who made it: answered as long as it is there.
SITE = """
import os, signal, socket, threading

first = []

def app(environ, start_response):
    with open("asked", "a") as file:
        file.write("{PATH_INFO} {HTTP_HOST}\\n".format(**environ))
    if not first:
        first.append(os.getpid())
        %s
    status = "404 Not Found" if environ["PATH_INFO"] == "/missing" else "200 OK"
    start_response(status, [("Content-Type", "text/plain")])
    return [f"{first[0]} {os.getpid()} {os.getppid()}".encode()]
"""
# A process that coverage measures has its file open: what a request leaves behind, for all that can be told.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}


@pytest.fixture
def site(tmp_path: Path):
    def write(first: str = "pass") -> None:
        (tmp_path / "mysite.py").write_text(SITE % first)

    write()
    return write


def makers(server) -> tuple[int, int]:
    """Who answered the first request that the answering process knows of, and that process."""
    first, here, _ = get(server.address).text.split()
    return int(first), int(here)


def template(server: Program, generation: int) -> int:
    """The pid of the template of ``generation``; the one before it may still be ending after a reload."""
    (found,) = [each.pid for each in server.family() if (each.role, each.generation) == ("template", generation)]
    return found


@pytest.mark.parametrize("more", [(), ("--threads", "3"), ("--root-path", "/site")])
def test_workers_share_what_the_first_request_made(
    program: StartProgram, site, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """Asked twice, in a child to look what comes of it and in the template itself, and by no worker."""
    server = program("mysite:app", "-w", "2", "--warm-path", "/warm", "-b", "127.0.0.1:81", *more, environ=UNMEASURED)
    assert (tmp_path / "asked").read_text().splitlines() == ["/warm 127.0.0.1:81"] * 2
    assert makers(server)[0] == template(server, 1)
    server.reload()
    assert makers(server)[0] == template(server, 2)
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("first.append(open('database', 'w'))", "it leaves what processes cannot share: file .*/database"),
        ("first.append(socket.socket())", r"it leaves what processes cannot share: stream socket"),
        ("threading.Timer(99, print).start()", "it leaves what processes cannot share: thread Thread-"),
        ("1 / 0", "it was answered with status 500, not 2xx or 3xx"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "the child that was asked first ended: killed by SIGKILL"),
    ],
)
def test_what_does_not_survive_a_fork_is_not_made_before_it(
    program: StartProgram, site, first: str, reason: str
) -> None:
    """A child has shown it: the template stays as the import left it, and the service starts all the same."""
    site(first)
    server = program("mysite:app", "-w", "1", "--warm-path", "/warm")
    server.log.wait(f"warning template gen=1 pid=.* warm_path '/warm': {reason}.*; workers are forked without it")
    assert server.stop() == 0


def test_a_first_request_that_hangs_does_not_fail_the_start(program: StartProgram, site) -> None:
    """What it waits for may be a database that is away. The log has where it stands."""
    site("environ['PATH_INFO'] == '/warm' and threading.Event().wait()")
    server = program("mysite:app", "-w", "1", "--warm-path", "/warm", "--boot-timeout", "6")
    server.log.wait(r'mysite.py", line \d+ in app')
    server.log.wait(r"warm_path '/warm': it was not answered within [23]\.\d s, .*; workers are forked")
    first, here = makers(server)
    assert first == here, "its own"
    assert server.stop() == 0


def test_a_path_that_is_not_there_is_told(program: StartProgram, site) -> None:
    server = program("mysite:app", "-w", "1", "--warm-path", "/missing")
    server.log.wait("warm_path '/missing': it was answered with status 404, not 2xx or 3xx; workers are forked")
    first, here = makers(server)
    assert first == here, "its own"
    assert server.stop() == 0


def test_without_a_shared_import_there_is_nothing_to_warm(program: StartProgram, site, tmp_path: Path) -> None:
    server = program("mysite:app", "-w", "1", "--preload", "off", "--warm-path", "/warm")
    first, here = makers(server)
    assert first == here
    assert "/warm" not in (tmp_path / "asked").read_text()
    assert server.stop() == 0
