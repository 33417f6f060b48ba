"""A reload that cannot succeed is refused: the old code goes on answering, and mending it is enough."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from harness.load import Load
from harness.program import StartProgram

GOOD = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "{length}")])
    return [b"{body}"]
"""
# What is wrong, how it is written, and what the log must say about it.
BROKEN = {
    "a syntax error": ("def app(:\n", "SyntaxError"),
    "a missing attribute": ("application_was_renamed = None\n", r"\bapp\b"),
    "an error while imported": ("raise RuntimeError('no database')\n", "no database"),
    "sys.exit": ("import sys\nsys.exit(3)\n", "SystemExit"),
    "os.abort": ("import os, resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nos.abort()\n", "SIGABRT"),
    "an import that hangs": ("import threading\nthreading.Event().wait()\n", "boot_timeout"),
    "not callable": ("app = 7\n", "callable"),
}


def write(folder: Path, text: str) -> None:
    fresh = folder / "site.new"
    fresh.write_text(text)
    fresh.rename(folder / "mysite.py")


def good(body: str) -> str:
    return GOOD.format(body=body, length=len(body))


def answers(server, body: str) -> None:
    with server.connect() as wire:
        assert wire.get().text == body


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_code_is_refused_and_mended_code_loads(program: StartProgram, tmp_path: Path, fault: str) -> None:
    text, said = BROKEN[fault]
    write(tmp_path, good("old"))
    server = program("mysite:app", "-w", "2", "--boot-timeout", "3")
    served_by = server.workers()
    with Load(server.address, clients=4) as load:
        since, told = server.log.mark(), server.said.mark()
        write(tmp_path, text)
        server.send(signal.SIGHUP)
        server.log.wait("reload failed", since)
        load.more(100)
        server.log.wait(said, since), server.log.text()
        server.said.wait("STATUS=reload failed", told)
        assert server.workers() == served_by, "nothing that serves was touched"
        write(tmp_path, good("new"))
        server.reload()
        load.more(100)
    assert load.lost == []
    assert {answer.body for answer in load.answers} == {"old", "new"}
    answers(server, "new")


def fails_at(folder: Path, imports: int) -> str:
    """Code that fails while it is imported for that time: workers import at once, and each append has its own end."""
    count = folder / "imports"
    return f"""
with open({str(count)!r}, "ab", buffering=0) as file:
    file.write(b".")
    if file.tell() == {imports}:
        raise RuntimeError("no database")
"""


@pytest.mark.parametrize("imports", [1, 2, 4])
def test_code_that_each_worker_imports_is_taken_back_whole(program: StartProgram, tmp_path: Path, imports: int) -> None:
    """A deploy in place: what has retired could not come back, so nothing retires before every new worker is ready."""
    write(tmp_path, good("old"))
    server = program("mysite:app", "-w", "4", "--preload", "off")
    before = server.workers()
    with Load(server.address, clients=8) as load:
        since = server.log.mark()
        write(tmp_path, fails_at(tmp_path, imports) + good("new"))
        server.send(signal.SIGHUP)
        server.log.wait("reload failed: .*no database; still serving generation 1", since)
        moment = time.monotonic()
        load.more(200)
        assert {answer.body for answer in load.after(moment)} == {"old"}
        assert server.workers() == before
        server.said.wait("STATUS=.*; a crash would load the files on disk")
        said = "\n".join(entry.text for entry in server.log.entries[since:])
        assert said.count("Traceback") == 1, said
        write(tmp_path, good("mended"))
        server.reload()
        load.more(200)
    assert load.lost == []
    answers(server, "mended")
    assert server.stop() == 0


def test_bad_toml_keeps_everything_as_it_is(program: StartProgram, tmp_path: Path) -> None:
    write(tmp_path, good("old"))
    config = tmp_path / "forkserver.toml"
    config.write_text("workers = 2\n")
    server = program("mysite:app")
    before = server.family()
    since = server.log.mark()
    config.write_text("workers = = 2\n")
    server.send(signal.SIGHUP)
    assert "forkserver.toml" in server.log.wait("reload failed", since).text
    answers(server, "old")
    assert server.family() == before
    config.write_text("workers = 1\n")
    write(tmp_path, good("new"))
    server.reload()
    answers(server, "new")
    server.until(lambda: len(server.workers()) == 1, "the end of the worker that is one too many now")


def test_a_failure_in_the_third_worker_only_gives_the_slots_back(program: StartProgram, tmp_path: Path) -> None:
    """Two slots have rolled when the third breaks: they go back to the old code, or half the answers would be new."""
    count = tmp_path / "count"
    # Runs in each new process; the template's own import is not one.
    fails = f"""
import os
def after_fork():
    with open({str(count)!r}, "ab") as file:
        file.write(b".")
    if os.path.getsize({str(count)!r}) >= {{limit}}:
        os._exit(9)
os.register_at_fork(after_in_child=after_fork)
"""
    write(tmp_path, good("old"))
    server = program("mysite:app", "-w", "4", "--boot-timeout", "10")
    with Load(server.address, clients=8) as load:
        since = server.log.mark()
        # A worker is two forks away from its template, so the third worker is the sixth fork at the latest.
        write(tmp_path, fails.format(limit=6) + good("new"))
        server.send(signal.SIGHUP)
        server.log.wait("reload failed", since)
        assert not server.workers(generation=2), "said when nothing of it can answer any more"
        moment = time.monotonic()
        load.more(200)
        assert {answer.body for answer in load.after(moment)} == {"old"}
        assert len(server.workers(generation=1)) == 4
        write(tmp_path, good("mended"))
        server.reload()
        load.more(200)
    assert load.lost == []
    answers(server, "mended")
