"""The admin process: what it tells, what it may, and that nothing which happens to it costs a request."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from forkserver.master.monitoring.memory import resident
from harness import needs
from harness.admin_clients import STARTED, AdminClient, admin_of
from harness.controlled import ControlledProgram, StartControlled
from harness.load import Load
from harness.processes import descriptors, title, wait_gone
from harness.upgrading import kinds_of_descriptors, upgrade

ANY_PORT = "127.0.0.1:0"


@pytest.fixture
def service(controlled: StartControlled) -> ControlledProgram:
    return controlled("raw:app", "-w", "2", "--admin-bind", ANY_PORT)


@pytest.fixture
def admin(service: ControlledProgram) -> AdminClient:
    return admin_of(service)


def test_it_answers_each_endpoint(service: ControlledProgram, admin: AdminClient) -> None:
    with service.program.connect() as wire:
        assert wire.get("/hello").status == 200
    assert admin.ask("/healthz")[:2] == (200, "the master answers\n")
    assert admin.ask("/readyz")[:2] == (200, "serving, 2 of 2 workers serve\n")
    service.program.until(lambda: admin.sample('forkserver_answers_total{class="2xx"}') == 1, "the count")
    assert admin.sample('forkserver_workers{state="serving"}') == 2
    code, body, fields = admin.ask("/status.json")
    assert (code, fields["Content-Type"]) == (200, "application/json")
    status = json.loads(body)
    assert status.keys() == service.do("status").keys()
    assert status["admin"]["pid"] == admin.pid
    assert title(admin.pid) == "forkserver: admin [raw:app]"
    assert admin.ask("/healthz", "HEAD")[:2] == (200, "")
    assert admin.ask("/metrics", "POST")[0] == 405
    assert admin.ask("/status.json", Host="evil.example")[0] == 421


def test_promtool_has_no_complaint(service: ControlledProgram, admin: AdminClient) -> None:
    promtool = needs.program("promtool")  # of Debian's package prometheus
    body = admin.ask("/metrics")[1]
    checked = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_it_holds_nothing_of_the_service(service: ControlledProgram, admin: AdminClient) -> None:
    """Beside the standard streams it has its listener, its channel, and what it waits with."""
    assert admin.ask("/healthz")[0] == 200
    while kinds_of_descriptors(admin.pid).count("socket:") != 2:  # the client's, until its end is seen
        continue
    ours, masters = descriptors(admin.pid), descriptors(service.program.pid)
    sockets = {held for held in ours.values() if held.startswith("socket:")}
    shared = {held for held in masters.values() if held in sockets}
    assert len(shared) == 1, "its listener: the ends of the channel are two sockets"
    assert not [held for held in ours.values() if "memfd" in held or "signalfd" in held or "pidfd" in held]


def test_its_user_can_neither_read_nor_trace_it(service: ControlledProgram, admin: AdminClient) -> None:
    assert admin.ask("/healthz")[0] == 200
    status = Path(f"/proc/{admin.pid}/status").read_text()
    assert re.search(r"(?m)^NoNewPrivs:\t1$", status)
    assert Path(f"/proc/{admin.pid}/maps").stat().st_uid == 0, "not dumpable, proc(5)"


def test_its_death_costs_no_request_and_it_comes_again(service: ControlledProgram, admin: AdminClient) -> None:
    with Load(service.program.address, clients=2):
        for _ in range(2):
            victim, since = admin.pid, service.program.log.mark()
            os.kill(victim, signal.SIGKILL)
            service.program.log.wait(rf"warning .*admin process, pid {victim}, has ended: killed by SIGKILL", since)
            service.program.log.wait(STARTED, since)
            assert admin.ask("/healthz")[0] == 200, "a client that comes meanwhile waits"
    assert service.program.problems() == []


def test_a_reload_moves_it(controlled: StartControlled, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(f'admin_bind = "{ANY_PORT}"\n')
    service = controlled("raw:app", "-w", "1", "--config", str(settings))
    admin = admin_of(service)
    assert admin.ask("/healthz")[0] == 200
    before, path = admin.pid, tmp_path / "admin.sock"
    settings.write_text(f'admin_bind = "unix:{path}"\nadmin_hosts = ["ops.example"]\n')
    since = service.program.log.mark()
    service.program.reload()
    service.program.log.wait(STARTED, since)
    assert admin.address == str(path)
    assert admin.ask("/healthz", Host="ops.example")[0] == 200
    assert wait_gone(before)
    settings.write_text("")
    service.program.reload()
    assert not path.exists()
    assert service.do("status")["admin"] is None
    assert service.program.stop() == 0


def test_a_reload_that_changes_nothing_of_it_leaves_it(service: ControlledProgram, admin: AdminClient) -> None:
    before = admin.pid
    service.program.reload()
    assert service.do("status")["admin"]["pid"] == before


def test_an_address_that_is_taken_refuses_start_and_reload(controlled: StartControlled, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = tmp_path / "settings.toml"
        settings.write_text("")
        service = controlled("raw:app", "--config", str(settings))
        settings.write_text(f'admin_bind = "{address}"\n')
        since = service.program.log.mark()
        service.program.send(signal.SIGHUP)
        refused = service.program.log.wait("reload failed", since).text
    assert f"admin_bind {address}: cannot bind {address}: address already in use" in refused
    assert "--admin-bind" in refused


def test_an_address_that_others_reach_is_warned_of(controlled: StartControlled) -> None:
    service = controlled("raw:app", "--admin-bind", "0.0.0.0:0")
    service.program.log.wait(r"warning .*admin_bind 0\.0\.0\.0:0: other machines can reach it")


def test_it_is_executed_anew_at_an_upgrade_on_the_same_listener(service: ControlledProgram, admin: AdminClient) -> None:
    before, address = admin.pid, admin.address
    assert admin.ask("/healthz")[0] == 200
    answers = admin.sample('forkserver_reloads_total{outcome="done"}')
    since = service.program.log.mark()
    upgrade(service.program)
    service.program.log.wait(STARTED, since)
    assert (admin.address, admin.pid != before) == (address, True)
    assert admin.sample('forkserver_reloads_total{outcome="done"}') == answers + 1
    assert wait_gone(before)
    assert service.program.problems() == []


def test_it_writes_to_the_log_file_of_after_a_rotation(controlled: StartControlled, tmp_path: Path) -> None:
    """The old one may be compressed by then."""
    log = tmp_path / "error.log"
    service = controlled("raw:app", "--admin-bind", ANY_PORT, "--error-log", str(log))

    def admin_pid() -> int:
        pid = service.do("status")["admin"]["pid"]
        return 0 if pid is None else int(pid)

    while not (before := admin_pid()):
        continue
    log.rename(tmp_path / "error.log.1")
    service.program.send(signal.SIGUSR1)
    assert wait_gone(before)
    while not (now := admin_pid()):
        continue
    assert str(log) in descriptors(now).values()
    assert not [held for held in descriptors(now).values() if held.endswith(".log.1")]


def test_it_is_not_ready_while_the_service_drains_and_goes_with_it(
    service: ControlledProgram, admin: AdminClient
) -> None:
    assert admin.ask("/readyz")[0] == 200
    service.do("drain")
    service.program.until(lambda: admin.ask("/readyz")[0] == 503, "the end of readiness")
    assert admin.ask("/healthz")[0] == 200
    pid = admin.pid
    assert service.program.stop() == 0
    assert wait_gone(pid)
    assert "still alive" not in service.program.log.text()


def test_it_goes_with_a_master_that_is_killed(service: ControlledProgram, admin: AdminClient) -> None:
    assert admin.ask("/healthz")[0] == 200
    family = service.program.family()
    assert admin.pid in {member.pid for member in family}
    service.program.send(signal.SIGKILL)
    for member in family:
        assert wait_gone(member.pid), member


SLOWLY_READ = ("/", "/metrics", "/status.json", "/events", "/history.json", "/slow.json")


def test_a_hundred_slow_readers_harm_nothing(service: ControlledProgram, admin: AdminClient) -> None:
    """Each asks for more than its kernel takes, and reads none of it."""
    assert admin.ask("/metrics")[0] == 200
    before = resident(admin.pid)
    with ExitStack() as opened:
        for number in range(100):
            reader = opened.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)  # before it connects: tcp(7) on windows
            reader.connect(admin.address)
            path = SLOWLY_READ[number % len(SLOWLY_READ)]
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 50)
        with Load(service.program.address, clients=2) as load:
            for path in (*SLOWLY_READ, "/healthz", "/readyz"):
                assert admin.ask(path)[0] == 200, path
            assert service.do("status")["serving"] == 2
            load.more(100)
        assert load.lost == []
        assert resident(admin.pid) - before < 32 << 20, "what is kept for clients that do not read has a limit"
    assert service.program.problems() == []


def test_it_merges_what_the_application_counts(controlled: StartControlled, tmp_path: Path) -> None:
    """Over the death of a worker its counters stay, and the gauges of living processes go."""
    (tmp_path / "counting.py").write_text(
        "from prometheus_client import Counter, Gauge\n"
        "from raw import app as raw\n"
        "seen = Counter('seen', 'Seen.')\n"
        "open_ones = Gauge('open_ones', 'Open.', multiprocess_mode='livesum')\n"
        "def app(environ, start_response):\n"
        "    seen.inc()\n"
        "    open_ones.set(1)\n"
        "    return raw(environ, start_response)\n"
    )
    folder = tmp_path / "metrics"
    folder.mkdir()
    service = controlled("counting:app", "--admin-bind", ANY_PORT, "-e", f"PROMETHEUS_MULTIPROC_DIR={folder}")
    admin = admin_of(service)
    with service.program.connect() as wire:
        assert wire.get("/hello").status == 200
        assert (admin.sample("seen_total"), admin.sample("open_ones")) == (1, 1)
    victim = service.program.workers()[0].pid
    os.kill(victim, signal.SIGKILL)
    service.program.log.wait(rf"pid={victim} ended")
    assert admin.sample("seen_total") == 1
    assert "open_ones" not in admin.ask("/metrics")[1]
