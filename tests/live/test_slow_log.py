"""Slow requests: logged while they run, with where they stand; listed by forkserverctl; nothing forged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.controlled import ControlledProgram, StartControlled
from harness.gate import Gate

SLOW_VIEW = """
import os, time
from flask import Flask

site = Flask(__name__)

@site.get("/report")
def report():
    while not os.path.exists({over!r}):
        time.sleep(0.05)
    return "done"
"""


def listed(service: ControlledProgram) -> list[dict[str, object]]:
    found: list[dict[str, object]] = service.do("slow")["slow"]
    return found


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_slow_view_is_seen_in_log_and_list_while_it_runs_and_when_it_is_over(
    controlled: StartControlled, tmp_path: Path, threads: str
) -> None:
    over = tmp_path / "over"
    (tmp_path / "views.py").write_text(SLOW_VIEW.format(over=str(over)))
    service = controlled("views:site", "--slow-log", "200ms", "--threads", threads)
    (worker,) = service.workers()
    with service.program.connect() as wire:
        wire.ask("/report?password=x", headers="X-Request-Id: slow-one\r\n")
        line = service.program.log.wait(r"warning worker=1 gen=1 pid=\d+ slow request: GET /report")
        assert "s so far, request slow-one), client 127.0.0.1; where it stands:" in line.text
        service.program.log.wait(r"^  /.*/views\.py:10 in report: time\.sleep\(0\.05\)")
        service.program.log.wait(r"^  \(forkserver: \d+ frames, ")
        service.program.log.wait(r"slow request: GET /report \(0\.[4-7] s so far")
        service.program.log.wait(r"slow request: GET /report \((0\.[89]|1\.\d) s so far")
        service.program.until(lambda: listed(service)[0]["place"], "what the worker has said")
        (call,) = listed(service)
        assert (call["running"], call["worker"], call["pid"]) == (True, 1, worker["pid"])
        assert (call["request"], call["request_id"], call["client"]) == ("GET /report", "slow-one", "127.0.0.1")
        assert "views.py:10 in report" in str(call["place"])
        over.touch()
        assert wire.answer().text == "done"
    service.program.until(lambda: not listed(service)[0]["running"], "its end")
    assert "password" not in service.program.log.text()


def test_forkserverctl_shows_the_list_to_a_person_and_to_a_program(controlled: StartControlled, gate: Gate) -> None:
    service = controlled("raw:app", "--slow-log", "100ms", environ=gate.environ)
    command = [sys.executable, "-m", "forkserver.cli.control", "--socket", service.path, "slow"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown == "no call of the application has passed slow_log (0.1 s) yet\n"
    with service.program.connect() as wire:
        wire.ask("/gate")
        gate.wait_for()
        service.program.until(lambda: listed(service) and listed(service)[0]["place"], "a slow call")
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        gate.open()
        assert wire.answer().status == 200
    assert "worker=1  GET /gate\n" in shown
    assert "client 127.0.0.1, request " in shown
    program = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    assert json.loads(program)["slow"][0]["request"] == "GET /gate"


def test_without_the_setting_nothing_is_slow(controlled: StartControlled) -> None:
    service = controlled("raw:app")
    assert service.do("slow") == {"ok": True, "limit": 0.0, "slow": []}


def test_a_handler_that_blocks_is_seen_too(controlled: StartControlled, gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from forkserver import WSGIRequestHandler\n"
        "class Handler(WSGIRequestHandler):\n"
        "    def handle(self):\n        super().handle()\n"
    )
    service = controlled("raw:app", "--slow-log", "200ms", "--handler-class", "own:Handler", environ=gate.environ)
    with service.program.connect() as wire:
        wire.ask("/gate", headers="X-Request-Id: slow-one\r\n")
        gate.wait_for()
        service.program.log.wait(r"slow request: GET /gate \(.* request slow-one\), client 127\.0\.0\.1")
        service.program.log.wait(r"^  /.*/raw\.py:\d+ in ")
        gate.open()
        assert wire.answer().status == 200


@pytest.mark.parametrize("how", ["in C code", "stopped"])
def test_a_worker_that_cannot_look_is_told_with_the_way_out(controlled: StartControlled, gate: Gate, how: str) -> None:
    service = controlled("faults:app", "--slow-log", "300ms", "--timeout", "60", environ=gate.environ)
    (worker,) = service.workers()
    with service.program.connect() as wire:
        wire.ask("/c" if how == "in C code" else "/gate")
        gate.wait_for()
        if how == "stopped":
            os.kill(worker["pid"], signal.SIGSTOP)
        line = service.program.log.wait(r"warning master pid=\d+ slow request: worker=1 .* cannot be seen").text
        os.kill(worker["pid"], signal.SIGKILL)
    assert "a signal has stopped it, or it is in C code that holds the interpreter (GIL)" in line
    assert f"py-spy dump --pid {worker['pid']}" in line


def test_no_client_forges_a_line_or_a_field(controlled: StartControlled, gate: Gate) -> None:
    """In JSON a request's path is text of its own field."""
    service = controlled("raw:app", "--slow-log", "100ms", "--log-format", "json", environ=gate.environ)
    hostile = b"/gate/<b>%0a\\u202e,'level':'critical'}"
    with service.program.connect() as wire:
        wire.send(b"GET " + hostile + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_for()
        service.program.log.wait("slow request")
        gate.open()
        wire.answer()
    events = [json.loads(line) for line in service.program.log.text().splitlines() if "slow request" in line]
    assert events
    for event in events:
        assert event["level"] == "warning"
        assert event["request"] == f"GET {hostile.decode()}"
        assert event["seconds"] >= 0.1
        assert event["client"]
        assert event["request_id"]


def test_a_reload_switches_it_on_and_off(controlled: StartControlled, gate: Gate, tmp_path: Path) -> None:
    settings = tmp_path / "forkserver.toml"
    settings.write_text("slow_log = 0\n")
    service = controlled("raw:app", environ=gate.environ)
    settings.write_text('slow_log = "100ms"\n')
    service.program.reload()
    with service.program.connect() as wire:
        wire.ask("/gate")
        gate.wait_for()
        service.program.log.wait("slow request: GET /gate")
        gate.open()
        assert wire.answer().status == 200
    assert service.do("slow")["limit"] == 0.1
