"""forkserverctl top at a terminal: it shows what the service does, and does what its keys say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from harness import needs
from harness.clients import get
from harness.controlled import ControlledProgram, StartControlled
from harness.gate import Gate
from harness.processes import wait_gone
from harness.tmux import Tmux

TopOf = Callable[..., Tmux]
CTL = (sys.executable, "-m", "forkserver.cli.control")


@pytest.fixture
def top(tmp_path: Path) -> Iterator[TopOf]:
    """Start top in a terminal."""
    needs.program("tmux")
    opened: list[Tmux] = []

    def start(service: ControlledProgram, environ: Mapping[str, str] | None = None, columns: int = 80) -> Tmux:
        folder = tmp_path / f"terminal{len(opened)}"
        folder.mkdir()
        command = [*CTL, "--socket", service.path, "top", "--interval", "200ms"]
        opened.append(Tmux(folder, command, environ, columns))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_it_shows_the_service_and_the_call_in_hand(top: TopOf, controlled: StartControlled, gate: Gate) -> None:
    service = controlled("raw:app", "-w", "2", environ=gate.environ)
    with service.program.connect() as wire:
        wire.ask("/gate?secret=1")
        gate.wait_for(1)
        terminal = top(service)
        screen = terminal.wait(lambda shown: re.search(r"(?m)^ +\d .* 100% .*s GET /gate$", shown), "the call in hand")
        assert f"master {service.program.pid}  serving" in screen
        assert re.search(r"generation 1 for \d+s  up \d+s  2 of 2 workers serve", screen)
        gate.open(1)
        assert wire.answer().status == 200
    terminal.wait(lambda shown: "GET /gate" not in shown, "its end")
    service.program.until(lambda: service.do("status")["requests"] == 1, "the request's count")
    terminal.wait(lambda shown: re.search(r"answers/s .*[1-9]", shown), "an answer a second")
    terminal.press("q")
    assert terminal.status() == 0


def test_keys_ask_first_and_then_do_it(top: TopOf, controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "2")
    first, second = (worker["pid"] for worker in service.workers())
    terminal = top(service)
    terminal.wait_for(str(second))
    terminal.press("Down", "s")
    terminal.wait_for(f"show the stacks of worker 1, pid {first}?  y yes, any other key no")
    terminal.press("y")
    terminal.wait(lambda shown: shown.startswith(f"stacks of worker 1, pid {first}\nthread "), "stacks")
    terminal.press("Escape", "Down", "t")
    terminal.wait_for(f"retire worker 2, pid {second}?")
    terminal.press("n")
    terminal.wait_for("nothing was done")
    terminal.press("t", "y")
    assert wait_gone(second)
    terminal.wait(lambda shown: f" {second} " not in shown, "its end")
    terminal.press("r")
    terminal.wait_for(f"reload raw:app (master {service.program.pid})?")
    terminal.press("y")
    terminal.wait_for("generation 2 for ")
    assert wait_gone(first)


def test_it_is_sorted_and_explained_at_a_key(top: TopOf, controlled: StartControlled) -> None:
    terminal = top(controlled("raw:app", "-w", "2"))
    terminal.wait(lambda shown: re.search(r"(?m)^ +1 .*\n +2 ", shown), "workers by number")
    terminal.press("i")
    terminal.wait(lambda shown: re.search(r"(?m)^ +2 .*\n +1 ", shown), "the other order")
    terminal.press("h")
    assert "turn the order around" in terminal.wait_for("retire the chosen worker")
    terminal.press("Escape", "p")
    terminal.wait_for("paused")
    terminal.press("p")
    terminal.wait_for("every 0.2s")


def test_a_death_is_shown_with_its_cause(top: TopOf, controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "2")
    terminal = top(service, columns=110)
    victim = service.workers()[0]["pid"]
    terminal.wait_for(str(victim))
    os.kill(victim, signal.SIGKILL)
    screen = terminal.wait_for(f"worker=1 gen=1 pid={victim} killed by SIGKILL, sent by another process")
    assert "ended: 1 killed by SIGKILL (sent by another process)" in screen


def test_it_follows_the_size_of_its_terminal(top: TopOf, controlled: StartControlled) -> None:
    terminal = top(controlled("raw:app"))
    assert "UNSENT" not in terminal.wait_for("IN HAND")
    terminal.resize(140, 40)
    terminal.wait_for("UNSENT")
    terminal.wait(lambda shown: shown.rstrip().splitlines()[-1].startswith("q quit"), "the keys in the last row")
    terminal.resize(50, 10)
    terminal.wait_for("the terminal is too small: 50x10; 60x16 at least")
    terminal.resize(80, 24)
    terminal.wait_for("IN HAND")


def test_a_service_that_goes_away_and_comes_back_is_shown_again(top: TopOf, controlled: StartControlled) -> None:
    service = controlled("raw:app")
    terminal = top(service)
    terminal.wait_for("1 of 1 worker serves")
    assert service.program.stop() == 0
    terminal.wait(lambda shown: re.search(r"no answer for \d+s: .*no such ", shown, re.DOTALL), "the reason")
    again = controlled("raw:app", "-w", "2")
    screen = terminal.wait_for("2 of 2 workers serve")
    assert f"master {again.program.pid}" in screen
    assert "no answer" not in screen


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {}], ids=["NO_COLOR", "colours"])
def test_colours_are_left_out_where_they_are_not_wanted(
    top: TopOf, controlled: StartControlled, environ: dict[str, str]
) -> None:
    terminal = top(controlled("raw:app"), environ)
    terminal.wait_for("IN HAND")
    shown = terminal.screen(colours=True)
    coloured = re.search(r"\x1b\[[0-9;]*3[1-6]", shown)
    assert bool(coloured) is not bool(environ), shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(
    tmp_path: Path, controlled: StartControlled, number: signal.Signals
) -> None:
    service = controlled("raw:app")
    shell = f'{" ".join(CTL)} --socket {service.path} top; echo "status $?"; stty -a; read _'
    terminal = Tmux(tmp_path, ["sh", "-c", f"trap : INT; {shell}"])
    try:
        terminal.wait_for("IN HAND")
        (pid,) = (int(each) for each in Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read_text().split())
        os.kill(pid, number)
        screen = terminal.wait_for(" echo ")
        assert f"status {128 + number}" in screen
        assert re.search(r"(?<!-)\bicanon", screen)
        assert "Traceback" not in screen
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("term", "told"), [("dumb", "it cannot place text"), ("no-such-terminal", "setupterm: could not find terminal")]
)
def test_a_terminal_that_cannot_be_drawn_at_is_told(controlled: StartControlled, term: str, told: str) -> None:
    service = controlled("raw:app")
    keyboard, screen = os.openpty()
    with open(keyboard, "rb"), open(screen, "wb") as tty:
        command = [*CTL, "--socket", service.path, "top"]
        ran = subprocess.run(
            command, stdin=tty, stdout=tty, stderr=subprocess.PIPE, text=True, env=os.environ | {"TERM": term}
        )
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"forkserverctl: TERM={term}: {told}")
    assert ran.stderr.endswith("; set TERM to what the terminal is, or use top --once\n")


def test_once_it_is_text_for_a_pipe(controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "2")
    assert get(service.program.address, "/pid").status == 200
    command = [*CTL, "--socket", service.path, "top", "--once", "--interval", "0.2"]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "\x1b" not in ran.stdout
    assert re.search(r"(?m)^ +2 +\d+ +1 serving", ran.stdout)
