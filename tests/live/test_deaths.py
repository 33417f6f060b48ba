"""kill -9: of a worker, of a template, of the master. Nobody can prepare for it, so everybody else must."""

from __future__ import annotations

import os
import re
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.clients import get
from harness.gate import Gate
from harness.processes import descriptors, wait_gone
from harness.program import APPS, LaunchProgram, Program, StartProgram, own_address

RAW = ("--pythonpath", str(APPS))
VERSION = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"{}"]
"""


LEAVES_AT_SIGPIPE = """
import os
import signal

signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"here"] if environ["PATH_INFO"] == "/other" else stream(environ["wsgi.errors"])


def stream(errors):
    with open(os.environ["GATE_ARRIVALS"], "wb", buffering=0) as arrivals:
        arrivals.write(b".")
    with open(os.environ["GATE_PASSES"], "rb", buffering=0) as passes:
        passes.read(1)
    try:
        while True:
            yield b"block"
    finally:
        print("the stream is over", file=errors)
"""

LEAVES_IN_PARTS = """
import os
import signal
import threading


def end(*_):
    raise SystemExit("too late")


signal.signal(signal.SIGALRM, end)


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/exec":
        os.execvp("sleep", ["sleep", "3600"])
    if environ["PATH_INFO"] == "/alarm":
        threading.Thread(target=threading.Event().wait).start()
        signal.setitimer(signal.ITIMER_REAL, 0.01)
    return [str(os.getpid()).encode()]
"""


BREAKS_OFF = """
import os
import signal

from forkserver import WSGIRequestHandler


class Blocking(WSGIRequestHandler):
    def handle(self):
        super().handle()


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"a part of the rows"
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("flags", [[], ["--handler-class", "breaks_off:Blocking"]], ids=["event loop", "blocking"])
def test_an_answer_that_a_kill_breaks_off_does_not_pass_for_the_whole(
    program: StartProgram, tmp_path: Path, flags: list[str]
) -> None:
    """nginx asks in HTTP/1.0 by default, takes the connection's end for the body's, and may cache the part."""
    (tmp_path / "breaks_off.py").write_text(BREAKS_OFF)
    server = program("breaks_off:app", "--pythonpath", str(tmp_path), *flags)
    with server.connect() as wire, wire.socket.makefile("rb") as stream:
        wire.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            stream.read()


def test_a_killed_worker_is_replaced_at_once(program: StartProgram) -> None:
    server = program("raw:app", "-w", "2")
    victim, other = server.workers()
    os.kill(victim.pid, signal.SIGKILL)
    server.until(
        lambda: len({member.pid for member in server.workers()} - {victim.pid, other.pid}) == 1, "a new worker"
    )
    assert other in server.workers()
    server.log.wait(rf"pid=?\s?{victim.pid}\b.*SIGKILL|SIGKILL.*\b{victim.pid}\b")
    with server.connect() as wire:
        assert wire.get().status == 200
    assert server.stop() == 0


@pytest.mark.parametrize("how", ["exec", "alarm"])
def test_a_worker_that_serves_no_more_is_replaced_although_its_process_lives(
    program: StartProgram, tmp_path: Path, how: str
) -> None:
    """It has become another program; or its main thread has ended, and its exit waits for the application's threads."""
    (tmp_path / "mysite.py").write_text(LEAVES_IN_PARTS)
    server = program("mysite:app", "-w", "1", "--timeout", "0", "--preload", "on")
    [victim] = server.workers()
    with server.connect() as wire:
        wire.ask(f"/{how}")
        server.log.wait(rf"pid={victim.pid} ended: killed by SIGKILL, sent by the master: it had closed its channel")
    assert get(server.address).text != str(victim.pid)
    assert server.stop() == 0


def test_an_alarm_that_a_request_has_left_behind_ends_no_worker(program: StartProgram, tmp_path: Path) -> None:
    """Its handler raises while the worker waits for the next request, for which other clients are connected too."""
    (tmp_path / "mysite.py").write_text(LEAVES_IN_PARTS.replace("SystemExit", "TimeoutError"))
    server = program("mysite:app", "-w", "1")
    with server.connect() as wire:
        pid = int(wire.get("/").text)
        server.until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S", "sleep")
        os.kill(pid, signal.SIGALRM)
        server.log.wait(r"a signal handler of the application's raised while nothing was called, as of an alarm that")
        server.log.wait("TimeoutError: too late")
        assert int(wire.get("/").text) == pid
    assert server.stop() == 0


def test_a_client_that_goes_costs_no_worker_whatever_the_application_does_with_sigpipe(
    program: StartProgram, tmp_path: Path, gate: Gate
) -> None:
    """Each client that closes before its answer would end a worker, with the requests of all others."""
    (tmp_path / "mysite.py").write_text(LEAVES_AT_SIGPIPE)
    server = program("mysite:app", "-w", "1", environ=gate.environ)
    with server.connect() as wire:
        wire.ask("/")
        gate.wait_for()
    gate.open()
    server.log.wait("the stream is over")
    assert get(server.address, "/other").text == "here"
    assert server.stop() == 0
    assert server.problems() == []


def test_a_worker_killed_in_a_call_breaks_that_call_only(program: StartProgram, gate: Gate) -> None:
    server = program("raw:app", "-w", "2", environ=gate.environ)
    with ExitStack() as stack:
        held = stack.enter_context(server.connect())
        held.ask("/gate")
        gate.wait_for()
        wire = stack.enter_context(server.connect())  # while that one is busy, so it comes to the other
        first = int(wire.get("/pid").text)
        victim = next(member.pid for member in server.workers() if member.pid != first)
        os.kill(victim, signal.SIGKILL)
        assert held.ended()
        assert wire.get("/pid").text == str(first)


def test_the_log_names_the_request_that_a_kill_has_broken(program: StartProgram, gate: Gate) -> None:
    """Who, by whom, in the middle of what, and what happens next: in one line, at three in the morning."""
    server = program("raw:app", "-w", "2", "--threads", "2", environ=gate.environ)
    with ExitStack() as stack:
        idle = stack.enter_context(server.connect())
        victim = int(idle.get("/pid").text)
        for number in range(6):  # some of them in the same process, where both threads may be in a call
            stack.enter_context(server.connect()).ask(f"/gate/{number}?secret=1")
            if number < 4:
                gate.wait_for()
        os.kill(victim, signal.SIGKILL)
        death = server.log.wait(rf"worker=\d gen=1 pid={victim} ended").text
        gate.open(6)
    assert "ended: killed by SIGKILL, sent by another process; it was serving GET /gate/" in death
    assert death.count("GET /gate/") == 2, "each of its threads was in a call"
    call = r"GET /gate/\d \(\d+\.\d s, request [0-9a-f-]{36}\)"
    assert re.search(f"{call}, {call}; held \\d+ connections", death)
    assert death.endswith("it is replaced")
    assert "secret" not in death


def test_an_application_that_ends_its_process_is_told_so(program: StartProgram) -> None:
    server = program("faults:app", "-w", "2")
    with server.connect() as wire:
        wire.ask("/crash")
        assert wire.ended()
    death = server.log.wait("killed by SIGABRT, a crash").text
    assert "it was serving GET /crash" in death


def test_workers_serve_on_when_their_template_is_killed(program: StartProgram) -> None:
    """They are the master's own children; a new template is a new generation, because the files may have changed."""
    server = program("raw:app", "-w", "2")
    before = server.workers()
    template = server.template()
    with server.connect() as wire:
        first = wire.get("/pid").text
        os.kill(template.pid, signal.SIGKILL)
        assert wait_gone(template.pid)
        assert wire.get("/pid").text in {first, *(str(member.pid) for member in server.workers())}
    with server.connect() as wire:
        assert wire.get().status == 200
    server.log.wait("template")
    assert before or server.workers()
    assert server.process.poll() is None


def served_after_deaths(server: Program, template: int, generation: int, said: str) -> str:
    """What the only worker answers that ``generation``, in the place of the ``template`` that was killed, has begun."""
    os.kill(template, signal.SIGKILL)
    server.log.wait(said)
    server.until(lambda: [each.generation for each in server.family()] == [generation, 1], "another template")
    (worker,) = server.workers()
    os.kill(worker.pid, signal.SIGKILL)
    server.log.wait(f"worker=1 gen={generation} pid=.* is ready")
    with server.connect() as wire:
        return wire.get().text


def test_a_crash_deploys_nothing(program: StartProgram, tmp_path: Path) -> None:
    """A link was switched, and the reload that is to take the new release has not come yet."""
    link = tmp_path / "current"
    for release in ("r1", "r2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "mysite.py").write_text(VERSION.format(release))
    link.symlink_to("r1")
    server = program("mysite:app", "--chdir", str(link))
    link.unlink()
    link.symlink_to("r2")
    said = "generation 2 is loaded from .*r1, as what serves: .*current leads to .*r2 by now"
    assert served_after_deaths(server, server.template().pid, 2, said) == "r1"
    server.reload()
    with server.connect() as wire:
        assert wire.get().text == "r2"
    assert server.stop() == 0


def test_a_crash_after_a_refused_reload_deploys_neither_code_nor_variables(
    program: StartProgram, tmp_path: Path
) -> None:
    """The reload has entered the release that does not load; what serves belongs to the one before, as do its logs."""
    link = tmp_path / "current"
    code = "import os\n" + VERSION.replace('b"{}"', 'os.environ["RELEASE"].encode()')
    for release in ("r1", "r2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "mysite.py").write_text(code if release == "r1" else "raise RuntimeError('broken')\n")
        (tmp_path / release / ".env").write_text(f"RELEASE={release}\n")
    link.symlink_to("r1")
    files = ("--env-file", ".env", "--access-log", "access.log")
    server = program("mysite:app", *files, cwd=link, environ={"PWD": str(link)})
    link.unlink()
    link.symlink_to("r2")
    server.send(signal.SIGHUP)
    server.log.wait("reload failed: .*RuntimeError: broken; still serving generation 1")
    (tmp_path / "r1" / "access.log").rename(tmp_path / "r1" / "access.log.1")
    server.send(signal.SIGUSR1)
    server.log.wait("log files are opened again")
    assert (tmp_path / "r1" / "access.log").exists()
    (template,) = (each for each in server.family() if each.role == "template" and each.generation == 1)
    assert served_after_deaths(server, template.pid, 3, "generation 3 is loaded from .*r1, as what serves") == "r1"
    assert server.stop() == 0


def test_a_worker_killed_after_its_template_is_replaced_too(program: StartProgram) -> None:
    server = program("raw:app", "-w", "2")
    template = server.template()
    os.kill(template.pid, signal.SIGKILL)
    assert wait_gone(template.pid)
    victim = server.workers()[0]
    os.kill(victim.pid, signal.SIGKILL)
    server.until(
        lambda: len(server.workers()) == 2 and victim not in server.workers(), "two workers after the template died"
    )
    with server.connect() as wire:
        assert wire.get().status == 200


@pytest.fixture
def orphaned(launch: LaunchProgram, gate: Gate):
    """A program on a listener of its own whose master was killed while a request was in a worker."""
    address = own_address()
    server = launch(
        *RAW, "-b", f"{address[0]}:{address[1]}", "-w", "2", "--graceful-timeout", "5", "raw:app", environ=gate.environ
    )
    server.address = address
    server.wait_ready()
    family = server.family()
    held = server.connect()
    held.ask("/gate")
    gate.wait_for()
    server.send(signal.SIGKILL)
    server.wait()
    yield server, family, held, gate
    held.close()


def test_when_the_master_is_killed_a_new_one_can_bind_at_once(launch: LaunchProgram) -> None:
    """End-of-file on its channel tells each worker; it closes its listeners first."""
    host, port = own_address()
    first = launch(*RAW, "-b", f"{host}:{port}", "-w", "4", "raw:app")
    first.address = host, port
    first.wait_ready()
    family = first.family()
    with first.connect() as parked:
        assert parked.get().status == 200
        first.send(signal.SIGKILL)
        first.wait()
        for _ in [member for member in family if member.role == "worker"]:
            first.log.wait("the master is gone")
        second = _bound_by_another(launch, host, port)
        assert {get((host, port), "/pid").text} <= {str(member.pid) for member in second.workers()}
    for member in family:
        assert wait_gone(member.pid)
    assert second.stop() == 0


def _bound_by_another(launch, host: str, port: int):
    server = launch(*RAW, "-b", f"{host}:{port}", "raw:app")
    server.address = host, port
    return server.wait_ready()


def test_a_call_that_outlives_its_master_is_answered(orphaned, launch: LaunchProgram) -> None:
    server, family, held, gate = orphaned
    gate.open()
    assert held.answer().status == 200
    for member in family:
        assert wait_gone(member.pid)
    another = _bound_by_another(launch, *server.address)
    assert another.stop() == 0


def test_when_the_master_is_killed_every_child_is_gone_within_the_grace(orphaned) -> None:
    """The request in hand is never let through here: the template ends the worker that holds it."""
    server, family, held, _ = orphaned
    for member in family:
        assert wait_gone(member.pid), f"{member} lives longer than any grace"
    with pytest.raises(ConnectionRefusedError), socket.create_connection(server.address, timeout=5):
        pass
    assert held.ended()


def test_no_worker_holds_the_channel_of_another(program: StartProgram) -> None:
    """Workers that are ordered together are forked together; the end of a channel tells the master of a death."""
    server = program("raw:app", "-w", "6")
    sockets = {worker.pid: _sockets(worker.pid) for worker in server.workers()}
    own = [
        mine - set().union(*(others for pid, others in sockets.items() if pid != worker))
        for worker, mine in sockets.items()
    ]
    assert [len(each) for each in own] == [1] * 6
    assert server.stop() == 0


def _sockets(pid: int) -> set[str]:
    """The inodes of its sockets."""
    return {each for each in descriptors(pid).values() if each.startswith("socket:")}
