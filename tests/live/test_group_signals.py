"""A signal to the whole process group, as Ctrl-C, `timeout` and process managers send it, is one orderly stop.

Template and workers get it too, and leave it to the master.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from harness import needs
from harness.clients import get
from harness.gate import Gate
from harness.load import Load
from harness.processes import wait_gone
from harness.program import APPS, MODULE, Program, own_address

IMPORTS_FOREVER = """
import os, threading
with open(os.environ["GATE_ARRIVALS"], "wb", buffering=0) as arrivals:
    arrivals.write(b".")
threading.Event().wait()
"""
Serve = Callable[..., Program]


@contextmanager
def in_flight(program: Program, gate: Gate, count: int = 2) -> Iterator[None]:
    """So many workers are in a call; they are answered."""
    with ExitStack() as stack:
        wires = [stack.enter_context(program.connect()) for _ in range(count)]
        for wire in wires:
            wire.ask("/gate")
        gate.wait_for(count)
        yield
        gate.open(count)
        assert [wire.answer().status for wire in wires] == [200] * count


@pytest.mark.parametrize("preload", ["auto", "off"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_requests_in_flight_are_answered(serve: Serve, gate: Gate, preload: str, number: signal.Signals) -> None:
    program = serve("raw:app", "-w", "2", "--preload", preload, environ=gate.environ, own_group=True)
    members = program.family()
    with in_flight(program, gate):
        program.send_to_group(number)
        program.log.wait(rf"stopping: {number.name} from pid {os.getpid()} \(.+?, uid {os.getuid()}\); finishing")
    assert program.wait() == 0
    assert program.problems() == []
    assert all(wait_gone(member.pid, 0) for member in members), "the master was the last to leave"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_an_idle_service_leaves_without_a_complaint(serve: Serve, number: signal.Signals) -> None:
    program = serve("raw:app", "-w", "2", own_group=True)
    program.send_to_group(number)
    assert program.wait() == 0
    assert program.problems() == []


def test_a_signal_that_comes_twice_at_once_is_one_stop(serve: Serve, gate: Gate) -> None:
    """`timeout` sends it to the process that it has started, then to the group, which that is in."""
    program = serve("raw:app", environ=gate.environ, own_group=True)
    with in_flight(program, gate, 1):
        program.send(signal.SIGTERM)
        program.send_to_group(signal.SIGTERM)
        program.log.wait("stopping: SIGTERM")
    assert program.wait() == 0
    assert "second request" not in program.log.text()


def test_a_second_int_is_quick(serve: Serve, gate: Gate) -> None:
    """Ctrl-C again: a person does not want to wait for what is held."""
    program = serve("raw:app", environ=gate.environ, own_group=True)
    with program.connect() as held:
        held.ask("/gate")
        gate.wait_for()
        program.send_to_group(signal.SIGINT)
        program.log.wait("stopping: SIGINT")
        while not program.log.find("second request"):
            program.send_to_group(signal.SIGINT)
        assert program.wait() == 0
        assert held.ended()
    assert program.problems() == []


@pytest.mark.parametrize("preload", ["auto", "off"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_start_that_imports_is_ended(
    launch: Serve, tmp_path: Path, gate: Gate, preload: str, number: signal.Signals
) -> None:
    """While it imports a process hears no order, and the signal of anybody else does nothing."""
    (tmp_path / "mysite.py").write_text(IMPORTS_FOREVER)
    host, port = own_address()
    more = {"environ": gate.environ, "own_group": True}
    program = launch("-b", f"{host}:{port}", "-w", "2", "--preload", preload, "mysite:app", **more)
    gate.wait_for()
    program.send_to_group(number)
    assert program.wait() == 0
    assert program.problems() == []


@pytest.mark.parametrize("preload", ["auto", "off"])
def test_a_reload_under_way_is_ended(serve: Serve, tmp_path: Path, gate: Gate, preload: str) -> None:
    site = tmp_path / "mysite.py"
    site.write_text("from raw import app\n")
    program = serve("mysite:app", "-w", "2", "--preload", preload, environ=gate.environ, own_group=True)
    with in_flight(program, gate):
        site.write_text(IMPORTS_FOREVER)
        program.send(signal.SIGHUP)
        gate.wait_for()
        program.send_to_group(signal.SIGTERM)
        program.log.wait("stopping: SIGTERM")
    assert program.wait() == 0
    assert program.problems() == []


def test_an_upgrade_under_way_is_ended(serve: Serve, gate: Gate) -> None:
    """Whether the next program is tried or has taken over when the signal comes."""
    program = serve("raw:app", "-w", "2", environ=gate.environ, own_group=True)
    with in_flight(program, gate):
        program.send(signal.SIGUSR2)
        program.log.wait("upgrade: trying the next program")
        program.send_to_group(signal.SIGTERM)
        program.log.wait("stopping: SIGTERM")
    assert program.wait() == 0
    assert program.problems() == []


def test_a_reload_of_the_whole_group_is_one_reload(serve: Serve) -> None:
    program = serve("raw:app", "-w", "2", own_group=True)
    with Load(program.address, clients=4) as load:
        load.more(50)
        program.send_to_group(signal.SIGHUP)
        program.log.wait(rf"reload wanted: SIGHUP from pid {os.getpid()} ")
        program.log.wait("generation 2 serves")
        load.more(50)
    assert load.lost == []
    assert program.stop() == 0
    assert program.problems() == []
    assert "generation 3" not in program.log.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_worker_that_is_told_alone_to_leave_is_replaced_first(
    serve: Serve, gate: Gate, number: signal.Signals
) -> None:
    program = serve("raw:app", environ=gate.environ)
    (worker,) = program.workers()
    with in_flight(program, gate, 1):
        os.kill(worker.pid, number)
        program.log.wait(rf"worker=1 gen=1 pid={worker.pid} is recycled: {number.name} asked it to leave")
        program.until(lambda: len(program.workers()) == 2, "its successor")
    assert wait_gone(worker.pid)
    assert int(get(program.address, "/pid").text) != worker.pid
    assert program.problems() == []


def test_a_worker_that_is_about_to_end_is_not_killed(serve: Serve, tmp_path: Path) -> None:
    """The interpreter puts default dispositions in place of its handlers before it takes modules apart."""
    (tmp_path / "mysite.py").write_text(
        "import os, signal\n"
        "from raw import app\n"
        "class Last:\n"
        "    def __del__(self, kill=os.kill, pid=os.getpid, number=signal.SIGTERM):\n"
        "        kill(pid(), number)\n"
        "last = Last()\n"
    )
    program = serve("mysite:app", "--preload", "off")
    (worker,) = program.workers()
    os.kill(worker.pid, signal.SIGTERM)
    program.log.wait(rf"worker=1 gen=1 pid={worker.pid} has left: exit status 0")
    assert program.stop() == 0


def test_programs_of_the_application_are_ended_by_the_same_signals_as_ever(serve: Serve, tmp_path: Path) -> None:
    """What is ignored or blocked here would stay so in them."""
    (tmp_path / "mysite.py").write_text(
        "import subprocess\n"
        "show = ['grep', '-E', 'Sig(Ign|Blk)', '/proc/self/status']\n"
        "at_import = subprocess.run(show, capture_output=True).stdout\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [at_import, subprocess.run(show, capture_output=True).stdout]\n"
    )
    program = serve("mysite:app")
    masks = [line.split() for line in get(program.address).text.splitlines()]
    assert len(masks) == 4
    for name, mask in masks:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            assert not int(mask, 16) >> (number - 1) & 1, f"{number.name} is in {name}"


def test_timeout_ends_a_service_in_good_order(launch: Serve, gate: Gate) -> None:
    """GNU timeout sends what it gets, and what it sends by itself, to its child and then to the whole group."""
    address = own_address()
    arguments = ("--pythonpath", str(APPS), "-b", f"{address[0]}:{address[1]}", "-w", "2", "raw:app")
    command = (needs.program("timeout"), "1000", *MODULE)
    program = launch(*arguments, environ=gate.environ, command=command).wait_ready()
    program.address = address
    with in_flight(program, gate):
        program.send(signal.SIGTERM)
        program.log.wait("stopping: SIGTERM from pid")
    assert program.wait() == 0
    assert program.problems() == []
    assert "second request" not in program.log.text()
