"""What a SIGHUP means, and what is left of a terminal to an application."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from forkserver.linux import terminal
from forkserver.linux.signals import Received
from harness import needs

FROM_THE_KERNEL = Received(signal.SIGHUP, 0, 0, True)
AFTER_LEAVING = """
import fcntl, json, os, sys, termios
from forkserver.linux import terminal
if child := os.fork():  # who leads a session cannot leave it
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
terminal.leave(another_user=sys.argv[1] == "another")
found = {"input": os.readlink("/proc/self/fd/0"), "reads": True, "types": True, "session": os.getsid(0) == os.getpid()}
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)  # root may type into any terminal
try:
    os.read(1, 1)
except OSError:
    found["reads"] = False
try:
    fcntl.ioctl(1, termios.TIOCSTI, b"x")
except OSError:
    found["types"] = False
os.write(2, json.dumps(found).encode())
os.write(1, b"written")
"""


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    pair = os.openpty()
    yield pair
    for number in pair:
        os.close(number)


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[terminal.Terminal]:
    """A terminal that was there at the start and has gone since."""
    monkeypatch.setattr(terminal, "has_terminal", lambda: False)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    yield terminal.Terminal(True)
    signal.signal(signal.SIGHUP, before)


def leave(pty: tuple[int, int], user: str) -> dict[str, object]:
    command = [needs.program("setsid"), "--ctty", "--wait", sys.executable, "-c", AFTER_LEAVING, user]
    # The descriptor of stderr is for the answer; standard output is the terminal as standard input is.
    ran = subprocess.run(command, stdin=pty[1], stdout=pty[1], stderr=subprocess.PIPE, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, object] = json.loads(ran.stderr)
    return found


@pytest.mark.process
def test_a_terminal_is_only_written_to_by_another_users_application(pty: tuple[int, int]) -> None:
    found = leave(pty, "another")
    assert found == {"input": os.devnull, "reads": False, "types": False, "session": True}
    assert os.read(pty[0], 100) == b"written"


@pytest.mark.process
def test_an_own_terminal_stays_the_input_and_is_not_typed_into(pty: tuple[int, int]) -> None:
    os.write(pty[0], b"\n")  # or reading would wait
    found = leave(pty, "own")
    assert found == {"input": os.ttyname(pty[1]), "reads": True, "types": False, "session": True}


def test_a_terminal_that_has_gone_ends_the_program_by_the_shell_or_the_kernel(at_terminal: terminal.Terminal) -> None:
    for sender in (os.getsid(0), os.getppid()):
        assert at_terminal.closed(Received(signal.SIGHUP, sender, 0, False))
    assert at_terminal.closed(FROM_THE_KERNEL)


def test_a_reload_is_asked_for_by_others_though_the_terminal_has_gone(at_terminal: terminal.Terminal) -> None:
    """A job that its shell has left behind is reloaded from another terminal."""
    assert not at_terminal.closed(Received(signal.SIGHUP, os.getpid(), 0, False))


def test_a_shell_reloads_while_its_terminal_is_there(
    at_terminal: terminal.Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "has_terminal", lambda: True)
    assert not at_terminal.closed(Received(signal.SIGHUP, os.getsid(0), 0, False))


def test_no_other_signal_means_that_the_terminal_has_gone(at_terminal: terminal.Terminal) -> None:
    assert not at_terminal.closed(Received(signal.SIGTERM, os.getppid(), 0, False))


def test_without_a_terminal_every_hup_is_a_reload() -> None:
    assert not terminal.Terminal(False).closed(FROM_THE_KERNEL)


def test_under_nohup_every_hup_is_a_reload() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert not terminal.Terminal(True).closed(FROM_THE_KERNEL)
    finally:
        signal.signal(signal.SIGHUP, before)
