"""Fixtures for live tests: scripts, asked of both modules (what wsgiref answers, forkserver must), and systemd."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import credentials, needs
from harness.controlled import ControlledProgram, StartControlled
from harness.credentials import Files
from harness.program import APPS, LaunchProgram, Program, StartProgram
from harness.script import Script
from harness.service_manager import ServiceManager
from harness.terminal import Terminal
from harness.upgrading import PackageCopy

MODULES = ("wsgiref.simple_server", "forkserver")


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def manager() -> Iterator[ServiceManager]:
    """One systemd for all tests that need a real one. Root only."""
    for name in ("unshare", "setpriv", "nsenter", "systemctl", "journalctl"):
        needs.program(name)
    needs.namespaces()
    made = ServiceManager()
    yield made
    made.close()


@pytest.fixture
def start(launch: LaunchProgram) -> Callable[..., Program]:
    """Start the program on a listener that outlives it, as a socket unit's does, to be stopped and started again."""

    def started(held: socket.socket, *arguments: str) -> Program:
        always = ("--log-level", "debug", "-w", "2", "--pythonpath", str(APPS))
        server = launch(*always, *arguments, "raw:app", listeners=[held])
        server.address = held.getsockname()
        return server.wait_ready()

    return started


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A certificate and its key."""
    return credentials.write(tmp_path)


@pytest.fixture
def secure(program: StartProgram, files: Files) -> Callable[..., Program]:
    """Start the program with that certificate."""

    def start(*arguments: str, app: str = "raw:app", **more: object) -> Program:
        return program(app, "--certfile", files.certificate, "--keyfile", files.key, *arguments, **more)

    return start


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal that a program can control."""
    made = Terminal()
    yield made
    made.close()


@pytest.fixture
def controlled(program: StartProgram, tmp_path: Path) -> StartControlled:
    def started(*arguments: str, **more: Any) -> ControlledProgram:
        path = str(tmp_path / "control.sock")
        return ControlledProgram(program(*arguments, "--control-socket", path, **more), path)

    return started


@pytest.fixture
def site(tmp_path: Path) -> PackageCopy:
    return PackageCopy(tmp_path / "site")


@pytest.fixture
def script(module: str) -> Iterator[Callable[[str], Script]]:
    started: list[Script] = []

    def start(text: str) -> Script:
        started.append(Script(module, text))
        return started[-1]

    yield start
    for each in started:
        each.close()
