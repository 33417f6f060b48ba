"""The control socket itself: which processes may ask, which socket is found, and that no client harms the service."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forkserver.cli import control_client
from harness import BOUND, reach
from harness.clients import get
from harness.controlled import StartControlled
from harness.processes import descriptors
from harness.program import APPS, LaunchProgram, StartProgram, clean_environment


def test_no_other_process_holds_the_control_socket(controlled: StartControlled) -> None:
    """Code of the application could answer in the master's place, or keep the address."""
    service = controlled("raw:app", "-w", "2")
    with socket.socket(socket.AF_UNIX) as client:  # a client that the next fork could take along
        client.connect(service.path)
        service.do("reload", wait=True)
        table = Path("/proc/net/unix").read_text()
        ours = set(re.findall(rf"(\d+) {re.escape(service.path)}$", table, re.MULTILINE))
        assert len(ours) >= 2, "the listener, and at least one connection"
        service.program.until(lambda: len(service.program.family()) == 3, "the end of the first template")
        for member in service.program.family():
            held = set(descriptors(member.pid).values())
            assert not {f"socket:[{inode}]" for inode in ours} & held, member


def test_silent_clients_delay_neither_signals_nor_requests(controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "2")
    silent = []
    for _ in range(100):
        silent.append(socket.socket(socket.AF_UNIX))
        silent[-1].connect(service.path)
    service.program.reload()
    assert get(service.program.address).status == 200
    for each in silent:
        each.close()
    service.do("status")


def test_nothing_that_comes_harms_the_service(controlled: StartControlled) -> None:
    """Bytes of any kind, and commands with any fields but those that end it."""
    service = controlled("raw:app", "-w", "1")
    lines = st.binary(max_size=300) | st.dictionaries(
        st.sampled_from(("command", "worker", "workers", "wait", "on")),
        st.sampled_from(
            ("status", "retire", "stacks", "reload", "scale", "config", "kill", 7, -1, None, True, [], "9")
        ),
    ).map(lambda each: json.dumps(each).encode())

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(lines)
    def one(line: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(BOUND)
            client.connect(service.path)
            try:
                client.sendall(line)
                client.shutdown(socket.SHUT_WR)
                answer = b""
                while data := client.recv(65536):
                    answer += data
            except (BrokenPipeError, ConnectionResetError):
                return  # refused before it had said all
            if answer:
                assert json.loads(answer)["ok"] in (True, False)

    one()
    assert get(service.program.address).status == 200
    assert service.program.stop() == 0
    assert "Traceback" not in service.program.log.text()


@pytest.mark.as_root
def test_the_application_of_another_user_cannot_ask(launch: LaunchProgram) -> None:
    """Whom root serves for must not get root's service into its hands."""
    knock = (
        "import os, socket\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    try:\n"
        "        socket.socket(socket.AF_UNIX).connect(environ['PATH_INFO'])\n"
        "    except OSError as error:\n"
        "        return [f'{error.strerror} {sorted(os.environ)}'.encode()]\n"
        "    return [b'connected']\n"
    )
    with reach.public_folder() as folder:
        (folder / "knock.py").write_text(knock)
        path = f"{folder}/control.sock"
        server = launch(
            "--user", "nobody", "-b", f"unix:{folder}/app.sock", "knock:app",
            cwd=folder, command=reach.command(folder), environ={"FORKSERVER_CONTROL_SOCKET": path},
        ).wait_ready()  # fmt: skip
        said = get(f"{folder}/app.sock", path).text
        assert said.startswith("Permission denied")
        assert "FORKSERVER_CONTROL_SOCKET" not in said
        assert control_client.ask(path, {"command": "status"}, BOUND)["serving"] == 1
        assert server.stop() == 0


def test_a_second_service_does_not_take_the_socket_away(controlled: StartControlled, launch: Any) -> None:
    service = controlled("raw:app", "-w", "1")
    where = ("--pythonpath", str(APPS), "-b", "unix:other.sock", "--control-socket", service.path)
    other = launch(*where, "raw:app")
    assert other.wait() == 1
    assert f"control_socket {service.path}: a server is listening there" in other.log.text()
    assert "Traceback" not in other.log.text()
    assert service.do("status")["ok"]


def test_a_runtime_directory_that_cannot_be_written_prevents_no_start(program: StartProgram) -> None:
    """The socket was not asked for by name; where it was, the start is refused."""
    server = program("raw:app", environ={"RUNTIME_DIRECTORY": "/nowhere/at/all"})
    server.log.wait("warning .*control_socket /nowhere/at/all/control.sock: .*; serving without")
    assert get(server.address).status == 200
    assert server.stop() == 0


def test_the_runtime_directory_of_systemd_has_the_socket(program: StartProgram, tmp_path: Path) -> None:
    server = program("raw:app", environ={"RUNTIME_DIRECTORY": str(tmp_path)})
    assert control_client.ask(str(tmp_path / "control.sock"), {"command": "status"}, BOUND)["serving"] == 1
    assert server.stop() == 0
    assert not (tmp_path / "control.sock").exists()


# The machine may have servers of its own.
ONLY_IN_XDG_RUNTIME_DIR = """
import os, sys
from forkserver.cli import control, control_client
from forkserver.config import runtime_folders
folders = runtime_folders.folders
runtime_folders.folders = lambda environ, uid: folders(environ, uid)[:1]
control_client.SERVICES = os.path.join(os.environ["XDG_RUNTIME_DIR"], "services")
sys.exit(control.main())
"""


def test_without_systemd_forkserverctl_finds_the_server_of_this_user(program: StartProgram, tmp_path: Path) -> None:
    """With no setting at all; after kill -9 of another too, and of two none is guessed."""
    (tmp_path / "run").mkdir(mode=0o700)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}

    def ctl_says(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-c", ONLY_IN_XDG_RUNTIME_DIR, *words]
        ran = subprocess.run(command, capture_output=True, text=True, env=clean_environment(**environ))
        return ran.returncode, ran.stdout, ran.stderr

    first = program("raw:app", environ=environ)
    status, out, _ = ctl_says("status")
    assert (status, f"master pid={first.pid}" in out) == (0, True)
    first.send(signal.SIGKILL)
    first.wait()
    folder = tmp_path / "run" / "forkserver"
    assert os.listdir(folder) == [f"{first.pid}.sock"]
    second = program("raw:app", environ=environ)
    assert os.listdir(folder) == [f"{second.pid}.sock"]
    assert ctl_says("reload", "--wait")[0] == 0
    third = program("raw:app", environ=environ)
    status, _, err = ctl_says("status")
    assert status == 2
    for server in (second, third):
        path = folder / f"{server.pid}.sock"
        assert f"pid {server.pid}  raw:app  http://127.0.0.1:{server.address[1]}  --socket {path}" in err
    assert second.stop() == 0
    assert ctl_says("stop")[0] == 0
    assert third.wait() == 0
    assert ctl_says("status")[0] == 3
    assert os.listdir(folder) == []
