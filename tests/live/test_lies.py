"""An application that says and attaches anything: the master goes on, and touches nothing but its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from harness import processes
from harness.program import StartProgram

WORKERS = 8  # each lie may cost one


class Liar:
    """A program whose application lies, and a process that is none of the program's."""

    def __init__(self, program: StartProgram, folder: Path, bystander: int, workers: int) -> None:
        self.lies = folder / "lies"
        self.lies.mkdir()
        self.bystander = bystander
        environ = {"LIES": str(self.lies), "BYSTANDER": str(bystander)}
        self.socket = str(folder / "c.sock")
        options = (
            "-w",
            str(workers),
            "--preload",
            "on",
            "--boot-timeout",
            "10",
            "--graceful-timeout",
            "2",
            "--control-socket",
            self.socket,
            "--slow-log",
            "100ms",
        )
        self.program = program("lying:app", *options, environ=environ)
        with self.program.connect() as wire:
            self.count = int(wire.get("/").text)

    def tell(self, number: int) -> None:
        """From a worker, which may not live to answer."""
        with suppress(OSError, AssertionError, EOFError, ValueError), self.program.connect() as wire:
            wire.get(f"/lie/{number}")

    def check(self) -> None:
        """The master hears, answers, and nobody else was ended."""
        from forkserver.cli import control

        for command in ("status", "slow"):
            assert control.main(["--socket", self.socket, command]) == 0
        assert psutil.Process(self.bystander).status() != psutil.STATUS_ZOMBIE
        assert self.program.process.poll() is None
        assert "the master cannot go on" not in self.program.log.text()


Start = Callable[[int], Liar]


@pytest.fixture
def bystander() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        yield process.pid
        assert process.poll() is None, "it was ended by somebody else"
        process.kill()


@pytest.fixture
def start(program: StartProgram, tmp_path: Path, bystander: int) -> Start:
    return lambda workers: Liar(program, tmp_path, bystander, workers)


def descriptors(liar: Liar) -> int:
    """How many different things its master holds open."""
    return len(set(processes.descriptors(liar.program.pid).values()))


def test_no_lie_of_a_worker_ends_or_holds_the_master(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    """Every message with anything in its fields, every descriptor, every shared word."""
    liar = start(WORKERS)
    for number in range(liar.count):
        liar.tell(number)
        liar.check()
    liar.program.reload()
    liar.program.until(lambda: len(liar.program.workers(2)) == WORKERS, "the workers of the next generation")
    before = descriptors(liar)
    liar.program.reload()
    liar.program.until(lambda: len(liar.program.workers(3)) == WORKERS, "and of the one after it")
    liar.program.until(lambda: descriptors(liar) <= before, "no descriptor was kept")
    assert liar.program.stop() == 0


def test_no_lie_of_a_template_ends_or_holds_the_master(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    liar = start(2)
    for number in range(liar.count):
        (liar.lies / str(number)).touch()
        since = liar.program.log.mark()
        liar.program.send(signal.SIGHUP)
        liar.program.log.wait(r"reload failed|generation \d+ serves", since)
        (liar.lies / str(number)).unlink()
        liar.check()
    assert liar.program.stop() == 0


def test_a_pid_that_is_no_child_is_never_ended(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    """Named for the very row that a worker was ordered for, before the worker itself is named."""
    liar = start(2)
    for pid in (liar.bystander, -1, 0, 1, liar.program.pid, liar.program.template().pid):
        (liar.lies / f"forked-{pid}").touch()
    victim = liar.program.workers()[0]
    since = liar.program.log.mark()
    os.kill(victim.pid, signal.SIGKILL)
    liar.program.log.wait(rf"pid={victim.pid} ended", since)
    liar.program.log.wait(r"worker=1 gen=\d pid=\d+ is ready", since)
    assert processes.title(liar.program.pid)
    liar.check()
    assert liar.program.stop() == 0
