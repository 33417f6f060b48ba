"""A reload that cannot succeed is refused: the old code goes on answering, and mending it is enough."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from harness.load import Load

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


def answers(program, body: str) -> None:
    with program.connect() as wire:
        assert wire.get().text == body


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_code_is_refused_and_mended_code_loads(serve, tmp_path: Path, fault: str) -> None:
    text, said = BROKEN[fault]
    write(tmp_path, good("old"))
    program = serve("mysite:app", "-w", "2", "--boot-timeout", "3")
    served_by = program.workers()
    with Load(program.address, clients=4) as load:
        since, told = program.log.mark(), program.said.mark()
        write(tmp_path, text)
        program.send(signal.SIGHUP)
        program.log.wait("reload failed", since)
        load.more(100)
        assert program.log.find(said, since), program.log.text()
        program.said.wait("STATUS=reload failed", told)
        assert program.workers() == served_by, "nothing that serves was touched"
        write(tmp_path, good("new"))
        program.reload()
        load.more(100)
    assert load.lost == []
    assert {answer.body for answer in load.answers} == {"old", "new"}
    answers(program, "new")


def fails_at(folder: Path, imports: int) -> str:
    """Code that fails while it is imported for that time."""
    count = folder / "imports"
    return f"""
import os
with open({str(count)!r}, "ab") as file:
    file.write(b".")
if os.path.getsize({str(count)!r}) == {imports}:
    raise RuntimeError("no database")
"""


@pytest.mark.parametrize("imports", [1, 2, 4])
def test_code_that_each_worker_imports_is_taken_back_whole(serve, tmp_path: Path, imports: int) -> None:
    """A deploy in place: what has retired could not come back, so nothing retires before every new worker is ready."""
    write(tmp_path, good("old"))
    program = serve("mysite:app", "-w", "4", "--preload", "off")
    before = program.workers()
    with Load(program.address, clients=8) as load:
        since = program.log.mark()
        write(tmp_path, fails_at(tmp_path, imports) + good("new"))
        program.send(signal.SIGHUP)
        program.log.wait("reload failed: .*no database; still serving generation 1", since)
        moment = time.monotonic()
        load.more(200)
        assert {answer.body for answer in load.after(moment)} == {"old"}
        assert program.workers() == before
        program.said.wait("STATUS=.*; a crash would load the files on disk")
        said = "\n".join(entry.text for entry in program.log.entries[since:])
        assert said.count("Traceback") == 1, said
        write(tmp_path, good("mended"))
        program.reload()
        load.more(200)
    assert load.lost == []
    answers(program, "mended")
    assert program.stop() == 0


def test_bad_toml_keeps_everything_as_it_is(serve, tmp_path: Path) -> None:
    write(tmp_path, good("old"))
    config = tmp_path / "forkserver.toml"
    config.write_text("workers = 2\n")
    program = serve("mysite:app")
    before = program.family()
    since = program.log.mark()
    config.write_text("workers = = 2\n")
    program.send(signal.SIGHUP)
    assert "forkserver.toml" in program.log.wait("reload failed", since).text
    answers(program, "old")
    assert program.family() == before
    config.write_text("workers = 1\n")
    write(tmp_path, good("new"))
    program.reload()
    answers(program, "new")
    program.until(lambda: len(program.workers()) == 1, "the end of the worker that is one too many now")


def test_a_failure_in_the_third_worker_only_gives_the_slots_back(serve, tmp_path: Path) -> None:
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
    program = serve("mysite:app", "-w", "4", "--boot-timeout", "10")
    with Load(program.address, clients=8) as load:
        since = program.log.mark()
        # A worker is two forks away from its template, so the third worker is the sixth fork at the latest.
        write(tmp_path, fails.format(limit=6) + good("new"))
        program.send(signal.SIGHUP)
        program.log.wait("reload failed", since)
        assert not program.workers(generation=2), "said when nothing of it can answer any more"
        moment = time.monotonic()
        load.more(200)
        assert {answer.body for answer in load.after(moment)} == {"old"}
        assert len(program.workers(generation=1)) == 4
        write(tmp_path, good("mended"))
        program.reload()
        load.more(200)
    assert load.lost == []
    answers(program, "mended")
