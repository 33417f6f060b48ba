"""SIGUSR2: the same master is the next program, workers follow, and no client loses a request meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import venv
from pathlib import Path

import pytest

from forkserver.cli import control_client
from harness import BOUND
from harness.clients import get
from harness.gate import Gate
from harness.load import Load
from harness.processes import title, wait_gone
from harness.program import APPS, LaunchProgram, StartProgram, listener
from harness.upgrading import APP, UPGRADED, PackageCopy, at_rest, kinds_of_descriptors, signature, upgrade

RELEASE = """
import dep
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{version} " + dep.version.encode()]
"""


def test_an_upgrade_under_load_loses_nothing(program: StartProgram, site: PackageCopy) -> None:
    """Neither a request nor a connection: the listeners and the workers stay, and the roll hands connections on."""
    server = program("raw:app", "-w", "4", environ=site.environ)
    with Load(server.address, clients=16) as load:
        load.more(1000)
        for version in ("second", "third"):
            site.mark(version)
            upgrade(server)
            assert signature(server).startswith(f"{version}-")
            load.more(500)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}
    print(f"2 upgrades, {len(load.answers)} answers, none lost, longest wait {load.longest() * 1000:.1f} ms")
    assert title(server.pid) == "forkserver: master [raw:app]"
    assert {member.generation for member in server.family()} == {3}
    assert len(server.workers()) == 4
    assert server.stop() == 0


def test_the_manager_hears_of_it_as_of_a_reload(program: StartProgram, site: PackageCopy) -> None:
    """MAINPID is the same, so nothing else is to be said: RELOADING with the time, then READY."""
    server = program("raw:app", "-w", "2", environ=site.environ)
    since = server.said.mark()
    upgrade(server)
    server.said.wait(r"(?m)^READY=1$", since)
    first, *_, last = [entry.text for entry in server.said.entries[since:]]
    assert first.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert last.startswith("READY=1\nSTATUS=generation 2 serves")
    assert not server.said.find("MAINPID|STOPPING", since)


def test_the_watchdog_is_pinged_by_the_next_program(program: StartProgram, site: PackageCopy) -> None:
    """Its variables are as the first start saw them, although the application must not see them."""
    server = program("raw:app", environ={"WATCHDOG_USEC": "1000000", **site.environ})
    upgrade(server)
    since = server.said.mark()
    server.said.wait("^WATCHDOG=1$", since)
    server.said.wait("^WATCHDOG=1$", since + 1)


def test_the_request_in_flight_is_answered_by_the_worker_that_began_it(
    program: StartProgram, gate: Gate, site: PackageCopy
) -> None:
    server = program("raw:app", "-w", "1", environ={**gate.environ, **site.environ})
    (old,) = server.workers()
    with server.connect() as wire:
        wire.ask("/gate")
        gate.wait_for(1)
        since = server.log.mark()
        server.send(signal.SIGUSR2)
        server.until(lambda: server.workers(generation=2), "a worker of generation 2")
        gate.open()
        assert wire.answer().text == f"hello from {old.pid}"
    server.log.wait("generation 2 serves", since)


@pytest.mark.parametrize("log", ["error_log", "access_log"])
def test_a_syslog_daemon_that_is_away_costs_lines_and_no_request(
    program: StartProgram, gate: Gate, site: PackageCopy, tmp_path: Path, log: str
) -> None:
    """It is restarted by the same update of the system, perhaps: that must not end the service."""
    path = str(tmp_path / "dev-log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        target = f"--{log.replace('_', '-')}", f"syslog:{path}"
        server = program("raw:app", "-w", "1", *target, environ={**gate.environ, **site.environ})
    os.unlink(path)
    (old,) = server.workers()
    with server.connect() as wire:
        wire.ask("/gate")
        gate.wait_for(1)
        since = server.said.mark()
        server.send(signal.SIGUSR2)
        server.log.wait(f"{log} 'syslog:{path}': {path} cannot be reached: .*; lines are lost until it can")
        server.said.wait("generation 2", since)
        gate.open()
        assert wire.answer().text == f"hello from {old.pid}"
    server.said.wait("(?m)^READY=1$", since)
    assert get(server.address).status == 200
    assert server.stop() == 0


def test_all_goes_on_after_an_upgrade_as_before(program: StartProgram, site: PackageCopy) -> None:
    """A death, one worker more, a reload, another upgrade, a stop."""
    server = program("raw:app", "-w", "2", environ=site.environ)
    upgrade(server)
    victim = server.workers()[0]
    since = server.log.mark()
    os.kill(victim.pid, signal.SIGKILL)
    server.log.wait(f"pid={victim.pid} ended: killed by SIGKILL", since)
    server.log.wait("is ready", since)
    server.send(signal.SIGTTIN)
    server.until(lambda: len(server.workers()) == 3, "three workers")
    server.reload()
    assert len(server.workers(generation=3)) == 2, "a reload reads how many"
    upgrade(server)
    assert {member.generation for member in server.family()} == {4}
    assert server.stop() == 0


def test_upgrades_in_a_row_leave_nothing_behind(program: StartProgram, site: PackageCopy) -> None:
    """No descriptor, no process; and a worker killed while the master is between two programs is reaped."""
    server = program("raw:app", "-w", "2", environ=site.environ)
    upgrade(server)
    at_rest(server)
    before, below = kinds_of_descriptors(server.pid), [kinds_of_descriptors(member.pid) for member in server.family()]
    with Load(server.address, clients=4) as load:
        for round_ in range(4):
            since = server.log.mark()
            victim = server.workers()[0]
            server.send(signal.SIGUSR2)
            server.log.wait("understands and takes over", since)
            if round_ % 2 == 0:
                os.kill(victim.pid, signal.SIGKILL)
            server.log.wait(UPGRADED, since)
            server.log.wait(r"generation \d+ serves", since)
            assert wait_gone(victim.pid)
            if round_ % 2 == 0:
                server.log.wait(f"pid={victim.pid} ended: killed by SIGKILL", since)
        load.more(50)
    assert len(load.lost) <= 2 * 4, "only what the killed workers held"
    upgrade(server)  # a worker that has served holds more than one that has not
    assert len(server.family()) == 3, "nobody but a template and two workers"
    at_rest(server)
    assert kinds_of_descriptors(server.pid) == before
    assert [kinds_of_descriptors(member.pid) for member in server.family()] == below
    assert server.stop() == 0


def make_environment(place: Path, version: str, interpreter: Path) -> None:
    """An environment with forkserver and a module ``dep`` of that ``version``; ``interpreter`` runs its script."""
    venv.create(place, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    PackageCopy(packages).mark(version)
    needed = [path for path in sys.path if path.endswith("-packages")]
    (packages / "needed.pth").write_text("\n".join(needed))  # setproctitle and psutil
    (packages / "dep.py").write_text(f"version = {version!r}\n")
    script = place / "bin" / "forkserver"
    script.write_text(f"#!{interpreter} -I\nimport sys\nfrom forkserver.cli.serve import main\nsys.exit(main())\n")
    script.chmod(0o755)


def switch(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


def test_a_virtual_environment_replaced_under_its_path_is_taken(launch: LaunchProgram, tmp_path: Path) -> None:
    """The command of the first start is looked up anew: interpreter, script and options."""
    apart = tmp_path / "current"
    for version in ("first", "second"):
        make_environment(tmp_path / version, version, apart / "bin" / "python")
    apart.symlink_to("first")
    (tmp_path / "app.py").write_text(APP.format(before="", version=1))
    with listener() as made_listener:
        server = launch(
            "app:app", "-w", "2", command=("current/bin/forkserver",), cwd=tmp_path, listeners=[made_listener]
        )
        server.address = made_listener.getsockname()
    server.wait_ready()
    assert signature(server).startswith("first-")
    switch(apart, "second")
    shutil.rmtree(tmp_path / "first")
    upgrade(server)
    assert signature(server).startswith("second-")
    assert server.stop() == 0


def test_a_reload_through_a_switched_link_takes_the_dependencies_of_the_next_release(
    launch: LaunchProgram, tmp_path: Path
) -> None:
    """The console script names the environment of the first release: new code would meet its dependencies.

    Whoever waits for the reload waits over the upgrade. A release whose environment is not there refuses the reload.
    """
    current, control = tmp_path / "current", str(tmp_path / "control.sock")
    for version in ("first", "second"):
        release = tmp_path / version
        make_environment(release / "venv", version, release / "venv" / "bin" / "python")
        (release / "app.py").write_text(RELEASE.format(version=version))
    (tmp_path / "third").mkdir()
    current.symlink_to("first")
    with listener() as made:
        command = (str(current / "venv/bin/forkserver"),)
        more = ("--control-socket", control)
        server = launch(
            "app:app", "-w", "1", *more, command=command, cwd=current, environ={"PWD": str(current)}, listeners=[made]
        )
        server.address = made.getsockname()
    server.wait_ready()
    reload = {"command": "reload", "wait": True}

    switch(current, "third")
    answer = control_client.ask(control, reload, BOUND)
    assert not answer["ok"]
    assert f"cannot run {current}/venv/bin/python: No such file or directory" in answer["error"]
    assert "still serving generation 1" in answer["error"]
    assert get(server.address).text == "first first"

    switch(current, "second")
    answer = control_client.ask(control, reload, BOUND)
    assert answer["ok"], answer
    assert get(server.address).text == "second second"
    assert signature(server).startswith("second-")
    real = tmp_path / "second" / "venv"
    server.log.wait(rf"understands and takes over from the one in {tmp_path}/first/venv")
    server.log.wait(rf"upgraded to forkserver .* in {real};")
    generation = answer["generation"]
    assert control_client.ask(control, reload, BOUND)["generation"] == generation + 1, "an ordinary reload again"
    assert server.stop() == 0


def test_an_upgrade_follows_a_switched_symlink_to_the_next_release(launch: LaunchProgram, tmp_path: Path) -> None:
    """`current` is the directory of the start: the next program begins where it leads now."""
    for version in (1, 2):
        (tmp_path / f"r{version}").mkdir()
        (tmp_path / f"r{version}" / "app.py").write_text(APP.format(before="", version=version))
    current = tmp_path / "current"
    current.symlink_to("r1")
    with listener() as made:
        server = launch("app:app", "-w", "1", cwd=current, environ={"PWD": str(current)}, listeners=[made])
        server.address = made.getsockname()
    server.wait_ready()
    assert get(server.address).text == "1"
    current.unlink()
    current.symlink_to("r2")
    shutil.rmtree(tmp_path / "r1")
    upgrade(server)
    assert get(server.address).text == "2"
    assert os.readlink(f"/proc/{server.pid}/cwd") == str(tmp_path / "r2")


def test_a_relative_pythonpath_follows_an_upgrade_and_the_reload_after_it(
    launch: LaunchProgram, tmp_path: Path
) -> None:
    """The next program's interpreter reads the variable anew, where the link leads by then."""
    for version in (1, 2, 3):
        (tmp_path / f"r{version}" / "src").mkdir(parents=True)
        (tmp_path / f"r{version}" / "src" / "app.py").write_text(APP.format(before="", version=version))
    current = tmp_path / "current"
    current.symlink_to("r1")
    with listener() as made:
        environ = {"PWD": str(current), "PYTHONPATH": "src"}
        server = launch("app:app", "-w", "1", cwd=current, environ=environ, listeners=[made])
        server.address = made.getsockname()
    server.wait_ready()
    switch(current, "r2")
    shutil.rmtree(tmp_path / "r1")
    upgrade(server)
    assert get(server.address).text == "2"
    switch(current, "r3")
    server.reload()
    assert get(server.address).text == "3"
    assert server.stop() == 0


def test_own_sockets_and_files_are_carried_over(launch: LaunchProgram, tmp_path: Path, site: PackageCopy) -> None:
    """Unix socket, pid file and logs: in use afterwards, opened again by USR1, removed at the end."""
    address = str(tmp_path / "own.sock")
    files = ("--pidfile", "my.pid", "--error-log", "my.log", "--access-log", "access.log")
    server = launch(
        "raw:app", "-b", f"unix:{address}", "-w", "2", *files, "--pythonpath", str(APPS), environ=site.environ
    )
    server.address = address
    server.wait_ready()
    inode = os.stat(address).st_ino
    server.send(signal.SIGUSR2)
    server.said.wait("STATUS=generation 2 serves")
    assert os.stat(address).st_ino == inode
    assert (tmp_path / "my.pid").read_text() == f"{server.pid}\n"
    assert get(address).status == 200
    for name in ("my.log", "access.log"):
        (tmp_path / name).rename(tmp_path / f"{name}.1")
    server.send(signal.SIGUSR1)
    server.said.wait("log files opened again")
    assert get(address).status == 200
    assert server.stop() == 0
    assert not os.path.exists(address)
    assert not (tmp_path / "my.pid").exists()
    assert "stopped" in (tmp_path / "my.log").read_text()
    assert "GET / HTTP/1.1" in (tmp_path / "access.log").read_text()
    assert "upgraded to" in (tmp_path / "my.log.1").read_text()


def test_the_control_socket_is_heard_after_an_upgrade_too(
    program: StartProgram, tmp_path: Path, site: PackageCopy
) -> None:
    """With what was counted, and what was switched on; and its file is removed at the end."""
    path = str(tmp_path / "control.sock")
    server = program("raw:app", "-w", "2", "--control-socket", path, environ=site.environ)
    for _ in range(5):
        get(server.address)
    assert control_client.ask(path, {"command": "maintenance", "on": True}, BOUND)["ok"]
    upgrade(server)
    status = control_client.ask(path, {"command": "status"}, BOUND)
    assert (status["generation"], status["requests"], status["maintenance"]) == (2, 5, True)
    assert get(server.address).status == 503, "the new workers know"
    assert sum(status["ends"].values()) == 2
    assert control_client.ask(path, {"command": "reload", "wait": True}, BOUND)["generation"] == 3
    assert server.stop() == 0
    assert not os.path.exists(path)


def test_the_application_sees_nothing_of_an_upgrade(program: StartProgram, site: PackageCopy) -> None:
    """Neither the order to the next program nor what is the service manager's, in the environment or open."""
    server = program("raw:app", "-w", "1", environ=site.environ)
    upgrade(server)
    process = json.loads(get(server.address, "/environ").text)["process"]
    assert not [name for name in process if name.startswith(("FORKSERVER_UPGRADE", "NOTIFY_", "LISTEN_"))]
    held = [target for member in server.family() for target in kinds_of_descriptors(member.pid)]
    assert not [target for target in held if "forkserver-state" in target or "forkserver-answer" in target]


def test_an_upgrade_reads_the_settings_again(program: StartProgram, tmp_path: Path, site: PackageCopy) -> None:
    server = program("raw:app", environ=site.environ)
    (tmp_path / "forkserver.toml").write_text("workers = 3\n")
    upgrade(server)
    assert len(server.workers()) == 3
