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
def in_flight(server: Program, gate: Gate, count: int = 2) -> Iterator[None]:
    """So many workers are in a call; they are answered."""
    with ExitStack() as stack:
        wires = [stack.enter_context(server.connect()) for _ in range(count)]
        for wire in wires:
            wire.ask("/gate")
        gate.wait_for(count)
        yield
        gate.open(count)
        assert [wire.answer().status for wire in wires] == [200] * count


@pytest.mark.parametrize("preload", ["auto", "off"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_requests_in_flight_are_answered(program: Serve, gate: Gate, preload: str, number: signal.Signals) -> None:
    server = program("raw:app", "-w", "2", "--preload", preload, environ=gate.environ, own_group=True)
    members = server.family()
    with in_flight(server, gate):
        server.send_to_group(number)
        server.log.wait(rf"stopping: {number.name} from pid {os.getpid()} \(.+?, uid {os.getuid()}\); finishing")
    assert server.wait() == 0
    assert server.problems() == []
    assert all(wait_gone(member.pid, 0) for member in members), "the master was the last to leave"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_an_idle_service_leaves_without_a_complaint(program: Serve, number: signal.Signals) -> None:
    server = program("raw:app", "-w", "2", own_group=True)
    server.send_to_group(number)
    assert server.wait() == 0
    assert server.problems() == []


def test_a_signal_that_comes_twice_at_once_is_one_stop(program: Serve, gate: Gate) -> None:
    """`timeout` sends it to the process that it has started, then to the group, which that is in."""
    server = program("raw:app", environ=gate.environ, own_group=True)
    with in_flight(server, gate, 1):
        server.send(signal.SIGTERM)
        server.send_to_group(signal.SIGTERM)
        server.log.wait("stopping: SIGTERM")
    assert server.wait() == 0
    assert "second request" not in server.log.text()


def test_a_second_int_is_quick(program: Serve, gate: Gate) -> None:
    """Ctrl-C again: a person does not want to wait for what is held."""
    server = program("raw:app", environ=gate.environ, own_group=True)
    with server.connect() as held:
        held.ask("/gate")
        gate.wait_for()
        server.send_to_group(signal.SIGINT)
        server.log.wait("stopping: SIGINT")
        while not server.log.find("second request"):
            server.send_to_group(signal.SIGINT)
        assert server.wait() == 0
        assert held.ended()
    assert server.problems() == []


@pytest.mark.parametrize("preload", ["auto", "off"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_start_that_imports_is_ended(
    launch: Serve, tmp_path: Path, gate: Gate, preload: str, number: signal.Signals
) -> None:
    """While it imports a process hears no order, and a signal of any other process does nothing."""
    (tmp_path / "mysite.py").write_text(IMPORTS_FOREVER)
    host, port = own_address()
    more = {"environ": gate.environ, "own_group": True}
    server = launch("-b", f"{host}:{port}", "-w", "2", "--preload", preload, "mysite:app", **more)
    gate.wait_for()
    server.send_to_group(number)
    assert server.wait() == 0
    assert server.problems() == []


@pytest.mark.parametrize("preload", ["auto", "off"])
def test_a_reload_under_way_is_ended(program: Serve, tmp_path: Path, gate: Gate, preload: str) -> None:
    site = tmp_path / "mysite.py"
    site.write_text("from raw import app\n")
    server = program("mysite:app", "-w", "2", "--preload", preload, environ=gate.environ, own_group=True)
    with in_flight(server, gate):
        site.write_text(IMPORTS_FOREVER)
        server.send(signal.SIGHUP)
        gate.wait_for()
        server.send_to_group(signal.SIGTERM)
        server.log.wait("stopping: SIGTERM")
    assert server.wait() == 0
    assert server.problems() == []


def test_an_upgrade_under_way_is_ended(program: Serve, gate: Gate) -> None:
    """Whether the next program is tried or has taken over when the signal comes."""
    server = program("raw:app", "-w", "2", environ=gate.environ, own_group=True)
    with in_flight(server, gate):
        server.send(signal.SIGUSR2)
        server.log.wait("upgrade: trying the next program")
        server.send_to_group(signal.SIGTERM)
        server.log.wait("stopping: SIGTERM")
    assert server.wait() == 0
    assert server.problems() == []


def test_a_reload_of_the_whole_group_is_one_reload(program: Serve) -> None:
    server = program("raw:app", "-w", "2", own_group=True)
    with Load(server.address, clients=4) as load:
        load.more(50)
        server.send_to_group(signal.SIGHUP)
        server.log.wait(rf"reload wanted: SIGHUP from pid {os.getpid()} ")
        server.log.wait("generation 2 serves")
        load.more(50)
    assert load.lost == []
    assert server.stop() == 0
    assert server.problems() == []
    assert "generation 3" not in server.log.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_worker_that_is_told_alone_to_leave_is_replaced_first(
    program: Serve, gate: Gate, number: signal.Signals
) -> None:
    server = program("raw:app", environ=gate.environ)
    (worker,) = server.workers()
    with in_flight(server, gate, 1):
        os.kill(worker.pid, number)
        server.log.wait(rf"worker=1 gen=1 pid={worker.pid} is recycled: {number.name} asked it to leave")
        server.until(lambda: len(server.workers()) == 2, "its successor")
    assert wait_gone(worker.pid)
    assert int(get(server.address, "/pid").text) != worker.pid
    assert server.problems() == []


def test_a_worker_that_is_about_to_end_is_not_killed(program: Serve, tmp_path: Path) -> None:
    """The interpreter puts default dispositions in place of its handlers before it takes modules apart."""
    (tmp_path / "mysite.py").write_text(
        "import os, signal\n"
        "from raw import app\n"
        "class Last:\n"
        "    def __del__(self, kill=os.kill, pid=os.getpid, number=signal.SIGTERM):\n"
        "        kill(pid(), number)\n"
        "last = Last()\n"
    )
    server = program("mysite:app", "--preload", "off")
    (worker,) = server.workers()
    os.kill(worker.pid, signal.SIGTERM)
    server.log.wait(rf"worker=1 gen=1 pid={worker.pid} has left: exit status 0")
    assert server.stop() == 0


def test_programs_of_the_application_are_ended_by_the_same_signals_as_ever(program: Serve, tmp_path: Path) -> None:
    """What is ignored or blocked here would stay so in them."""
    (tmp_path / "mysite.py").write_text(
        "import subprocess\n"
        "show = ['grep', '-E', 'Sig(Ign|Blk)', '/proc/self/status']\n"
        "at_import = subprocess.run(show, capture_output=True).stdout\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [at_import, subprocess.run(show, capture_output=True).stdout]\n"
    )
    server = program("mysite:app")
    masks = [line.split() for line in get(server.address).text.splitlines()]
    assert len(masks) == 4
    for name, mask in masks:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            assert not int(mask, 16) >> (number - 1) & 1, f"{number.name} is in {name}"


def test_timeout_ends_a_service_in_good_order(launch: Serve, gate: Gate) -> None:
    """GNU timeout sends what it gets, and what it sends by itself, to its child and then to the whole group."""
    address = own_address()
    arguments = ("--pythonpath", str(APPS), "-b", f"{address[0]}:{address[1]}", "-w", "2", "raw:app")
    command = (needs.program("timeout"), "1000", *MODULE)
    server = launch(*arguments, environ=gate.environ, command=command).wait_ready()
    server.address = address
    with in_flight(server, gate):
        server.send(signal.SIGTERM)
        server.log.wait("stopping: SIGTERM from pid")
    assert server.wait() == 0
    assert server.problems() == []
    assert "second request" not in server.log.text()
