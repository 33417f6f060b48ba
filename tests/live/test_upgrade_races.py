"""What comes while the next program of an upgrade is tried, or while a reload or a stop is under way."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forkserver.cli import control_client
from harness import BOUND
from harness.clients import get
from harness.gate import Gate
from harness.processes import wait_gone
from harness.program import StartProgram
from harness.upgrading import APP, UPGRADED, PackageCopy


@pytest.fixture
def slow(tmp_path: Path, site: PackageCopy):
    """A next program that says that its trial has begun, and goes on when the test says so."""
    for name in ("began", "go_on"):
        os.mkfifo(tmp_path / name)
    ends = {name: os.open(tmp_path / name, os.O_RDWR) for name in ("began", "go_on")}

    def make() -> None:
        waits = f"open({str(tmp_path / 'began')!r}, 'w').write('.'); open({str(tmp_path / 'go_on')!r}).read(1)"
        site.change("master/upgrade/upgrade.py", "loader.preload_modules()", f"{waits}; loader.preload_modules()")

    yield make, ends
    for end in ends.values():
        os.close(end)


def test_a_stop_during_a_trial_stops(program: StartProgram, site: PackageCopy, slow) -> None:
    make, ends = slow
    server = program("raw:app", environ=site.environ)
    make()
    server.send(signal.SIGUSR2)
    os.read(ends["began"], 1)
    assert server.stop() == 0
    assert not server.log.find("takes over|leaves 1 process running")


def test_a_reload_asked_for_during_a_trial_is_the_next_programs(program: StartProgram, site: PackageCopy, slow) -> None:
    make, ends = slow
    server = program("raw:app", environ=site.environ)
    make()
    server.send(signal.SIGUSR2)
    os.read(ends["began"], 1)
    server.send(signal.SIGHUP)
    os.write(ends["go_on"], b".")
    server.log.wait("generation 2 serves")
    server.log.wait(UPGRADED)
    assert server.stop() == 0
    assert not server.log.find("loading generation 3"), "one reload was enough"


def test_a_reload_asked_for_during_a_trial_that_fails_is_not_forgotten(
    program: StartProgram, site: PackageCopy, slow
) -> None:
    make, ends = slow
    server = program("raw:app", environ=site.environ)
    make()
    site.change("master/upgrade/upgrade.py", "loader.preload_modules()", "raise ConfigError('no')")
    server.send(signal.SIGUSR2)
    os.read(ends["began"], 1)
    server.send(signal.SIGHUP)
    os.write(ends["go_on"], b".")
    server.log.wait("refuses: no; ")
    server.log.wait("generation 2 serves")


def test_who_waits_for_a_reload_during_a_trial_is_answered(
    program: StartProgram, tmp_path: Path, site: PackageCopy, slow
) -> None:
    """The next program goes on with its connection, and answers when its own reload is done."""
    make, ends = slow
    path = str(tmp_path / "control.sock")
    server = program("raw:app", "--control-socket", path, environ=site.environ)
    make()
    server.send(signal.SIGUSR2)
    os.read(ends["began"], 1)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(control_client.ask, path, {"command": "reload", "wait": True}, BOUND)
        server.log.wait("forkserverctl: reload")
        os.write(ends["go_on"], b".")
        answer = asked.result(BOUND)
    assert (answer["ok"], answer["generation"]) == (True, 2), answer


def test_a_worker_that_dies_during_a_trial_is_replaced_at_once(program: StartProgram, site: PackageCopy, slow) -> None:
    make, ends = slow
    server = program("raw:app", "-w", "1", environ=site.environ)
    make()
    server.send(signal.SIGUSR2)
    os.read(ends["began"], 1)
    (victim,) = server.workers()
    since = server.log.mark()
    os.kill(victim.pid, signal.SIGKILL)
    server.log.wait("worker=1 gen=1 .* is ready", since)
    os.write(ends["go_on"], b".")
    server.log.wait("generation 2 serves", since)


def test_usr2_during_a_reload_is_remembered(program: StartProgram, tmp_path: Path, site: PackageCopy, slow) -> None:
    """A roll has two generations at once; what comes then waits until every slot has the newer one."""
    _, ends = slow
    (tmp_path / "app.py").write_text(APP.format(before="", version=1))
    server = program("app:app", environ=site.environ)
    waits = f"open({str(tmp_path / 'began')!r}, 'w').write('.'); open({str(tmp_path / 'go_on')!r}).read(1)"
    (tmp_path / "app.py").write_text(APP.format(before=waits, version=2))
    server.send(signal.SIGHUP)
    os.read(ends["began"], 1)
    server.send(signal.SIGUSR2)
    (tmp_path / "app.py").write_text(APP.format(before="", version=3))
    os.write(ends["go_on"], b".")
    server.log.wait("generation 3 serves")
    said = server.log.text()
    assert said.index("worker=1 gen=2 ") < said.index("upgrade: trying") < said.index("loading generation 3")
    assert get(server.address).text == "3"


def test_usr2_during_a_stop_does_nothing(program: StartProgram, gate: Gate, site: PackageCopy) -> None:
    server = program("raw:app", environ={**gate.environ, **site.environ})
    with server.connect() as wire:
        wire.ask("/gate")
        gate.wait_for(1)
        server.send(signal.SIGTERM)
        server.log.wait("stopping: SIGTERM")
        server.send(signal.SIGUSR2)
        server.log.wait("SIGUSR2: no upgrade, the service is draining or stopping")
        gate.open()
        assert wire.answer().status == 200
    assert server.wait() == 0


def test_a_stop_that_comes_while_one_program_becomes_the_next_is_not_lost(
    program: StartProgram, site: PackageCopy
) -> None:
    """Signals wait in the kernel from before the exec until the next program's handlers stand."""
    server = program("raw:app", environ=site.environ)
    slow = "import signal as s; s.pthread_sigmask(s.SIG_BLOCK, []); words = list("
    site.change("cli/serve.py", "words = list(", slow)
    server.send(signal.SIGUSR2)
    server.log.wait("understands and takes over")
    for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTERM):
        server.send(number)
    assert server.wait() == 0
    server.log.wait("stopped")


def test_a_log_rotation_is_over_when_everyone_has_the_new_files(program: StartProgram, site: PackageCopy) -> None:
    """Who has not answered yet when the master becomes another program is still waited for."""
    server = program("raw:app", "-w", "2", environ=site.environ)
    (stopped, _) = server.workers()
    os.kill(stopped.pid, signal.SIGSTOP)
    server.log.wait("was stopped by a signal")
    since = server.log.mark()
    server.send(signal.SIGUSR1)
    server.send(signal.SIGUSR2)
    server.log.wait(UPGRADED, since)
    assert not server.log.find("log files are opened again", since)
    os.kill(stopped.pid, signal.SIGCONT)
    server.log.wait("log files are opened again", since)
    server.log.wait("generation 2 serves", since)
    assert wait_gone(stopped.pid, BOUND)
