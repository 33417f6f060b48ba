"""The program at a terminal: what the application gets of it, and what its closing means."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import needs, reach
from harness.clients import get
from harness.gate import Gate
from harness.processes import wait_gone
from harness.program import APPS, MODULE, Program, own_address
from harness.terminal import Terminal

Start = Callable[..., Program]
SITE = """
import json, os, subprocess, sys
from raw import app as raw

def seen():
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        terminal = True
    except OSError:
        terminal = False
    return {"terminal": terminal, "session": os.getsid(0), "pid": os.getpid(), "input": os.readlink("/proc/self/fd/0")}

at_import = seen()
helpers = []

def app(environ, start_response):
    answers = {"/seen": lambda: json.dumps([at_import, seen()]), "/line": lambda: sys.stdin.readline(), "/help": helper}
    if environ["PATH_INFO"] not in answers:
        return raw(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answers[environ["PATH_INFO"]]().encode()]

def helper():
    helpers.append(subprocess.Popen(["sleep", "1000"]))
    return str(helpers[-1].pid)
"""

# The program, before there is a master: when reading ends, the terminal has closed, and SIGHUP has come.
HUNG_UP = """
import os, sys
from contextlib import suppress
from forkserver.cli import serve
from forkserver.config import loading

def action(argv, read=loading.action):
    print("reading the terminal", file=sys.stderr, flush=True)
    with suppress(OSError):
        os.read(0, 1)
    return read(argv)

loading.action = action
sys.exit(serve.main())
"""


@pytest.fixture
def start(launch: Start, terminal: Terminal, tmp_path: Path) -> Start:
    """Start the program at the terminal, in its foreground and in the session that it controls."""
    (tmp_path / "mysite.py").write_text(SITE)

    def started(
        *arguments: str, before: tuple[str, ...] = (), program: tuple[str, ...] = MODULE, **more: dict[str, str]
    ) -> Program:
        host, port = own_address()
        command = (needs.program("setsid"), "--ctty", *before, *program)
        always = ("--log-level", "debug", "--pythonpath", f"{APPS},{tmp_path}", "-b", f"{host}:{port}")
        server = launch(*always, *arguments, "mysite:app", command=command, stdin=terminal.screen, **more)
        server.address = host, port
        return server.wait_ready()

    return started


def test_a_terminal_that_closes_stops_the_service_in_order(start: Start, terminal: Terminal, gate: Gate) -> None:
    """The shell and the kernel may both say so, and it stays one stop: a request in flight is answered."""
    server = start(environ=gate.environ)
    with server.connect() as held:
        held.ask("/gate")
        gate.wait_for()
        terminal.close()
        server.log.wait("stopping: SIGHUP from a terminal, the terminal has closed; finishing open requests")
        gate.open()
        assert held.answer().status == 200
    assert server.wait() == 0
    assert server.problems() == []
    assert "reload" not in server.log.text().partition("stopping: ")[2]


def test_a_terminal_that_closes_before_there_is_a_master_stops_the_service(
    launch: Start, terminal: Terminal, tmp_path: Path
) -> None:
    """By then nothing tells that there was one."""
    (tmp_path / "mysite.py").write_text(SITE)
    host, port = own_address()
    command = (needs.program("setsid"), "--ctty", sys.executable, "-c", HUNG_UP)
    always = ("--pythonpath", f"{APPS},{tmp_path}", "-b", f"{host}:{port}")
    server = launch(*always, "mysite:app", command=command, stdin=terminal.screen)
    server.log.wait("reading the terminal")
    terminal.close()
    server.log.wait("stopping: SIGHUP from a terminal, the terminal has closed")
    assert server.wait() == 0


def test_hup_that_a_process_sends_is_a_reload_at_a_terminal_too(start: Start) -> None:
    server = start()
    server.reload()
    assert server.stop() == 0


def test_nohup_outlives_its_terminal(start: Start, terminal: Terminal) -> None:
    server = start(before=(needs.program("nohup"),))
    terminal.close()
    server.log.wait("reload wanted: SIGHUP from a terminal")
    server.log.wait("generation 2 serves")
    server.reload()
    assert get(server.address).status == 200
    assert server.stop() == 0


@pytest.mark.parametrize("preload", ["on", "off"])
def test_the_application_has_a_session_of_its_own(start: Start, preload: str) -> None:
    """Or it could type into the terminal that the program was started at (TIOCSTI)."""
    server = start("--preload", preload)
    for seen in json.loads(get(server.address, "/seen").text):
        assert not seen["terminal"]
        assert seen["session"] == seen["pid"]
        assert seen["session"] not in (server.pid, os.getsid(0))
    assert server.stop() == 0


def test_a_debugger_reads_what_is_typed_at_our_own_terminal(start: Start, terminal: Terminal) -> None:
    server = start()
    with server.connect() as wire:
        wire.ask("/line")
        terminal.type("continue\n")
        assert wire.answer().text == "continue\n"
    assert server.stop() == 0


@pytest.mark.as_root
def test_an_application_of_another_user_reads_nothing_of_roots_terminal(start: Start, tmp_path: Path) -> None:
    while closed := reach.barrier(tmp_path):
        closed.chmod(0o755)
    server = start("--user", "nobody", program=reach.command(tmp_path))  # the stdlib is for the application to read
    for seen in json.loads(get(server.address, "/seen").text):
        assert seen["input"] == os.devnull
    assert server.stop() == 0


def test_ctrl_c_ends_programs_that_the_application_has_started(start: Start, terminal: Terminal) -> None:
    """Their groups are not the terminal's any more, so the master passes it on."""
    server = start()
    helper = int(get(server.address, "/help").text)
    terminal.type("\x03")
    server.log.wait("stopping: SIGINT from a terminal")
    assert wait_gone(helper)
    assert server.wait() == 0
    assert server.problems() == []


def test_input_is_empty_without_a_terminal(program: Start, tmp_path: Path) -> None:
    """Whoever reads it is not left waiting for a person."""
    (tmp_path / "mysite.py").write_text(SITE)
    server = program("mysite:app")
    assert get(server.address, "/line").text == ""
    for seen in json.loads(get(server.address, "/seen").text):
        assert seen["input"] == os.devnull
        assert seen["session"] not in (server.pid, os.getsid(0))
    assert server.stop() == 0


def test_closed_standard_descriptors_are_no_place_for_ours(launch: Start, tmp_path: Path) -> None:
    """A library that writes to 2 reached the scoreboard or a channel, and an upgrade ended the service."""
    (tmp_path / "mysite.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n"
        "    os.write(1, b'one')\n"
        "    os.write(2, b'two')\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [' '.join(os.readlink(f'/proc/self/fd/{each}') for each in range(3)).encode()]\n"
    )
    # Number 9 stays open, so that the harness sees the program's end.
    closed = ("sh", "-c", 'exec 9>&2; exec "$@" <&- >&- 2>&-', "sh", *MODULE)
    host, port = own_address()
    log = tmp_path / "log"
    server = launch("-b", f"{host}:{port}", "--error-log", str(log), "mysite:app", command=closed).wait_ready()
    assert get((host, port)).text == "/dev/null /dev/null /dev/null"
    since = server.said.mark()
    server.send(signal.SIGUSR2)
    server.said.wait("generation 2 serves", since)
    assert get((host, port)).text == "/dev/null /dev/null /dev/null"
    assert server.stop() == 0
    assert " error " not in log.read_text()
