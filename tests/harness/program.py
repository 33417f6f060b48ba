"""The real program, started as systemd would start it: listeners passed in, READY=1 waited for."""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from forkserver.config.accelerator import VARIABLE
from harness import BOUND, processes
from harness.clients import Address, Wire
from harness.journal import Journal, Manager, from_lines

APPS = Path(__file__).parents[1] / "apps"
ACTIVATE = Path(__file__).with_name("activate.py")
READY = r"(?m)^READY=1$"
MODULE = (sys.executable, "-m", "forkserver")
# Settings of the user that runs the tests must not reach the program under test.
FOREIGN = (
    "FORKSERVER_", "GUNICORN_", "LISTEN_", "NOTIFY_", "WATCHDOG_", "PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS",
    "PYTHONWARNINGS", "PYTHONUNBUFFERED",
)  # fmt: skip


def clean_environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    if VARIABLE in os.environ:  # so that the tests can be run with the extension and without it
        kept[VARIABLE] = os.environ[VARIABLE]
    # A test rewrites a module twice within a second; a .pyc could not tell the two apart.
    return kept | {"PYTHONDONTWRITEBYTECODE": "1", "XDG_RUNTIME_DIR": _runtime_folder(), **more}


@functools.cache
def _runtime_folder() -> str:
    """Where programs under test have their control sockets; short, for paths of sockets are."""
    made = tempfile.mkdtemp(prefix="fs-", dir="/tmp")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def listener(address: Address = ("127.0.0.1", 0)) -> socket.socket:
    """A listening socket, as a .socket unit makes it. A str is the path of a Unix socket."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    made = socket.socket(family)
    made.bind(address)
    made.listen(1024)
    return made


def own_address() -> tuple[str, int]:
    """A loopback address that no other process uses: all of 127.0.0.0/8 is ours, so our pid makes it unique."""
    pid = os.getpid()
    return f"127.{64 + (pid >> 16) % 64}.{pid >> 8 & 255}.{pid & 255}", 8000


class Program:
    """One run of the program; ``log`` is its stderr, ``output`` its stdout, ``said`` what it told systemd."""

    def __init__(
        self,
        arguments: Iterable[str],
        *,
        cwd: Path,
        listeners: Iterable[socket.socket] = (),
        environ: Mapping[str, str] | None = None,
        command: Iterable[str] = MODULE,
        address: Address = "",
        own_group: bool = False,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        given = [made.fileno() for made in listeners]
        self.address: Any = address  # (host, port), or the path of a Unix socket
        self.manager = Manager()
        self.said: Journal = self.manager.said
        launch = [sys.executable, "-I", "-S", str(ACTIVATE), ",".join(map(str, given)), *command, *arguments]
        self.process = subprocess.Popen(
            launch,
            cwd=cwd,
            env=clean_environment(NOTIFY_SOCKET=self.manager.address, **(environ or {})),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=given,
            process_group=0 if own_group else None,
        )
        # When the last process has closed the log, nothing can be said any more either.
        self.log = from_lines("the error log", _taken(self.process.stderr), then=self.said.end)
        self.output = from_lines("the output", _taken(self.process.stdout))

    @property
    def pid(self) -> int:
        return self.process.pid

    def connect(self) -> Wire:
        return Wire(self.address)

    def wait_ready(self) -> Program:
        """Return when the program has said READY=1; AssertionError with its log where it ended instead."""
        try:
            self.said.wait(READY)
        except AssertionError as error:
            raise AssertionError(f"{error}\nThe error log:\n{self.log.text()}") from None
        return self

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def send_to_group(self, number: signal.Signals) -> None:
        """As a terminal, `timeout` or a process manager does; for a program with ``own_group``."""
        assert os.getpgid(self.pid) == self.pid
        os.killpg(self.pid, number)

    def problems(self) -> list[str]:
        """What the log holds of level error and above."""
        return [each.text for each in self.log.entries if re.match(r"(\S+ )?(error|critical) ", each.text)]

    def wait(self, seconds: float = BOUND) -> int:
        """The exit status; AssertionError where the program does not end."""
        assert processes.wait_gone(self.pid, seconds), f"the program does not end; its log:\n{self.log.text()}"
        return self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send(number)
        return self.wait()

    def family(self) -> list[processes.Member]:
        return processes.family(self.pid)

    def workers(self, generation: int | None = None) -> list[processes.Member]:
        return [
            member for member in self.family() if member.role == "worker" and generation in (None, member.generation)
        ]

    def template(self) -> processes.Member:
        found = [member for member in self.family() if member.role == "template"]
        assert len(found) == 1, self.family()
        return found[0]

    def reload(self) -> None:
        """HUP, and wait until the generation that it loads serves: one that was coming before may be told of, too."""
        since = self.log.mark()
        self.send(signal.SIGHUP)
        loading = self.log.wait(r"reload: loading generation \d+", since)
        self.log.wait(rf"generation {loading.text.split()[-1]} serves", since)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition`` holds, looking again after each line of the log."""
        self.log.until(condition, what)

    def close(self) -> None:
        """End what still runs; a test that passed has stopped its program before, or lets it be stopped here."""
        if self.process.poll() is None:
            below = {member.pid for member in self.family()}
            self.send(signal.SIGQUIT)
            if not processes.wait_gone(self.pid, 10):
                processes.end({self.pid})
            self.process.wait()
            processes.end({pid for pid in below if not processes.wait_gone(pid, 10)})
        self.manager.close()
        self.log.join()
        self.output.join()


class LaunchProgram(Protocol):
    """The fixture ``launch``."""

    def __call__(self, *arguments: str, **more: Any) -> Program: ...


class StartProgram(Protocol):
    """The fixture ``program``."""

    def __call__(self, app: str = "raw:app", *arguments: str, **more: Any) -> Program: ...


def _taken(stream: object) -> int:
    """The stream's descriptor, for a reader of its own; Popen keeps none."""
    assert hasattr(stream, "fileno")
    descriptor = os.dup(stream.fileno())
    stream.close()  # type: ignore[attr-defined]
    return descriptor
