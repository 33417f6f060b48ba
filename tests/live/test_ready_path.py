"""ready_path: a worker is ready when the application says so itself."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from harness.load import Load
from harness.program import LaunchProgram, StartProgram

# Answers /healthz with what the file ``health`` says at that moment, and notes who asked.
SITE = """
import os

def app(environ, start_response):
    status = "200 OK"
    if environ["PATH_INFO"] == "/healthz":
        with open("asked", "a") as file:
            file.write(f"{{environ['REQUEST_METHOD']}} {{environ['QUERY_STRING']}} {{environ['REMOTE_ADDR']}}\\n")
        with open("health") as file:
            status = file.read()
        {health}
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", "{length}")])
    return [b"{body}"]
"""
ALWAYS = ("--ready-path", "/healthz?deep=1")


def write(folder: Path, body: str = "old", status: str = "200 OK", health: str = "pass") -> None:
    (folder / "health").write_text(status)
    fresh = folder / "mysite.new"
    fresh.write_text(SITE.format(body=body, length=len(body), health=health))
    fresh.rename(folder / "mysite.py")


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines()


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "302 Found"])
def test_each_worker_has_asked_itself_when_the_service_is_ready(
    program: StartProgram, tmp_path: Path, status: str
) -> None:
    """As a client of this machine would, with nobody on the way."""
    write(tmp_path, body="" if status.startswith("204") else "old", status=status)
    server = program("mysite:app", "-w", "3", *ALWAYS)
    assert asked(tmp_path) == ["GET deep=1 127.0.0.1"] * 3
    assert server.stop() == 0


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error", "503 Service Unavailable"])
def test_a_first_start_fails_with_the_reason(launch: LaunchProgram, tmp_path: Path, status: str) -> None:
    """As it does where the application does not load: trying again would not help."""
    write(tmp_path, status=status)
    server = launch("-b", f"unix:{tmp_path}/s", "mysite:app", *ALWAYS)
    assert server.wait() == 3, server.log.text()
    server.log.wait(
        rf"^forkserver: ready_path '/healthz\?deep=1' was answered with status {status[:3]}, not 2xx or 3xx; fix"
    )


@pytest.mark.parametrize("preload", ["on", "off"])
def test_a_worker_that_is_not_well_refuses_the_reload(program: StartProgram, tmp_path: Path, preload: str) -> None:
    """Code that loads and cannot serve is as bad as code that does not load, and nobody is to meet it."""
    write(tmp_path)
    server = program("mysite:app", "-w", "4", "--preload", preload, *ALWAYS)
    with Load(server.address, clients=8) as load:
        load.more(100)
        since = server.log.mark()
        write(tmp_path, body="new", status="503 Service Unavailable")
        server.send(signal.SIGHUP)
        failed = server.log.wait("reload failed", since)
        assert "ready_path '/healthz?deep=1' was answered with status 503" in failed.text
        moment = time.monotonic()
        load.more(100)
        assert {answer.body for answer in load.after(moment)} == {"old"}
        write(tmp_path, body="mended")
        server.reload()
        load.more(100)
    assert load.lost == []
    assert {answer.body for answer in load.answers} == {"old", "mended"}


def test_a_worker_that_is_not_well_gives_the_slots_before_it_back(program: StartProgram, tmp_path: Path) -> None:
    """The first of the new workers serves already when the second finds that the database takes no more of them."""
    write(tmp_path)
    server = program("mysite:app", "-w", "2", *ALWAYS)
    first_asks = len(asked(tmp_path))
    with Load(server.address, clients=8) as load:
        load.more(100)
        since = server.log.mark()
        limit = first_asks + 2
        write(tmp_path, "new", health=f"status = '503 Full' if len(list(open('asked'))) >= {limit} else status")
        server.send(signal.SIGHUP)
        assert "answered with status 503" in server.log.wait("reload failed", since).text
        server.until(lambda: not server.workers(generation=2), "the end of what had rolled already")
        moment = time.monotonic()
        load.more(100)
        assert {answer.body for answer in load.after(moment)} == {"old"}
    assert load.lost == []
    server.until(lambda: len(server.workers(generation=1)) == 2, "two workers of the old code")


def test_an_application_that_raises_is_told_with_its_traceback(program: StartProgram, tmp_path: Path) -> None:
    write(tmp_path)
    server = program("mysite:app", *ALWAYS)
    since = server.log.mark()
    write(tmp_path, health="raise RuntimeError('no database')")
    server.send(signal.SIGHUP)
    assert "answered with status 500" in server.log.wait("reload failed", since).text
    server.log.wait("RuntimeError: no database", since)


def test_an_answer_that_does_not_come_counts_to_boot_timeout(program: StartProgram, tmp_path: Path) -> None:
    """A health check that waits for a database that is gone must not hold a deploy for ever."""
    write(tmp_path)
    server = program("mysite:app", "--boot-timeout", "4", *ALWAYS)
    since = server.log.mark()
    write(tmp_path, health="import threading; threading.Event().wait()")
    server.send(signal.SIGHUP)
    assert "boot_timeout" in server.log.wait("reload failed", since).text
    server.log.wait("mysite.py.*in app", since)
    with server.connect() as wire:
        assert wire.get().text == "old"


def test_a_worker_behind_ipv6_or_a_unix_socket_can_ask_itself(program: StartProgram, tmp_path: Path) -> None:
    """The Host field must be one that a strict parser takes, whatever the listener's address."""
    write(tmp_path)
    for address in (("::1", 0), str(tmp_path / "s")):
        server = program("mysite:app", *ALWAYS, listen=address)
        assert server.stop() == 0
    assert len(asked(tmp_path)) == 2
