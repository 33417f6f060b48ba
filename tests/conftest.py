"""Fixtures for all tests, and the rule that a test leaves no process and no descriptor behind."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.config.accelerator import accelerator, is_on
from harness import processes
from harness.gate import Gate
from harness.program import APPS, LaunchProgram, Program, StartProgram, listener

STRICT = "FORKSERVER_CI"  # set by .ci/run


def pytest_configure() -> None:
    processes.adopt_orphans()
    # A script's job in the background has it ignored, and so would each program have that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests for another kind of user, or of what is switched off, are left out: they have no meaning here."""
    others = ["as_user" if os.geteuid() == 0 else "as_root"]
    if not is_on():
        others.append("extension")
    elif accelerator() != "C":
        missing = pytest.mark.skip(reason="the extension was not built: is there a C compiler?")
        for item in items:
            if item.get_closest_marker("extension"):
                item.add_marker(missing)
    left_out = [item for item in items if any(map(item.get_closest_marker, others))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish() -> None:
    """Leave modules and items out of each garbage collection, and of each search of the heap: they stay to the end."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """CI installs all that a test may need; a skip there is a promise that nobody looked at, so the run fails."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get(STRICT) and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line(f"{STRICT} is set, and tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    processes_before, descriptors_before = processes.children(), processes.descriptors(os.getpid())
    yield
    strays = processes.children() - processes_before
    shown = {pid: processes.title(pid) for pid in strays}
    processes.end(strays)
    assert not strays, f"processes left behind: {shown}"
    if processes.descriptors(os.getpid()) != descriptors_before:
        gc.collect()  # only now: it costs more than most tests
    after = processes.descriptors(os.getpid())
    opened = {number: path for number, path in after.items() if descriptors_before.get(number) != path}
    assert not opened, f"descriptors left open: {opened}"


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[LaunchProgram]:
    """Start the program with any arguments and wait for nothing: for a start that should fail, or own listeners."""
    started: list[Program] = []

    def start(*arguments: str, **more: Any) -> Program:
        more.setdefault("cwd", tmp_path)
        started.append(Program(arguments, **more))
        return started[-1]

    yield start
    for each in reversed(started):
        each.close()


@pytest.fixture
def program(launch: LaunchProgram) -> StartProgram:
    """Start the program on a listener passed in as systemd would, and wait for READY=1."""

    def start(app: str = "raw:app", *arguments: str, **more: Any) -> Program:
        with listener(more.pop("listen", ("127.0.0.1", 0))) as made:
            # At this level every worker's start and end is an event to wait for.
            always = ("--log-level", "debug", "--pythonpath", str(APPS))
            server = launch(*always, *arguments, app, listeners=[made], **more)
            server.address = made.getsockname()[:2] if made.family != 1 else made.getsockname()
        return server.wait_ready()

    return start


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.close()
