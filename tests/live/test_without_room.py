"""A system that gives no threads, no processes, or no /proc: the service goes on, and says what is missing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import needs, processes
from harness.program import APPS, MODULE, LaunchProgram, own_address

PIDS = Path("/sys/fs/cgroup/pids")  # version 1; under version 2 a group with processes has no children


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with a limit of processes and threads, as TasksMax makes it."""
    made = PIDS / f"forkserver-tests-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    yield made
    processes.children()  # reaps the ended ones, which count until then
    processes.end({int(pid) for pid in (made / "cgroup.procs").read_text().split()})
    made.rmdir()


@pytest.mark.as_root
def test_a_full_control_group_costs_the_background_thread_and_no_request(launch: LaunchProgram, group: Path) -> None:
    """171 of 200 requests were closed unanswered; a reload says why it has no process, and ends."""
    host, port = own_address()
    enter = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *MODULE)
    server = launch(
        *("--pythonpath", str(APPS), "-w", "2", "-b", f"{host}:{port}", "--boot-timeout", "5", "raw:app"), command=enter
    )
    server.address = (host, port)
    server.wait_ready()
    (group / "pids.max").write_text((group / "pids.current").read_text())
    for _ in range(8):
        with server.connect() as wire:
            assert wire.get().status == 200
    server.log.wait(r"can't start new thread \(pids.max of control group .* the worker serves without its background")
    since = server.log.mark()
    server.send(signal.SIGHUP)
    server.log.wait(r"no new process: cannot fork a template: .* \(pids.max of control group .* is 4, and 4 run", since)
    server.log.wait("reload failed: the system has given no process for boot_timeout", since)
    (group / "pids.max").write_text("max")
    server.reload()
    assert server.stop() == 0


@pytest.mark.as_root
def test_without_proc_it_serves_and_says_what_it_cannot_see(launch: LaunchProgram, tmp_path: Path) -> None:
    needs.namespaces()
    (tmp_path / "mysite.py").write_text("from forkserver import demo_app as app\n")
    host, port = own_address()
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh", *MODULE)
    server = launch("-w", "2", "-b", f"{host}:{port}", "mysite:app", command=hidden)
    server.address = (host, port)
    server.wait_ready()
    server.log.wait("because /proc/self/fd cannot be read .* mount proc at /proc")
    server.log.wait("/proc is not mounted, so the memory and the names of processes are unknown")
    with server.connect() as wire:
        assert wire.get().status == 200
    server.reload()
    assert server.problems() == []
    assert server.stop() == 0
