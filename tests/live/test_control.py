"""Commands to a running service over its control socket do what they say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness import BOUND
from harness.clients import get
from harness.controlled import ControlledProgram, StartControlled, release, standing_at
from harness.gate import Gate
from harness.load import Load
from harness.processes import wait_gone


def test_status_tells_who_serves_and_what_they_are_busy_with(controlled: StartControlled, gate: Any) -> None:
    service = controlled("raw:app", "-w", "2", environ=gate.environ)
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


@pytest.mark.parametrize("kept", [False, True], ids=["new connections", "kept connections"])
def test_status_tells_that_clients_wait_for_a_free_worker(controlled: StartControlled, gate: Gate, kept: bool) -> None:
    """Those whose connections were open wait between the workers, where no worker counts them."""
    service = controlled("raw:app", "-w", "2", environ=gate.environ)
    with ExitStack() as opened:
        wires = [opened.enter_context(service.program.connect()) for _ in range(4 if kept else 2)]
        for wire in wires:
            assert wire.get("/pid").status == 200
        for wire in wires[:2]:
            wire.ask("/gate")
        gate.wait_for(2)
        assert not service.do("status")["clients_wait"]
        while len(wires) < 4:
            wires.append(opened.enter_context(service.program.connect()))
        for wire in wires[2:]:
            wire.ask("/pid")
        service.program.until(lambda: service.do("status")["clients_wait"], "clients that wait")
        gate.open(2)
        assert [wire.answer().status for wire in wires] == [200] * 4
        service.program.until(lambda: not service.do("status")["clients_wait"], "a free worker")


def test_a_reload_that_is_waited_for_answers_when_the_new_code_serves(
    controlled: StartControlled, tmp_path: Path
) -> None:
    release(tmp_path, 1)
    service = controlled("release:app", "-w", "2")
    for version in (2, 3):
        release(tmp_path, version)
        assert service.do("reload", wait=True)["generation"] == version
        assert get(service.program.address).text == str(version)


def test_a_broken_reload_fails_with_its_traceback(controlled: StartControlled, tmp_path: Path) -> None:
    """`systemctl reload` has to fail, and say why, where the person is who has broken it."""
    release(tmp_path, 1)
    service = controlled("release:app", "-w", "2")
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


def test_a_reload_whose_workers_crash_when_they_are_ready_fails_with_what_ended_them(
    controlled: StartControlled, gate: Gate, tmp_path: Path
) -> None:
    """Not for the code alone: a request may be the cause, and its line in the log has it."""
    release(tmp_path, 1)
    service = controlled("release:app", "-w", "2", "--preload", "off")
    release(tmp_path, 2, standing_at(gate))
    command = [sys.executable, "-m", "forkserver.cli.control", "--socket", service.path, "reload", "--wait"]
    reload = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        killed: set[int] = set()
        for _ in range(2):
            gate.wait_for()
            gate.open()
            killed.add(pid := _begins_to_serve(service, 2, killed))
            os.kill(pid, signal.SIGSEGV)
            # Before the next is ready: while both seem to serve, the new code has taken over.
            service.program.log.wait(rf"\bpid={pid} ended: killed by SIGSEGV")
        said = reload.communicate(timeout=BOUND)[1]
    finally:
        reload.kill()
        reload.communicate()
    assert reload.returncode == 1
    assert said.startswith("forkserverctl: reload failed: 2 of its workers that had been ready ended within 5 s, ")
    assert "the last: killed by SIGSEGV" in said
    assert "still serving generation 1" in said
    assert get(service.program.address).text == "1"


def _begins_to_serve(service: ControlledProgram, generation: int, before: set[int]) -> int:
    """The pid of a worker of ``generation`` that serves, and is none of those ``before``."""
    found: set[int] = set()

    def looked_for() -> bool:
        there = (each for each in service.workers() if each["generation"] == generation)
        found.update({each["pid"] for each in there if each["state"] == "serving"} - before)
        return bool(found)

    service.program.until(looked_for, "a worker of the new code that serves")
    return found.pop()


def test_who_waits_for_a_reload_holds_nobody_up(controlled: StartControlled, gate: Gate, tmp_path: Path) -> None:
    """Not other commands, not signals, not those who wait for the next reload."""
    release(tmp_path, 1)
    service = controlled("release:app", "-w", "2")
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


def test_the_number_of_workers_is_set_and_bounded(controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "1")
    service.do("scale", workers=3)
    service.program.until(lambda: len(service.program.workers()) == 3, "three workers")
    assert "workers 4000: more than max_workers, " in service.refused("scale", workers=4000)
    service.do("scale", workers=1)
    service.program.until(lambda: len(service.program.workers()) == 1, "one worker")
    service.program.until(lambda: service.do("status")["ends"].get("fewer workers") == 2, "two ends")


def test_a_retired_worker_is_replaced_before_it_leaves(controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "2")
    before = service.workers()[0]
    with Load(service.program.address, clients=8) as load:
        load.more(100)
        service.do("retire", worker=1)
        assert wait_gone(before["pid"])
        load.more(100)
    assert load.lost == []
    service.program.until(lambda: service.do("status")["ends"] == {"recycled": 1}, "the end of one")


def test_a_killed_worker_is_named_and_replaced(controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "2")
    victim = service.workers()[1]
    service.do("kill", worker=f"pid={victim['pid']}")
    service.program.log.wait(rf"pid={victim['pid']} ended: killed by SIGKILL, sent by the master: forkserverctl kill")
    service.program.until(lambda: len(service.workers()) == 2, "its successor")
    (death,) = service.do("status")["last_deaths"]
    assert (death["worker"], death["pid"]) == (2, victim["pid"])
    assert death["cause"] == "killed by SIGKILL, sent by the master: forkserverctl kill"
    assert "no such worker; there are worker=" in service.refused("kill", worker="pid=1")
    assert "no such worker" in service.refused("kill", worker=3)


def test_the_stacks_of_a_worker_come_back_to_who_asks(controlled: StartControlled, gate: Any) -> None:
    service = controlled("raw:app", "-w", "2", environ=gate.environ)
    with service.program.connect() as wire:
        wire.ask("/gate")
        gate.wait_for(1)
        (busy,) = [each["worker"] for each in service.workers() if each["busy"]]
        stacks = service.do("stacks", worker=busy)["stacks"]
        gate.open(1)
        assert wire.answer().status == 200
    assert "thread MainThread" in stacks
    assert "in _gate" in stacks


def test_a_stopped_worker_is_shown_as_stopped_where_calls_have_no_limit(controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "2", "--timeout", "0")
    victim = service.program.workers()[0].pid
    os.kill(victim, signal.SIGSTOP)
    service.program.log.wait("was stopped by a signal")
    assert {each["pid"]: each["state"] for each in service.workers()}[victim] == "stopped"
    os.kill(victim, signal.SIGCONT)
    service.program.until(lambda: {each["state"] for each in service.workers()} == {"serving"}, "the worker's return")


def test_a_stopped_workers_stacks_are_not_waited_for_long(controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "2")
    victim = service.workers()[0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    service.program.log.wait("was stopped by a signal")
    assert "stopped" in [each["state"] for each in service.workers()]
    assert "does not answer" in service.refused("stacks", worker=f"pid={victim}")
    os.kill(victim, signal.SIGCONT)


def test_maintenance_answers_503_through_reloads_and_respawns(controlled: StartControlled, tmp_path: Path) -> None:
    """All but the health path: a balancer that saw 503 there would take the whole machine out."""
    release(tmp_path, 1)
    service = controlled("release:app", "-w", "2", "--ready-path", "/healthz")
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
def test_maintenance_holds_for_other_classes_too(controlled: StartControlled, tmp_path: Path, classes: str) -> None:
    """One that gives the application itself, and one that serves the blocking way."""
    (tmp_path / "classes.py").write_text(
        "from socketserver import ThreadingMixIn\nfrom forkserver import WSGIServer\n"
        "class GetApp(WSGIServer):\n    def get_app(self):\n        return super().get_app()\n"
        "class Classic(ThreadingMixIn, WSGIServer):\n    daemon_threads = True\n"
    )
    service = controlled("raw:app", "-w", "1", "--server-class", f"classes:{classes.partition(':')[2]}")
    service.do("maintenance", on=True)
    while (status := get(service.program.address).status) == 200:
        continue
    assert status == 503
    service.do("maintenance", on=False)
    while (status := get(service.program.address).status) == 503:
        continue
    assert status == 200


def test_drain_closes_connections_and_serves_on_until_a_graceful_stop(controlled: StartControlled, gate: Any) -> None:
    service = controlled("raw:app", "-w", "2", environ=gate.environ)
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


def test_a_hup_while_the_service_drains_is_answered_with_the_reason(controlled: StartControlled) -> None:
    """systemd, which sends it with Type=notify-reload, waits for both words (systemd.service(5))."""
    service = controlled("raw:app")
    service.do("drain")
    since = service.program.said.mark()
    service.program.send(signal.SIGHUP)
    service.program.said.wait(r"(?m)^RELOADING=1\nMONOTONIC_USEC=", since)
    service.program.said.wait(r"(?m)^READY=1\nSTATUS=no reload: the service is draining, and only a stop may", since)
    assert "only a stop may follow" in service.do("status")["last_failure"]
    assert service.program.stop() == 0


def test_stop_ends_the_service_and_removes_the_socket(controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "2")
    service.do("stop")
    assert service.program.wait() == 0
    assert not os.path.exists(service.path)


def test_who_waits_is_told_when_the_service_stops(controlled: StartControlled, gate: Gate, tmp_path: Path) -> None:
    release(tmp_path, 1)
    service = controlled("release:app", "-w", "1")
    release(tmp_path, 2, standing_at(gate))
    replies: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: replies.append(service.ask("reload", wait=True)))
    waiting.start()
    gate.wait_for()
    service.do("stop", now=True)
    waiting.join(BOUND)
    assert replies == [{"ok": False, "error": "the service is stopping"}]
    assert service.program.wait() == 0


def test_config_shows_the_settings_in_force(controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "2")
    assert "workers = 2  # flag --workers" in service.do("config")["config"]


def test_what_a_refused_reload_has_brought_is_not_in_force(controlled: StartControlled, tmp_path: Path) -> None:
    release(tmp_path, 1)
    service = controlled("release:app", "-w", "1")
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
    controlled: StartControlled, tmp_path: Path
) -> None:
    """A template that died is replaced by one that loads the files on disk."""
    release(tmp_path, 1)
    service = controlled("release:app", "-w", "1")
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


def test_the_status_line_follows_the_facts(controlled: StartControlled) -> None:
    service = controlled("raw:app", "-w", "2")
    since = service.program.said.mark()
    service.do("scale", workers=3)
    service.program.said.wait("STATUS=generation 1 serves: 3 workers", since)
