"""A debugger at the terminal: it reads what is typed, and nothing is reloaded or ended while it is in use."""

from __future__ import annotations

import os
import termios
from pathlib import Path

import pytest

from harness import needs
from harness.clients import Wire, get
from harness.program import MODULE, LaunchProgram, Program, own_address
from harness.terminal import Terminal

SITE = """
import os, pdb, termios
TEXT = "first"

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/quiet":  # as readline sets the terminal while a line is edited
        attributes = termios.tcgetattr(0)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSANOW, attributes)
    if path == "/post-mortem":
        try:
            1 / 0
        except ZeroDivisionError as error:
            pdb.post_mortem(error.__traceback__)
    elif path != "/":
        breakpoint()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [TEXT.encode()]
"""
IN_USE = "a debugger is in use"
NO_LONGER = "a debugger is no longer in use"


@pytest.fixture
def server(launch: LaunchProgram, terminal: Terminal, tmp_path: Path) -> Program:
    """The development mode, in the foreground of the terminal."""
    (tmp_path / "mysite.py").write_text(SITE)
    host, port = own_address()
    command = (needs.program("setsid"), "--ctty", *MODULE)
    flags = ("--dev", "--log-level", "debug", "-b", f"{host}:{port}")
    started = launch(*flags, "mysite:app", command=command, stdin=terminal.screen, address=(host, port))
    return started.wait_ready()


def stop_at(server: Program, wire: Wire, path: str) -> None:
    """Ask for ``path``, and wait until a debugger waits for a line."""
    since = server.output.mark()
    wire.ask(path)
    server.output.wait("-> ", since)
    server.log.wait(IN_USE)


def change(tmp_path: Path) -> None:
    (tmp_path / "~").write_text(SITE.replace('"first"', '"second"'))
    (tmp_path / "~").rename(tmp_path / "mysite.py")


@pytest.mark.parametrize("path", ["/break", "/post-mortem"])
def test_a_reload_waits_for_the_end_of_a_call_in_a_debugger(
    server: Program, terminal: Terminal, tmp_path: Path, path: str
) -> None:
    with server.connect() as wire:
        stop_at(server, wire, path)
        change(tmp_path)
        server.log.wait("the code is loaded again when the call in the debugger is over")
        terminal.type("p 6 * 7\n")
        server.output.wait(r"\b42\b")
        assert "reload: loading" not in server.log.text()
        terminal.type("c\n")
        assert wire.answer().text == "first"
    server.log.wait(NO_LONGER)
    server.log.wait("generation 2 serves")
    assert get(server.address).text == "second"
    assert server.stop() == 0


def test_ctrl_c_at_a_debugger_stops_at_once_and_sets_the_terminal_back(server: Program, terminal: Terminal) -> None:
    with server.connect() as wire:
        stop_at(server, wire, "/quiet")
        assert not termios.tcgetattr(terminal.screen)[3] & termios.ECHO
        terminal.type("\x03")
        server.log.wait("while a debugger is in use; at once")
        assert server.wait() == 0
    assert termios.tcgetattr(terminal.screen)[3] & termios.ECHO
    assert server.problems() == []


def test_a_worker_that_is_killed_in_a_debugger_leaves_the_terminal_as_it_was(
    server: Program, terminal: Terminal
) -> None:
    with server.connect() as wire:
        stop_at(server, wire, "/quiet")
        (worker,) = server.workers()
        os.kill(worker.pid, 9)
        server.log.wait(f"pid={worker.pid} ended")
    assert get(server.address).text == "first"
    assert termios.tcgetattr(terminal.screen)[3] & termios.ECHO
    assert server.stop() == 0


def test_ctrl_c_after_a_debugger_is_ctrl_c_again(server: Program, terminal: Terminal) -> None:
    """pdb leaves a handler of its own behind, which would stop in the middle of nothing."""
    with server.connect() as wire:
        stop_at(server, wire, "/break")
        terminal.type("c\n")
        wire.answer()
    server.log.wait(NO_LONGER)
    terminal.type("\x03")
    assert server.wait() == 0
    assert server.problems() == []
    assert "Program interrupted" not in server.output.text()


def test_a_worker_with_a_debugger_is_in_the_foreground_of_the_terminal(server: Program) -> None:
    """So a pager or an editor that the debugger starts may use it."""
    (worker,) = server.workers()
    assert os.getpgid(worker.pid) == os.getpgid(server.pid)
    assert os.getsid(worker.pid) == os.getsid(server.pid)
    assert server.stop() == 0
