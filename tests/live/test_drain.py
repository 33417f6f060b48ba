"""TERM with a delay: load balancers notice while everyone who comes is served; what the application leaves behind."""

from __future__ import annotations

import os
import signal

import psutil

from harness.clients import get
from harness.processes import end, wait_gone


def test_until_the_delay_is_over_newcomers_are_served_and_told_to_leave(serve) -> None:
    program = serve("raw:app", "-w", "2", "--drain-delay", "3")
    with program.connect() as parked:
        assert not parked.get().last
        program.send(signal.SIGTERM)
        program.said.wait(r"(?m)^STOPPING=1$")
        program.log.wait("serving on for drain_delay, 3 s")
        while not parked.get().last:
            continue  # its worker has not heard of it yet
        assert parked.ended()
    told = False
    while not told:
        with program.connect() as newcomer:
            told = newcomer.get().last
    assert program.log.find("drain_delay is over") is None
    program.log.wait("drain_delay is over")
    assert program.wait() == 0


def test_who_dies_before_the_delay_is_over_is_replaced_and_drains_too(serve) -> None:
    program = serve("raw:app", "-w", "1", "--drain-delay", "60")
    (victim,) = program.workers()
    program.send(signal.SIGTERM)
    program.log.wait("serving on for drain_delay")
    since = program.log.mark()
    os.kill(victim.pid, signal.SIGKILL)
    program.log.wait("is ready", since)
    with program.connect() as wire:
        assert wire.get().last
    assert program.stop(signal.SIGINT) == 0


def test_a_reload_before_the_delay_is_over_does_nothing(serve) -> None:
    program = serve("raw:app", "--drain-delay", "60")
    workers = program.workers()
    program.send(signal.SIGTERM)
    program.log.wait("serving on for drain_delay")
    program.send(signal.SIGHUP)
    program.send(signal.SIGUSR1)  # handled after the other, so its line says that the other is through
    program.log.wait("log files are opened again")
    assert program.log.find("SIGHUP from .*: no reload, the service is draining or stopping")
    assert not program.log.find("loading generation 2")
    assert program.workers() == workers
    assert program.stop(signal.SIGINT) == 0


def test_a_second_term_cuts_the_delay_short(serve, gate) -> None:
    """The operator has had enough of waiting: a call in hand is not waited for either."""
    program = serve("raw:app", "--drain-delay", "60", environ=gate.environ)
    with program.connect() as held:
        held.ask("/gate")
        gate.wait_for()
        program.send(signal.SIGTERM)
        program.log.wait("serving on for drain_delay")
        while not program.log.find("second request, SIGTERM .*; at once"):  # not what comes at the same moment
            program.send(signal.SIGTERM)
        assert held.ended()
    assert program.wait() == 0


def test_what_the_application_has_started_is_left_alone_and_named(serve, gate) -> None:
    """It is not ours to end: systemd ends it with the unit, anyone else by the pid that the log names."""
    program = serve("faults:app", environ=gate.environ)
    left = int(get(program.address, "/leave").text)
    try:
        assert program.stop() == 0
        program.log.wait(rf"the application leaves 1 process running, pid {left}\b")
        assert psutil.pid_exists(left)
        assert not wait_gone(left, 0)
    finally:
        end({left})
