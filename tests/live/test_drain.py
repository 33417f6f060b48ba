"""TERM with a delay: load balancers notice while everyone who comes is served; what the application leaves behind."""

from __future__ import annotations

import os
import signal

import psutil

from harness.clients import get
from harness.gate import Gate
from harness.processes import end, wait_gone
from harness.program import StartProgram


def test_until_the_delay_is_over_newcomers_are_served_and_told_to_leave(program: StartProgram) -> None:
    server = program("raw:app", "-w", "2", "--drain-delay", "3")
    with server.connect() as parked:
        assert not parked.get().last
        server.send(signal.SIGTERM)
        server.said.wait(r"(?m)^STOPPING=1$")
        server.log.wait("serving on for drain_delay, 3 s")
        while not parked.get().last:
            continue  # its worker has not heard of it yet
        assert parked.ended()
    told = False
    while not told:
        with server.connect() as newcomer:
            told = newcomer.get().last
    assert server.log.find("drain_delay is over") is None
    server.log.wait("drain_delay is over")
    assert server.wait() == 0


def test_who_dies_before_the_delay_is_over_is_replaced_and_drains_too(program: StartProgram) -> None:
    server = program("raw:app", "-w", "1", "--drain-delay", "60")
    (victim,) = server.workers()
    server.send(signal.SIGTERM)
    server.log.wait("serving on for drain_delay")
    since = server.log.mark()
    os.kill(victim.pid, signal.SIGKILL)
    server.log.wait("is ready", since)
    with server.connect() as wire:
        assert wire.get().last
    assert server.stop(signal.SIGINT) == 0


def test_a_reload_before_the_delay_is_over_does_nothing(program: StartProgram) -> None:
    server = program("raw:app", "--drain-delay", "60")
    workers = server.workers()
    server.send(signal.SIGTERM)
    server.log.wait("serving on for drain_delay")
    server.send(signal.SIGHUP)
    server.send(signal.SIGUSR1)  # handled after the other, so its line says that the other is through
    server.log.wait("log files are opened again")
    server.log.wait("SIGHUP from .*: no reload, the service is draining or stopping")
    assert not server.log.find("loading generation 2")
    assert server.workers() == workers
    assert server.stop(signal.SIGINT) == 0


def test_a_second_term_cuts_the_delay_short(program: StartProgram, gate: Gate) -> None:
    """The operator has had enough of waiting: a call in hand is not waited for either."""
    server = program("raw:app", "--drain-delay", "60", environ=gate.environ)
    with server.connect() as held:
        held.ask("/gate")
        gate.wait_for()
        server.send(signal.SIGTERM)
        server.log.wait("serving on for drain_delay")
        while not server.log.find("second request, SIGTERM .*; at once"):  # not what comes at the same moment
            server.send(signal.SIGTERM)
        assert held.ended()
    assert server.wait() == 0


def test_what_the_application_has_started_is_left_alone_and_named(program: StartProgram, gate: Gate) -> None:
    """It is not ours to end: systemd ends it with the unit, anyone else by the pid that the log names."""
    server = program("faults:app", environ=gate.environ)
    left = int(get(server.address, "/leave").text)
    try:
        assert server.stop() == 0
        server.log.wait(rf"the application leaves 1 process running, pid {left}\b")
        assert psutil.pid_exists(left)
        assert not wait_gone(left, 0)
    finally:
        end({left})
