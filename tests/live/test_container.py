"""deploy/Dockerfile, carried out step by step without an engine, and forkserver as process 1."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness import needs, processes, wheels
from harness.gate import Gate
from harness.image import Image
from harness.journal import Journal, from_lines
from harness.load import Load
from harness.program import APPS, MODULE, LaunchProgram, Program

pytestmark = pytest.mark.as_root
DOCKERFILE = Path(__file__).parents[2] / "deploy" / "Dockerfile"
PROCESS_ONE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

ORPHANS = """
import os
from raw import app as raw, stand_at_gate

def app(environ, start_response):
    if environ["PATH_INFO"] != "/orphan":
        return raw(environ, start_response)
    if not os.fork():
        if not os.fork():
            stand_at_gate()
        os._exit(0)
    os.wait()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return [b""]
"""


# As process 1


def inner(pid: int) -> int:
    """The process that ``unshare`` runs, and that is 1 to itself."""
    (child,) = psutil.Process(pid).children()
    status = Path(f"/proc/{child.pid}/status").read_text()
    assert re.search(r"(?m)^NSpid:.*\t1$", status), status
    return child.pid


@pytest.fixture
def first(launch: LaunchProgram, gate: Gate, tmp_path: Path) -> Iterator[Program]:
    """forkserver as the first process of a PID namespace, where the kernel gives a signal no default."""
    needs.namespaces()
    (tmp_path / "orphans.py").write_text(ORPHANS)
    address = str(tmp_path / "site.sock")
    arguments = ("orphans:app", "-w", "2", "-b", f"unix:{address}", "--pythonpath", str(APPS))
    server = launch(*arguments, command=(*PROCESS_ONE, *MODULE), environ=gate.environ, address=address)
    yield server.wait_ready()
    if server.process.poll() is None:
        os.kill(inner(server.pid), signal.SIGQUIT)  # what ``unshare`` gets it keeps to itself


def test_process_one_stops_at_term_with_status_0(first: Program) -> None:
    """A container's stop is a TERM to process 1; what that does not hear is killed ten seconds later."""
    os.kill(inner(first.pid), signal.SIGTERM)
    assert first.wait() == 0


def test_process_one_reloads_at_hup_and_loses_nothing(first: Program) -> None:
    with Load(first.address, clients=4) as load:
        load.more(50)
        os.kill(inner(first.pid), signal.SIGHUP)
        first.log.wait("generation 2 serves")
        load.more(50)
    assert load.lost == []


def test_process_one_reaps_orphans(first: Program, gate: Gate) -> None:
    """Everything that loses its parent becomes process 1's; unreaped it would fill the table of processes."""
    one = inner(first.pid)
    known = {child.pid for child in psutil.Process(one).children()}
    with first.connect() as wire:
        assert wire.get("/orphan").status == 200
    gate.wait_for()
    (orphan,) = {child.pid for child in psutil.Process(one).children()} - known
    gate.open()
    assert processes.wait_gone(orphan)
    os.kill(one, signal.SIGHUP)  # something to wait for that the loop does after it has reaped
    first.log.wait("generation 2 serves")
    assert not psutil.pid_exists(orphan)


# The image


class Container:
    """The image's own command in a network of its own; ``log`` is what it writes to standard error."""

    def __init__(self, folder: Path) -> None:
        context, packed = folder / "context", folder / "wheels"
        context.mkdir()
        packed.mkdir()
        (context / "requirements.txt").write_text("forkserver-wsgi\n")
        (context / "myapp.py").write_text((APPS / "raw.py").read_text())
        wheels.pack("forkserver-wsgi", context)
        wheels.pack("setproctitle", packed)
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
        self.image = Image(DOCKERFILE.read_text(), context, folder / "roots", offline, {"/wheels": packed})
        script = f"{self.image.build}ip link set lo up\n{self.image.start()}"
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", script], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert self.process.stderr
        self.log: Journal = from_lines("the container's log", os.dup(self.process.stderr.fileno()))
        self.process.stderr.close()

    @property
    def pid(self) -> int:
        return inner(self.process.pid)

    def execute(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """As ``docker exec``: in the container's namespaces, root, folder and account."""
        line = self.image.last.run(command)
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid"]
        return subprocess.run([*enter, "sh", "-c", line], capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        if self.process.poll() is None:
            processes.end({child.pid for child in psutil.Process(self.process.pid).children()})
            self.process.wait()
        self.log.join()


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    needs.program("ip")
    needs.namespaces()
    made = Container(tmp_path)
    yield made
    made.close()


def test_the_image_is_built_serves_is_healthy_and_stops(container: Container) -> None:
    """One test: the build takes seconds. FROM's image is the machine's own interpreter here."""
    container.log.wait("serving myapp:app at http://0.0.0.0:8000")
    stage = container.image.last
    assert {psutil.Process(container.pid).uids().effective, psutil.Process(container.pid).gids().effective} == {10001}
    assert psutil.Process(container.pid).cmdline()[0] == "forkserver: master [myapp:app]"
    healthy = container.execute(stage.check)
    assert healthy.returncode == 0, healthy.stderr
    status = container.execute(["/venv/bin/forkserverctl", "status"])
    assert status.returncode == 0, status.stderr
    assert "myapp:app" in status.stdout
    changed = container.execute(["touch", "/srv/app/myapp.py"])
    assert "Permission denied" in changed.stderr
    os.kill(container.pid, signal.Signals[stage.stop_signal])
    assert container.process.wait() == 0, container.log.text()
