"""Root's master beside an application with a user of its own, whose processes have the pipes of its logs as well."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import BOUND, processes, reach
from harness.clients import get
from harness.controlled import ControlledProgram
from harness.program import APPS, LaunchProgram, Program

pytestmark = [pytest.mark.permission, pytest.mark.as_root]
WRITER = "forkserver: log writer ["


@pytest.fixture
def folder() -> Iterator[Path]:
    with reach.public_folder() as made:
        for name in ("raw.py", "holding.py"):
            shutil.copy(APPS / name, made)
        yield made


@pytest.fixture
def holders() -> Iterator[set[int]]:
    """Pids of processes that hold a pipe, which end with the test."""
    pids: set[int] = set()
    yield pids
    processes.end(pids)


class Service:
    def __init__(self, launch: LaunchProgram, folder: Path) -> None:
        self.launch, self.folder = launch, folder
        self.address, self.control = f"{folder}/app.sock", f"{folder}/control.sock"

    def start(self, *arguments: str, app: str = "raw:app", user: str = "nobody", **more: Any) -> ControlledProgram:
        ends = ("-b", f"unix:{self.address}", "--control-socket", self.control)
        command = reach.command(self.folder)
        server = self.launch("--user", user, *ends, *arguments, app, cwd=self.folder, command=command, **more)
        return ControlledProgram(server, self.control)

    def ready(self, *arguments: str, **more: Any) -> ControlledProgram:
        server = self.start(*arguments, **more)
        server.program.wait_ready()
        return server


@pytest.fixture
def service(launch: LaunchProgram, folder: Path) -> Service:
    return Service(launch, folder)


def writers(server: Program) -> list[int]:
    children = psutil.Process(server.pid).children()
    return [child.pid for child in children if processes.title(child.pid).startswith(WRITER)]


def until(condition: Callable[[], bool], otherwise: str) -> None:
    """Look again and again: what is awaited is told nowhere while the pipe is held."""
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def waits_in_the_kernel(pid: int) -> None:
    """Return once ``pid`` waits where no signal ends it."""
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_DISK_SLEEP, f"{pid} does not wait for the pipe")


def messages(server: Program) -> list[str]:
    return [re.sub(r"^\S+ \w+ master pid=\d+ ", "", each.text) for each in server.log.entries]


def test_a_process_of_the_application_that_holds_the_pipe_stops_no_master(service: Service, holders: set[int]) -> None:
    """Status, reload, upgrade and stop, while a process that outlives them all has the pipe's lock."""
    server = service.ready("-w", "2", app="holding:app")
    (writer,) = writers(server.program)
    holder = int(get(service.address, "/hold").text)
    holders.add(holder)
    server.program.send(signal.SIGUSR1)  # which has lines to write
    waits_in_the_kernel(writer)
    assert server.do("status")["log_writer"] == writer
    server.do("reload", wait=True)
    assert get(service.address).text == "served"
    server.program.send(signal.SIGUSR2)
    server.program.said.wait("(?m)^STATUS=generation 3 serves")
    assert server.do("status")["generation"] == 3
    assert get(service.address).text == "served"
    assert server.program.stop() == 0
    processes.end(holders)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_nor_does_one_that_holds_the_pipe_of_the_access_log_where_the_error_log_is_a_socket(
    service: Service, folder: Path, holders: set[int], end: signal.Signals
) -> None:
    """The master's last close of it would wait: where a reload turns it off, at the execve of an upgrade, at its end.

    A worker that writes there may wait, too, and is left behind by the reload and by the stop.
    """
    config = folder / "forkserver.toml"
    config.write_text('access_log = "-"\n')
    options = ("-w", "2", "--graceful-timeout", "1", "--config", str(config))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(f"{folder}/dev-log")
        server = service.start(*options, "--error-log", f"syslog:{folder}/dev-log", app="holding:app")
        server.program.said.wait("(?m)^STATUS=generation 1 serves")
        (writer,) = writers(server.program)
        assert server.do("status")["log_writer"] == writer
        holders.add(int(get(service.address, "/hold-output").text))
        config.write_text("")
        server.do("reload", wait=True)
        if end == signal.SIGUSR2:
            server.program.send(end)
            server.program.said.wait("(?m)^STATUS=generation 3 serves")
        assert server.do("status")["log_writer"] == writer
        assert get(service.address).text == "served"
        if end == signal.SIGKILL:
            server.program.send(end)
            assert server.program.wait() == -end
        else:
            assert server.program.stop() == 0
        processes.end(holders)
        assert processes.wait_gone(writer), "only now: its own last close may have waited"


def test_lines_that_wait_for_the_pipe_come_in_order_once_it_is_free(service: Service, holders: set[int]) -> None:
    server = service.ready(app="holding:app")
    holders.add(int(get(service.address, "/hold").text))
    server.do("reload", wait=True)
    server.do("reload", wait=True)
    processes.end(holders)
    server.program.log.wait("generation 3 serves")
    assert server.program.stop() == 0
    server.program.log.join()
    told = [text for text in messages(server.program) if re.match("reload: loading|generation|stopped", text)]
    assert told == [
        "reload: loading generation 2",
        "generation 2 serves: 1 worker",
        "reload: loading generation 3",
        "generation 3 serves: 1 worker",
        "stopped",
    ]


def test_lines_come_in_order_over_a_rotation_an_upgrade_and_a_stop(service: Service) -> None:
    server = service.ready()
    program = server.program
    before = writers(program)
    program.send(signal.SIGUSR1)
    program.log.wait("log files are opened again")
    program.send(signal.SIGUSR2)
    program.log.wait("generation 2 serves")
    assert writers(program) == before, "the next program goes on with it"
    assert program.stop() == 0
    program.log.join()
    assert "missing" not in program.log.text()
    wanted = (
        "serving raw:app", "log files are opened again", "upgrade: trying", "upgrade: forkserver .* takes over",
        "upgraded to", "reload: loading generation 2", "generation 2 serves", "stopping:", "stopped",
    )  # fmt: skip
    since = 0
    for pattern in wanted:
        found = [at for at, text in enumerate(messages(program)) if at >= since and re.match(pattern, text)]
        assert found, f"no {pattern!r} from line {since} on of\n{program.log.text()}"
        since = found[0]


def test_a_rotated_file_gets_a_writer_of_its_own(service: Service, folder: Path) -> None:
    log = folder / "error.log"
    server = service.ready("--error-log", str(log))
    (before,) = writers(server.program)
    log.rename(folder / "error.log.1")
    server.program.send(signal.SIGUSR1)
    assert processes.wait_gone(before)
    server.do("reload", wait=True)
    assert server.do("status")["log_writer"] not in (before, None)
    assert server.program.stop() == 0
    assert "serving raw:app" in (folder / "error.log.1").read_text()
    assert [line.split(" ", 4)[4] for line in log.read_text().splitlines()][-1] == "stopped"


def test_a_writer_that_is_killed_is_replaced_and_no_line_is_lost(service: Service) -> None:
    server = service.ready()
    (before,) = writers(server.program)
    os.kill(before, signal.SIGKILL)
    server.program.log.wait(rf"the log writer, pid {before}, has ended: killed by SIGKILL")
    assert server.do("status")["log_writer"] not in (before, None)
    assert server.program.stop() == 0
    server.program.log.wait("stopped")


def test_no_process_of_the_application_has_the_queue(service: Service) -> None:
    """What wrote there would write as root's master."""
    server = service.ready("-w", "2").program
    (writer,) = writers(server)
    ours = {shown for shown in processes.descriptors(writer).values() if shown.startswith("socket:")}
    assert len(ours) == 1
    queue = {shown for shown in processes.descriptors(server.pid).values() if shown in ours}
    assert queue == ours
    for member in server.family():
        assert not ours & set(processes.descriptors(member.pid).values())


def test_a_start_that_fails_ends_although_the_import_has_held_the_pipe(
    service: Service, folder: Path, holders: set[int]
) -> None:
    at_import = folder / "holder"
    at_import.touch()
    at_import.chmod(0o666)
    server = service.start(app="holding:app", environ={"HOLDS_AT_IMPORT": str(at_import)}).program
    assert server.wait() != 0
    holders.add(int(at_import.read_text()))
    processes.end(holders)


def test_a_start_that_fails_says_why_last(service: Service, folder: Path) -> None:
    (folder / "broken.py").write_text("raise ValueError('no such thing')\n")
    server = service.start(app="broken:app").program
    assert server.wait() != 0
    server.log.join()
    assert server.log.entries[-1].text.startswith("forkserver: "), server.log.text()
    assert server.log.text().count("Traceback") == 1


def test_a_master_of_the_applications_own_user_writes_itself(service: Service) -> None:
    """It can be ended by the application anyway; nothing is gained by another process."""
    server = service.ready(user="root")
    assert writers(server.program) == []
    assert server.do("status")["log_writer"] is None
    assert server.program.stop() == 0
