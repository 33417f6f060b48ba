"""Calls that do not end: named with their age and stacks, answered where that can be had, their worker replaced."""

from __future__ import annotations

import os
import signal

import pytest

from harness.processes import wait_gone

HEARS = ("spin", "lock")  # Python code, which an exception ends


def pid_of_another(program) -> int:
    """The worker that serves while the other one is busy; asked by a new connection, for the busy one accepts none."""
    with program.connect() as wire:
        return int(wire.get("/pid").text)


@pytest.mark.parametrize("how", HEARS)
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_call_that_never_ends_is_answered_504_and_its_worker_replaced(serve, gate, how: str, threads: str) -> None:
    """The client hears that it is over, and the operator which request it was and where it stands."""
    program = serve(
        "faults:app", "--timeout", "1", "--threads", threads, "--graceful-timeout", "3", environ=gate.environ
    )
    (worker,) = program.workers()
    with program.connect() as wire:
        wire.ask(f"/{how}")
        gate.wait_for()
        assert wire.answer().status == 504
    program.log.wait(rf"worker=1 gen=1 pid={worker.pid}: GET /{how} has taken 1\.\d s")
    program.log.wait(rf"faults\.py.* in _{how}")
    assert wait_gone(worker.pid)
    with program.connect() as wire:
        assert int(wire.get("/pid").text) != worker.pid
    assert program.stop() == 0


def test_c_code_that_keeps_the_interpreter_is_killed_and_the_reason_told(serve, gate) -> None:
    program = serve("faults:app", "-w", "2", "--timeout", "1", environ=gate.environ)
    with program.connect() as held:
        held.ask("/c")
        gate.wait_for()
        survivor = pid_of_another(program)
        (victim,) = {worker.pid for worker in program.workers()} - {survivor}
        assert held.ended()
        death = program.log.wait(rf"pid={victim} ended").text
    assert "killed by SIGKILL, sent by the master" in death
    assert "it was serving GET /c (" in death
    assert "held 1 connection" in death
    assert len(program.log.text().split(" ended: ")) == 2, "one line for one death"


def test_a_stopped_worker_is_killed(serve, gate) -> None:
    """It hears nothing, and nobody knows when it would go on."""
    program = serve("faults:app", "-w", "2", "--timeout", "1", environ=gate.environ)
    with program.connect() as held:
        held.ask("/gate")
        gate.wait_for()
        survivor = pid_of_another(program)
        (victim,) = {worker.pid for worker in program.workers()} - {survivor}
        os.kill(victim, signal.SIGSTOP)
        assert held.ended()
        assert "sent by the master" in program.log.wait(rf"pid={victim} ended").text
        assert pid_of_another(program) != victim
    program.until(lambda: len(program.workers()) == 2, "its successor")


def test_an_idle_worker_that_is_stopped_is_killed_too(serve) -> None:
    """Its parked connections would wait for ever, and no call shows that anything is wrong."""
    program = serve("raw:app", "-w", "2", "--timeout", "1")
    victim = program.workers()[0].pid  # nobody has asked it anything: it is idle for certain
    os.kill(victim, signal.SIGSTOP)
    program.log.wait(rf"pid={victim} was stopped by a signal; kill -CONT {victim} lets it go on")
    death = program.log.wait(rf"pid={victim} ended").text
    assert "sent by the master: a signal had stopped it for timeout (1 s)" in death
    assert "serving GET" not in death
    program.until(lambda: len(program.workers()) == 2, "its successor")
    assert program.stop() == 0


def test_a_worker_that_goes_on_in_time_is_let_be(serve) -> None:
    program = serve("raw:app", "-w", "1", "--timeout", "1")
    (worker,) = program.workers()
    with program.connect() as parked:
        assert parked.get("/pid").status == 200
        os.kill(worker.pid, signal.SIGSTOP)
        program.log.wait("was stopped by a signal")
        os.kill(worker.pid, signal.SIGCONT)
        assert int(parked.get("/pid").text) == worker.pid
    assert program.stop() == 0
    assert "SIGKILL" not in program.log.text()


def test_who_hangs_during_a_stop_does_not_hold_it(serve, gate) -> None:
    program = serve("faults:app", "--timeout", "1", "--graceful-timeout", "20", environ=gate.environ)
    with program.connect() as held:
        held.ask("/spin")
        gate.wait_for()
        program.send(signal.SIGTERM)
        assert held.answer().status == 504
    assert program.wait(15) == 0


def test_a_stopped_worker_that_retires_is_killed_as_soon(serve, gate) -> None:
    """Who waits for its answer, and for the reload that waits for it, would wait for all of graceful_timeout."""
    program = serve("faults:app", "--timeout", "1", "--graceful-timeout", "600", environ=gate.environ)
    (worker,) = program.workers()
    with program.connect() as held:
        held.ask("/gate")
        gate.wait_for()
        os.kill(worker.pid, signal.SIGSTOP)
        program.log.wait("was stopped by a signal")
        program.reload()
        assert held.ended()
    assert "it did not hear within 2 s" in program.log.wait(rf"pid={worker.pid} ended").text
    assert program.stop() == 0


def test_what_comes_after_a_refused_reload_is_watched_too(serve, gate, tmp_path) -> None:
    """The reload brought another scoreboard, and the new worker, from the template of before, writes into the old."""
    settings = tmp_path / "forkserver.toml"
    settings.write_text("threads = 1\n")
    program = serve("faults:app", "--timeout", "1", "--graceful-timeout", "2", environ=gate.environ)
    settings.write_text('threads = 2\nhooks = "nowhere"\n')
    program.send(signal.SIGHUP)
    program.log.wait("reload failed")
    since = program.log.mark()
    os.kill(program.workers()[0].pid, signal.SIGKILL)
    program.log.wait("is ready", since)
    with program.connect() as wire:
        wire.ask("/lock")
        gate.wait_for()
        program.log.wait("GET /lock has taken")
        assert wire.answer().status == 504


def test_what_another_thread_serves_is_finished(serve, gate) -> None:
    """One call of a worker hangs; those beside it have done nothing wrong."""
    program = serve("faults:app", "--threads", "2", "--timeout", "2", environ=gate.environ)
    with program.connect() as hanging, program.connect() as waiting:
        hanging.ask("/lock")
        gate.wait_for()
        program.log.wait("GET /lock has taken")
        # The worker retires, and has accepted this before or leaves it to its successor: it is answered either way.
        waiting.ask("/gate")
        gate.wait_for()
        gate.open()
        assert waiting.answer().text == "passed"
        assert hanging.answer().status == 504
