"""The control socket of a running service: commands do what they say, and nobody who asks harms it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forkserver.cli import control
from harness import BOUND, reach
from harness.clients import get
from harness.gate import Gate
from harness.load import Load
from harness.processes import wait_gone
from harness.program import APPS, LaunchProgram, Program, StartProgram, clean_environment

SOURCE = """
import os
{before}

def app(environ, start_response):
    body = b"{version}" if environ["PATH_INFO"] != "/healthz" else b"well"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


class Service:
    """A program with its control socket."""

    def __init__(self, server: Program, path: str) -> None:
        self.program, self.path = server, path

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        return control.ask(self.path, {"command": command, **fields}, BOUND)

    def do(self, command: str, **fields: Any) -> dict[str, Any]:
        reply = self.ask(command, **fields)
        assert reply["ok"], reply
        return reply

    def refused(self, command: str, **fields: Any) -> str:
        reply = self.ask(command, **fields)
        assert not reply["ok"], reply
        return str(reply["error"])

    def workers(self) -> list[dict[str, Any]]:
        return list(self.do("status")["workers"])


@pytest.fixture
def start(program: StartProgram, tmp_path: Path) -> Callable[..., Service]:
    def started(*arguments: str, **more: Any) -> Service:
        path = str(tmp_path / "control.sock")
        return Service(program(*arguments, "--control-socket", path, **more), path)

    return started


def release(folder: Path, version: int, before: str = "") -> None:
    (folder / "release.py").write_text(SOURCE.format(version=version, before=before))


def standing_at(gate: Gate) -> str:
    """Code that comes no further than ``gate``."""
    return f"open({str(gate.arrivals)!r}, 'w').write('.'); open({str(gate.passes)!r}).read(1)"


def test_status_tells_who_serves_and_what_they_are_busy_with(start: Callable[..., Service], gate: Any) -> None:
    service = start("raw:app", "-w", "2", environ=gate.environ)
    with service.program.connect() as wire:
        wire.ask("/gate?secret=1")
        gate.wait_for(1)
        status = service.do("status")
        gate.open(1)
        assert wire.answer().status == 200
    assert (status["state"], status["generation"], status["serving"], status["wanted"]) == ("serving", 1, 2, 2)
    assert status["master"]["pid"] == service.program.pid
    members = {member.pid: member.slot for member in service.program.workers()}
    assert {each["pid"]: each["worker"] for each in status["workers"]} == members
    (busy,) = [call for each in status["workers"] for call in each["busy"]]
    assert busy["request"] == "GET /gate", "a query may hold secrets"
    assert 0 <= busy["seconds"] < BOUND
    assert all(each["memory"] > 1 << 20 for each in [*status["workers"], status["master"]])
    with service.program.connect() as wire:
        wire.get("/pid")
        # A worker counts a request once its answer is sent, which the client may read first.
        service.program.until(lambda: service.do("status")["requests"] == 2, "the second request's count")


def test_a_reload_that_is_waited_for_answers_when_the_new_code_serves(
    start: Callable[..., Service], tmp_path: Path
) -> None:
    release(tmp_path, 1)
    service = start("release:app", "-w", "2")
    for version in (2, 3):
        release(tmp_path, version)
        assert service.do("reload", wait=True)["generation"] == version
        assert get(service.program.address).text == str(version)


def test_a_broken_reload_fails_with_its_traceback(start: Callable[..., Service], tmp_path: Path) -> None:
    """`systemctl reload` has to fail, and say why, where the person is who has broken it."""
    release(tmp_path, 1)
    service = start("release:app", "-w", "2")
    release(tmp_path, 2, "raise RuntimeError('on purpose')")
    command = [sys.executable, "-m", "forkserver.cli.control", "--socket", service.path, "reload", "--wait"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith("forkserverctl: reload failed: ")
    assert "still serving generation 1" in ran.stderr
    assert "RuntimeError: on purpose" in ran.stderr
    assert "on purpose" in service.do("status")["last_failure"]
    (tmp_path / "forkserver.toml").write_text("workers = none\n")
    assert "not TOML" in service.refused("reload", wait=True)
    (tmp_path / "forkserver.toml").unlink()
    release(tmp_path, 3)
    service.do("reload", wait=True)
    assert service.do("status")["last_failure"] == ""


def test_who_waits_for_a_reload_holds_nobody_up(start: Callable[..., Service], gate: Gate, tmp_path: Path) -> None:
    """Not other commands, not signals, not those who wait for the next reload."""
    release(tmp_path, 1)
    service = start("release:app", "-w", "2")
    release(tmp_path, 2, standing_at(gate))
    replies: list[dict[str, Any]] = []
    waiting = [threading.Thread(target=lambda: replies.append(service.ask("reload", wait=True))) for _ in range(3)]
    waiting[0].start()
    gate.wait_for()
    for each in waiting[1:]:
        each.start()
    service.program.log.until(lambda: service.program.log.text().count("reload wait=True") == 3, "three commands")
    assert service.do("status")["state"] == "reloading"
    assert replies == []
    release(tmp_path, 3)
    gate.open()
    for each in waiting:
        each.join(BOUND)
    assert sorted(reply["generation"] for reply in replies) == [2, 3, 3]


def test_the_number_of_workers_is_set_and_bounded(start: Callable[..., Service]) -> None:
    service = start("raw:app", "-w", "1")
    service.do("scale", workers=3)
    service.program.until(lambda: len(service.program.workers()) == 3, "three workers")
    assert "workers 4000: more than max_workers, " in service.refused("scale", workers=4000)
    service.do("scale", workers=1)
    service.program.until(lambda: len(service.program.workers()) == 1, "one worker")
    service.program.until(lambda: service.do("status")["ends"].get("fewer workers") == 2, "two ends")


def test_a_retired_worker_is_replaced_before_it_leaves(start: Callable[..., Service]) -> None:
    service = start("raw:app", "-w", "2")
    before = service.workers()[0]
    with Load(service.program.address, clients=8) as load:
        load.more(100)
        service.do("retire", worker=1)
        assert wait_gone(before["pid"])
        load.more(100)
    assert load.lost == []
    service.program.until(lambda: service.do("status")["ends"] == {"recycled": 1}, "the end of one")


def test_a_killed_worker_is_named_and_replaced(start: Callable[..., Service]) -> None:
    service = start("raw:app", "-w", "2")
    victim = service.workers()[1]
    service.do("kill", worker=f"pid={victim['pid']}")
    service.program.log.wait(rf"pid={victim['pid']} ended: killed by SIGKILL, sent by the master: forkserverctl kill")
    service.program.until(lambda: len(service.workers()) == 2, "its successor")
    assert "no such worker; there are worker=" in service.refused("kill", worker="pid=1")
    assert "no such worker" in service.refused("kill", worker=3)


def test_the_stacks_of_a_worker_come_back_to_who_asks(start: Callable[..., Service], gate: Any) -> None:
    service = start("raw:app", "-w", "2", environ=gate.environ)
    with service.program.connect() as wire:
        wire.ask("/gate")
        gate.wait_for(1)
        (busy,) = [each["worker"] for each in service.workers() if each["busy"]]
        stacks = service.do("stacks", worker=busy)["stacks"]
        gate.open(1)
        assert wire.answer().status == 200
    assert "thread MainThread" in stacks
    assert "in _gate" in stacks


def test_a_stopped_worker_is_shown_as_stopped_where_calls_have_no_limit(start: Callable[..., Service]) -> None:
    service = start("raw:app", "-w", "2", "--timeout", "0")
    victim = service.program.workers()[0].pid
    os.kill(victim, signal.SIGSTOP)
    service.program.log.wait("was stopped by a signal")
    assert {each["pid"]: each["state"] for each in service.workers()}[victim] == "stopped"
    os.kill(victim, signal.SIGCONT)
    service.program.until(lambda: {each["state"] for each in service.workers()} == {"serving"}, "the worker's return")


def test_a_stopped_workers_stacks_are_not_waited_for_long(start: Callable[..., Service]) -> None:
    service = start("raw:app", "-w", "2")
    victim = service.workers()[0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    service.program.log.wait("was stopped by a signal")
    assert "stopped" in [each["state"] for each in service.workers()]
    assert "does not answer" in service.refused("stacks", worker=f"pid={victim}")
    os.kill(victim, signal.SIGCONT)


def test_maintenance_answers_503_through_reloads_and_respawns(start: Callable[..., Service], tmp_path: Path) -> None:
    """All but the health path: a balancer that saw 503 there would take the whole machine out."""
    release(tmp_path, 1)
    service = start("release:app", "-w", "2", "--ready-path", "/healthz")
    address = service.program.address
    with service.program.connect() as kept:
        assert kept.get().status == 200
        service.do("maintenance", on=True)
        while (answer := kept.get()).status == 200:  # until its worker has heard of it
            continue
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "30"
        service.do("reload", wait=True)
        answers = [kept.get().status for _ in range(20)]
        assert set(answers) == {503}
    assert get(address, "/healthz").text == "well"
    service.do("kill", worker=1)
    service.do("kill", worker=2)
    service.program.until(lambda: sum(each["state"] == "serving" for each in service.workers()) == 2, "successors")
    assert {get(address).status for _ in range(20)} == {503}
    status = service.do("status")
    assert status["maintenance"] is True
    assert "maintenance" in status["text"]
    service.do("maintenance", on=False)
    with service.program.connect() as kept:
        while kept.get().status == 503:
            continue
    service.do("reload", wait=True)
    assert {get(address).status for _ in range(20)} == {200}


@pytest.mark.parametrize("classes", ["own_classes:GetApp", "own_classes:Classic"])
def test_maintenance_holds_for_other_classes_too(start: Callable[..., Service], tmp_path: Path, classes: str) -> None:
    """One that gives the application itself, and one that serves the blocking way."""
    (tmp_path / "classes.py").write_text(
        "from socketserver import ThreadingMixIn\nfrom forkserver import WSGIServer\n"
        "class GetApp(WSGIServer):\n    def get_app(self):\n        return super().get_app()\n"
        "class Classic(ThreadingMixIn, WSGIServer):\n    daemon_threads = True\n"
    )
    service = start("raw:app", "-w", "1", "--server-class", f"classes:{classes.partition(':')[2]}")
    service.do("maintenance", on=True)
    while (status := get(service.program.address).status) == 200:
        continue
    assert status == 503
    service.do("maintenance", on=False)
    while (status := get(service.program.address).status) == 503:
        continue
    assert status == 200


def test_drain_closes_connections_and_serves_on_until_a_graceful_stop(start: Callable[..., Service], gate: Any) -> None:
    service = start("raw:app", "-w", "2", environ=gate.environ)
    service.do("drain")
    with service.program.connect() as wire:
        while not wire.get().last:  # until its worker has heard of it
            continue
    assert get(service.program.address).status == 200
    assert service.do("status")["state"] == "draining"
    assert "draining" in service.refused("reload", wait=True)
    assert "draining" in service.refused("scale", workers=3)
    with service.program.connect() as wire:
        wire.ask("/gate")
        gate.wait_for(1)
        service.program.send(signal.SIGTERM)
        service.program.log.wait("stopping: SIGTERM from .*; finishing open requests")
        gate.open(1)
        assert wire.answer().status == 200
    assert service.program.wait() == 0


def test_a_hup_while_the_service_drains_is_answered_with_the_reason(start: Callable[..., Service]) -> None:
    """systemd, which sends it with Type=notify-reload, waits for both words (systemd.service(5))."""
    service = start("raw:app")
    service.do("drain")
    since = service.program.said.mark()
    service.program.send(signal.SIGHUP)
    service.program.said.wait(r"(?m)^RELOADING=1\nMONOTONIC_USEC=", since)
    service.program.said.wait(r"(?m)^READY=1\nSTATUS=no reload: the service is draining, and only a stop may", since)
    assert "only a stop may follow" in service.do("status")["last_failure"]
    assert service.program.stop() == 0


def test_stop_ends_the_service_and_removes_the_socket(start: Callable[..., Service]) -> None:
    service = start("raw:app", "-w", "2")
    service.do("stop")
    assert service.program.wait() == 0
    assert not os.path.exists(service.path)


def test_who_waits_is_told_when_the_service_stops(start: Callable[..., Service], gate: Gate, tmp_path: Path) -> None:
    release(tmp_path, 1)
    service = start("release:app", "-w", "1")
    release(tmp_path, 2, standing_at(gate))
    replies: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: replies.append(service.ask("reload", wait=True)))
    waiting.start()
    gate.wait_for()
    service.do("stop", now=True)
    waiting.join(BOUND)
    assert replies == [{"ok": False, "error": "the service is stopping"}]
    assert service.program.wait() == 0


def test_config_shows_the_settings_in_force(start: Callable[..., Service]) -> None:
    service = start("raw:app", "-w", "2")
    assert "workers = 2  # flag --workers" in service.do("config")["config"]


def test_what_a_refused_reload_has_brought_is_not_in_force(start: Callable[..., Service], tmp_path: Path) -> None:
    release(tmp_path, 1)
    service = start("release:app", "-w", "1")
    (tmp_path / "forkserver.toml").write_text(
        f"timeout = 77\nmax_workers = 1\npidfile = '{tmp_path}/pid'\n"  # the pid file is the master's, and moves
    )
    release(tmp_path, 2, "raise RuntimeError")
    assert not service.ask("reload", wait=True)["ok"]
    shown = service.do("config")["config"]
    assert "timeout = 30  # default" in shown
    assert f'pidfile = "{tmp_path}/pid"' in shown
    service.do("scale", workers=2)  # max_workers of what serves allows it
    release(tmp_path, 3)
    assert service.ask("reload", wait=True)["ok"]
    assert "timeout = 77  # file" in service.do("config")["config"]


def test_the_status_names_the_generation_that_serves_since_a_refused_reload(
    start: Callable[..., Service], tmp_path: Path
) -> None:
    """A template that died is replaced by one that loads the files on disk."""
    release(tmp_path, 1)
    service = start("release:app", "-w", "1")
    release(tmp_path, 2, "raise RuntimeError")
    assert "still serving generation 1" in service.refused("reload", wait=True)
    release(tmp_path, 3)
    since = service.program.log.mark()
    (template,) = [each for each in service.program.family() if (each.role, each.generation) == ("template", 1)]
    os.kill(template.pid, signal.SIGKILL)
    service.program.log.wait("template gen=1 died", since)
    service.do("kill", worker="worker=1")
    service.program.log.wait("generation 3 serves", since)
    assert "still serving generation 1; since then generation 3 serves: 1 worker" in service.do("status")["text"]


def test_the_status_line_follows_the_facts(start: Callable[..., Service]) -> None:
    service = start("raw:app", "-w", "2")
    since = service.program.said.mark()
    service.do("scale", workers=3)
    service.program.said.wait("STATUS=generation 1 serves: 3 workers", since)


def test_no_other_process_holds_the_control_socket(start: Callable[..., Service]) -> None:
    """Code of the application could answer in the master's place, or keep the address."""
    service = start("raw:app", "-w", "2")
    with socket.socket(socket.AF_UNIX) as client:  # a client that the next fork could take along
        client.connect(service.path)
        service.do("reload", wait=True)
        table = Path("/proc/net/unix").read_text()
        ours = set(re.findall(rf"(\d+) {re.escape(service.path)}$", table, re.MULTILINE))
        assert len(ours) >= 2, "the listener, and at least one connection"
        service.program.until(lambda: len(service.program.family()) == 3, "the end of the first template")
        for member in service.program.family():
            folder = f"/proc/{member.pid}/fd"
            held = {os.readlink(f"{folder}/{number}") for number in os.listdir(folder)}
            assert not {f"socket:[{inode}]" for inode in ours} & held, member


def test_silent_clients_delay_neither_signals_nor_requests(start: Callable[..., Service]) -> None:
    service = start("raw:app", "-w", "2")
    silent = []
    for _ in range(100):
        silent.append(socket.socket(socket.AF_UNIX))
        silent[-1].connect(service.path)
    service.program.reload()
    assert get(service.program.address).status == 200
    for each in silent:
        each.close()
    service.do("status")


def test_nothing_that_comes_harms_the_service(start: Callable[..., Service]) -> None:
    """Bytes of any kind, and commands with any fields but those that end it."""
    service = start("raw:app", "-w", "1")
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
        assert control.ask(path, {"command": "status"}, BOUND)["serving"] == 1
        assert server.stop() == 0


def test_a_second_service_does_not_take_the_socket_away(start: Callable[..., Service], launch: Any) -> None:
    service = start("raw:app", "-w", "1")
    where = ("--pythonpath", str(APPS), "-b", "unix:other.sock", "--control-socket", service.path)
    other = launch(*where, "raw:app")
    assert other.wait() == 1
    assert f"control_socket {service.path}: a server is listening there" in other.log.text()
    assert "Traceback" not in other.log.text()
    assert service.do("status")["ok"]


def test_a_runtime_directory_that_cannot_be_written_prevents_no_start(program: StartProgram) -> None:
    """Nobody has asked for the socket by name; whoever did learns of it at once."""
    server = program("raw:app", environ={"RUNTIME_DIRECTORY": "/nowhere/at/all"})
    server.log.wait("warning .*control_socket /nowhere/at/all/control.sock: .*; serving without")
    assert get(server.address).status == 200
    assert server.stop() == 0


def test_the_runtime_directory_of_systemd_has_the_socket(program: StartProgram, tmp_path: Path) -> None:
    server = program("raw:app", environ={"RUNTIME_DIRECTORY": str(tmp_path)})
    assert control.ask(str(tmp_path / "control.sock"), {"command": "status"}, BOUND)["serving"] == 1
    assert server.stop() == 0
    assert not (tmp_path / "control.sock").exists()


# The machine may have servers of its own.
ONLY_IN_XDG_RUNTIME_DIR = """
import os, sys
from forkserver.cli import control
from forkserver.config import runtime_folders
folders = runtime_folders.folders
runtime_folders.folders = lambda environ, uid: folders(environ, uid)[:1]
control.SERVICES = os.path.join(os.environ["XDG_RUNTIME_DIR"], "services")
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
