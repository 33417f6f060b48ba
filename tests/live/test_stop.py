"""TERM, INT and QUIT: what was accepted or queued is answered, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import needs
from harness.clients import Wire, get
from harness.gate import Gate
from harness.load import Load
from harness.processes import wait_gone
from harness.program import APPS, MODULE, LaunchProgram, StartProgram, own_address

RAW = ("--pythonpath", str(APPS))


@pytest.fixture
def own(launch: LaunchProgram):
    """The program on a TCP address that it binds itself; a given listener's queue belongs to the successor."""

    def start(*arguments: str, **more):
        address = own_address()
        server = launch(*RAW, "-b", f"{address[0]}:{address[1]}", *arguments, "raw:app", **more)
        server.address = address
        return server.wait_ready()

    return start


def test_term_answers_what_is_in_hand_and_what_is_queued(own, gate: Gate) -> None:
    """Closing a TCP listener resets its queue, so the queue is drained before."""
    server = own("-w", "2", environ=gate.environ)
    with ExitStack() as stack:
        wires = []
        for number in range(22):
            wires.append(stack.enter_context(Wire(server.address)))
            wires[-1].ask("/gate" if number < 2 else "/pid")
            if number < 2:
                gate.wait_for()  # from the second on both workers are in a call: all others wait in the kernel's queue
        server.send(signal.SIGTERM)
        gate.open(2)
        assert {wire.answer().status for wire in wires} == {200}
    assert server.wait() == 0


@pytest.fixture(params=["with", pytest.param("without", marks=pytest.mark.as_root)])
def may_filter(request: pytest.FixtureRequest) -> dict[str, tuple[str, ...]]:
    """With the rights of whoever runs the tests; and without the one that most containers do not give even to root."""
    if request.param == "with":
        return {}
    return {"command": (needs.program("setpriv"), "--bounding-set=-net_admin", "--inh-caps=-net_admin", *MODULE)}


def test_term_under_keep_alive_load_cuts_no_answer_short(own, may_filter: dict[str, tuple[str, ...]]) -> None:
    """Clients that ask without pause get `Connection: close` on an answer; only then may a connect be refused."""
    server = own("-w", "4", **may_filter)
    children = [member.pid for member in server.family()]
    with Load(server.address, clients=16) as load:
        load.more(1000)
        server.send(signal.SIGTERM)
        assert server.wait() == 0
    assert [loss for loss in load.lost if not loss.startswith("connecting: ConnectionRefusedError")] == []
    assert all(wait_gone(pid, 0) for pid in children), "the master was the last to leave"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_an_idle_program_leaves_with_status_0(program: StartProgram, number: signal.Signals) -> None:
    server = program("raw:app", "-w", "2")
    with server.connect() as parked:
        parked.get()
        assert server.stop(number) == 0
        assert parked.ended()
    assert "Traceback" not in server.log.text()


def test_a_second_term_is_quick(program: StartProgram, gate: Gate) -> None:
    server = program("raw:app", environ=gate.environ)
    with server.connect() as held:
        held.ask("/gate")
        gate.wait_for()
        since = server.log.mark()
        server.send(signal.SIGTERM)
        server.log.wait("stop", since)
        while not server.log.find("second request"):  # at first they are taken for one, see test_group_signals.py
            server.send(signal.SIGTERM)
        assert server.wait(25) == 0, "well before graceful_timeout would end it"
        assert held.ended()


def test_graceful_timeout_bounds_the_stop(program: StartProgram, gate: Gate) -> None:
    """A call that does not end cannot hold the stop for ever; the log says who was killed, and for what."""
    server = program("raw:app", "--graceful-timeout", "1", environ=gate.environ)
    (worker,) = server.workers()
    with server.connect() as held:
        held.ask("/gate")
        gate.wait_for()
        assert server.stop() == 0
        assert held.ended()
    server.log.wait(rf"warning worker=1 gen=1 pid={worker.pid} graceful_timeout is over; .*GET /gate from 127")
    server.log.wait(rf"warning master .* pid={worker.pid} ended: killed by SIGKILL, .*graceful_timeout")
    assert server.problems() == [], "an operator has set that limit"


def test_threads_of_the_application_that_hold_the_exit_are_named(program: StartProgram, tmp_path: Path) -> None:
    """The interpreter waits for them at its exit, so nothing else tells what a worker waits for."""
    (tmp_path / "mysite.py").write_text(
        "import threading\n"
        "from raw import app as raw\n"
        "def app(environ, start_response):\n"
        "    threading.Thread(target=threading.Event().wait, name='mail\\nqueue').start()\n"
        "    return raw(environ, start_response)\n"
    )
    server = program("mysite:app", "--graceful-timeout", "1")
    assert get(server.address).status == 200
    assert server.stop() == 0
    held = r"'mail\\nqueue' \(threading.Event.wait\)"
    server.log.wait(rf"warning worker=1 .*the exit waits for the application's threads: {held}; the worker is")
    assert server.problems() == []


def test_the_default_timeout_of_the_applications_sockets_does_not_hold_up_the_stop(
    program: StartProgram, tmp_path: Path
) -> None:
    """Workers share sockets that are made after the import; while they waited on them, they would be killed."""
    lines = ["import socket", "socket.setdefaulttimeout(3600)", "from wsgiref.simple_server import demo_app as app"]
    (tmp_path / "mysite.py").write_text("\n".join(lines))
    server = program("mysite:app", "-w", "2")
    assert get(server.address).status == 200
    assert server.stop() == 0
    assert "killed" not in server.log.text()


def test_systemd_is_told_that_it_stops(program: StartProgram) -> None:
    server = program("raw:app")
    assert server.stop() == 0
    server.said.wait(r"(?m)^STOPPING=1$")


def test_an_own_unix_socket_and_pid_file_are_there_and_then_removed(launch: LaunchProgram, tmp_path: Path) -> None:
    path, pid_file = tmp_path / "app.sock", tmp_path / "app.pid"
    server = launch(*RAW, "-b", f"unix:{path}", "--pidfile", str(pid_file), "raw:app").wait_ready()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert int(pid_file.read_text()) == server.pid
    assert get(str(path)).status == 200
    assert server.stop() == 0
    assert not path.exists()
    assert not pid_file.exists()


def test_a_given_unix_socket_is_never_unlinked(program: StartProgram, tmp_path: Path) -> None:
    """It is systemd's; unlinked, the next start would have nothing to be reached by."""
    path = tmp_path / "given.sock"
    server = program("raw:app", listen=str(path))
    assert get(str(path)).status == 200
    assert server.stop() == 0
    assert path.exists()


def test_a_stale_unix_socket_is_replaced_and_a_live_one_refused(launch: LaunchProgram, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    first = launch(*RAW, "-b", f"unix:{path}", "raw:app").wait_ready()
    second = launch(*RAW, "-b", f"unix:{path}", "raw:app")
    assert second.wait() == 1
    assert get(str(path)).status == 200
    below = [member.pid for member in first.family()]
    first.stop(signal.SIGKILL)
    for pid in below:
        assert wait_gone(pid)
    assert path.exists(), "nobody was left to remove it"
    third = launch(*RAW, "-b", f"unix:{path}", "raw:app").wait_ready()
    assert get(str(path)).status == 200
    assert third.stop() == 0


def test_ttin_and_ttou_change_the_number_of_workers(program: StartProgram) -> None:
    server = program("raw:app", "-w", "1")
    server.send(signal.SIGTTIN)
    server.until(lambda: len(server.workers()) == 2, "a second worker")
    before = server.workers()
    server.send(signal.SIGTTOU)
    server.until(lambda: len(server.workers()) == 1, "one worker fewer")
    assert server.workers()[0] in before


def test_ttin_beyond_max_workers_is_refused_with_the_figures(program: StartProgram) -> None:
    """Whoever may signal the master could otherwise fill the machine with workers."""
    server = program("raw:app", "-w", "1", "--max-workers", "2")
    server.send(signal.SIGTTIN)
    server.until(lambda: len(server.workers()) == 2, "a second worker")
    server.send(signal.SIGTTIN)
    server.log.wait(
        "warning .*workers wanted: still 2, although SIGTTIN from pid .* asks for one more: max_workers is 2;"
    )
    assert len(server.workers()) == 2
    assert server.stop() == 0


def test_several_addresses_are_served_by_one_program(launch: LaunchProgram, tmp_path: Path) -> None:
    path, address = tmp_path / "app.sock", own_address()
    binds = ("-b", f"unix:{path}", "-b", f"{address[0]}:{address[1]}")
    server = launch(*RAW, *binds, "-w", "2", "raw:app").wait_ready()
    assert get(str(path)).status == get(address).status == 200
    assert server.stop() == 0


def test_no_descriptor_of_ours_reaches_the_applications_own_programs(program: StartProgram, tmp_path: Path) -> None:
    """A child of the application that keeps a listener open would keep the address in use."""
    (tmp_path / "spawner.py").write_text(
        "import subprocess\n"
        "def app(environ, start_response):\n"
        "    listed = subprocess.run(['ls', '-l', '/proc/self/fd'], capture_output=True, close_fds=False).stdout\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(listed)))])\n"
        "    return [listed]\n"
    )
    server = program("spawner:app")
    listing = get(server.address).text
    assert "socket:" not in listing, listing
    assert "memfd:" not in listing, listing
    assert "eventpoll" not in listing, listing


def test_what_is_handed_on_as_the_last_sibling_leaves_is_taken_back(program: StartProgram, gate: Gate) -> None:
    """A worker that retires for itself hands on, and hears too late of the stop for which its siblings have left.

    It is stopped while it answers: as it goes on, the end of its call and the order come together.
    """
    server = program("raw:app", "-w", "2", environ=gate.environ)
    first, second = sorted(server.workers(), key=lambda each: each.slot or 0)
    with ExitStack() as stack:
        held, parked = (_served_by(stack, server, second.pid) for _ in range(2))
        held.ask("/gate")
        gate.wait_for()
        server.send(signal.SIGTTOU)
        while parked.get("/pid").text != str(first.pid):  # until the second has heard that it is to leave
            continue
        parked.close()
        os.kill(second.pid, signal.SIGSTOP)
        server.send(signal.SIGTERM)
        assert wait_gone(first.pid)
        gate.open()
        os.kill(second.pid, signal.SIGCONT)
        if not held.answer().last:
            assert held.get().status == 200
    assert server.wait() == 0


def _served_by(stack: ExitStack, server, pid: int) -> Wire:
    """A connection that the worker ``pid`` has."""
    while True:
        wire = stack.enter_context(server.connect())
        if wire.get("/pid").text == str(pid):
            return wire
