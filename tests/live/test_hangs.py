"""Calls that do not end: named with their age and stacks, answered where that can be had, their worker replaced."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness.gate import Gate
from harness.processes import wait_gone
from harness.program import StartProgram

HEARS = ("spin", "lock")  # Python code, which an exception ends


def pid_of_another(server) -> int:
    """The worker that serves while the other one is busy; asked by a new connection, for the busy one accepts none."""
    with server.connect() as wire:
        return int(wire.get("/pid").text)


@pytest.mark.parametrize("how", HEARS)
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_call_that_never_ends_is_answered_504_and_its_worker_replaced(
    program: StartProgram, gate: Gate, how: str, threads: str
) -> None:
    """The client hears that it is over, and the operator which request it was and where it stands."""
    server = program(
        "faults:app", "--timeout", "1", "--threads", threads, "--graceful-timeout", "3", environ=gate.environ
    )
    (worker,) = server.workers()
    with server.connect() as wire:
        wire.ask(f"/{how}", headers="X-Request-Id: slow-one\r\n")
        gate.wait_for()
        assert wire.answer().status == 504
    server.log.wait(rf"worker=1 gen=1 pid={worker.pid}: GET /{how} \(request slow-one\) has taken 1\.\d s")
    server.log.wait(rf"faults\.py.* in _{how}")
    assert wait_gone(worker.pid)
    with server.connect() as wire:
        assert int(wire.get("/pid").text) != worker.pid
    assert server.stop() == 0


def test_c_code_that_keeps_the_interpreter_is_killed_and_the_reason_told(program: StartProgram, gate: Gate) -> None:
    server = program("faults:app", "-w", "2", "--timeout", "1", environ=gate.environ)
    with server.connect() as held:
        held.ask("/c")
        gate.wait_for()
        survivor = pid_of_another(server)
        (victim,) = {worker.pid for worker in server.workers()} - {survivor}
        assert held.ended()
        death = server.log.wait(rf"pid={victim} ended").text
    assert "killed by SIGKILL, sent by the master" in death
    assert "it was serving GET /c (" in death
    assert "held 1 connection" in death
    assert len(server.log.text().split(" ended: ")) == 2, "one line for one death"


def test_a_stopped_worker_is_killed(program: StartProgram, gate: Gate) -> None:
    """It hears nothing, and nobody knows when it would go on."""
    server = program("faults:app", "-w", "2", "--timeout", "1", environ=gate.environ)
    with server.connect() as held:
        held.ask("/gate")
        gate.wait_for()
        survivor = pid_of_another(server)
        (victim,) = {worker.pid for worker in server.workers()} - {survivor}
        os.kill(victim, signal.SIGSTOP)
        assert held.ended()
        assert "sent by the master" in server.log.wait(rf"pid={victim} ended").text
        assert pid_of_another(server) != victim
    server.until(lambda: len(server.workers()) == 2, "its successor")


def test_an_idle_worker_that_is_stopped_is_killed_too(program: StartProgram) -> None:
    """Its parked connections would wait for ever, and no call shows that anything is wrong."""
    server = program("raw:app", "-w", "2", "--timeout", "1")
    victim = server.workers()[0].pid  # nobody has asked it anything: it is idle for certain
    os.kill(victim, signal.SIGSTOP)
    server.log.wait(rf"pid={victim} was stopped by a signal; kill -CONT {victim} lets it go on")
    death = server.log.wait(rf"pid={victim} ended").text
    assert "sent by the master: a signal had stopped it for timeout (1 s)" in death
    assert "serving GET" not in death
    server.until(lambda: len(server.workers()) == 2, "its successor")
    assert server.stop() == 0


def test_a_worker_that_goes_on_in_time_is_let_be(program: StartProgram) -> None:
    server = program("raw:app", "-w", "1", "--timeout", "1")
    (worker,) = server.workers()
    with server.connect() as parked:
        assert parked.get("/pid").status == 200
        os.kill(worker.pid, signal.SIGSTOP)
        server.log.wait("was stopped by a signal")
        os.kill(worker.pid, signal.SIGCONT)
        assert int(parked.get("/pid").text) == worker.pid
    assert server.stop() == 0
    assert "SIGKILL" not in server.log.text()


def test_who_hangs_during_a_stop_does_not_hold_it(program: StartProgram, gate: Gate) -> None:
    server = program("faults:app", "--timeout", "1", "--graceful-timeout", "20", environ=gate.environ)
    with server.connect() as held:
        held.ask("/spin")
        gate.wait_for()
        server.send(signal.SIGTERM)
        assert held.answer().status == 504
    assert server.wait(15) == 0


def test_a_stopped_worker_that_retires_is_killed_as_soon(program: StartProgram, gate: Gate) -> None:
    """Who waits for its answer, and for the reload that waits for it, would wait for all of graceful_timeout."""
    server = program("faults:app", "--timeout", "1", "--graceful-timeout", "600", environ=gate.environ)
    (worker,) = server.workers()
    with server.connect() as held:
        held.ask("/gate")
        gate.wait_for()
        os.kill(worker.pid, signal.SIGSTOP)
        server.log.wait("was stopped by a signal")
        server.reload()
        assert held.ended()
    assert "it did not hear within 2 s" in server.log.wait(rf"pid={worker.pid} ended").text
    assert server.stop() == 0


def test_what_comes_after_a_refused_reload_is_watched_too(program: StartProgram, gate: Gate, tmp_path: Path) -> None:
    """The reload brought another scoreboard, and the new worker, from the template of before, writes into the old."""
    settings = tmp_path / "forkserver.toml"
    settings.write_text("threads = 1\n")
    server = program("faults:app", "--timeout", "1", "--graceful-timeout", "2", environ=gate.environ)
    settings.write_text('threads = 2\nhooks = "nowhere"\n')
    server.send(signal.SIGHUP)
    server.log.wait("reload failed")
    since = server.log.mark()
    os.kill(server.workers()[0].pid, signal.SIGKILL)
    server.log.wait("is ready", since)
    with server.connect() as wire:
        wire.ask("/lock")
        gate.wait_for()
        server.log.wait(r"GET /lock \(request .*\) has taken")
        assert wire.answer().status == 504


def test_what_another_thread_serves_is_finished(program: StartProgram, gate: Gate) -> None:
    """One call of a worker hangs; those beside it have done nothing wrong."""
    server = program("faults:app", "--threads", "2", "--timeout", "2", environ=gate.environ)
    with server.connect() as hanging, server.connect() as waiting:
        hanging.ask("/lock")
        gate.wait_for()
        server.log.wait(r"GET /lock \(request .*\) has taken")
        # The worker retires, and has accepted this before or leaves it to its successor: it is answered either way.
        waiting.ask("/gate")
        gate.wait_for()
        gate.open()
        assert waiting.answer().text == "passed"
        assert hanging.answer().status == 504
