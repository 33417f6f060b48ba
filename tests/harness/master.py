"""A whole master whose children are played by the test: real channels and listeners, no process, and a clock to set.

``Service`` puts a master together by its builder. Its template and workers are ``Child``: each has the real other end
of its channel, does what it is told as soon as ``settle`` is called, and ends when the test says so.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from forkserver.config import loading
from forkserver.ipc import messages
from forkserver.ipc.channel import Channel, close_all
from forkserver.ipc.scoreboard import BUSY_SINCE, ROW_WORDS
from forkserver.linux import signals
from forkserver.linux.signals import BlockedSignals, Received
from forkserver.linux.systemd import Notifier
from forkserver.linux.terminal import Terminal
from forkserver.logs.error_log import ErrorLog
from forkserver.master import builder
from forkserver.master.model.lifecycle import Process, Template, Worker
from forkserver.master.processes.children import Children, NotOursError
from forkserver.master.processes.system import System
from forkserver.master.resources.resources import Resources
from forkserver.master.upgrade.new_program import NewProgram
from forkserver.master.upgrade.snapshot import Snapshot
from forkserver.worker.development import file_watcher

FIRST_PID = 2**22 + 1  # above pid_max, proc(5): no process has it
MOST_TURNS = 200


class SentSignals(BlockedSignals):
    """The signals that a test sends. Its descriptor is readable at all times, so no turn waits."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(1, os.EFD_CLOEXEC)
        self._sent: list[Received] = []

    def send(self, signum: signal.Signals, from_kernel: bool = False) -> None:
        self._sent.append(Received(signum, 0, 0, from_kernel))

    def take(self) -> list[Received]:
        taken, self._sent = self._sent, []
        return taken


class PlayedChildren(Children):
    """Children that are no processes: what is sent to one is noted, and ``changed`` is what became of them."""

    def __init__(self) -> None:
        super().__init__()
        self.pids: dict[Process, int] = {}
        self.sent: list[tuple[int, int]] = []  # pid and signal
        self.changed: list[tuple[int, int]] = []  # pid and wait status
        self.strangers: set[int] = set()  # pids that are no children of the master's
        self.behind = False

    def hold(self, process: Any, pid: int) -> None:
        if pid in self.strangers:
            raise NotOursError(f"pid {pid} is no child of the master's")
        self.pids[process] = pid

    def note_rights(self, template: Template) -> None:
        """There is no process to look at."""

    def adopt(self, worker: Worker, pid: int, template: Template) -> None:
        self.hold(worker, pid)

    def signal(self, process: Any, signum: int) -> bool:
        if process not in self.pids:
            return False
        self.sent.append((self.pids[process], signum))
        return True

    def signal_group(self, process: Template | Worker, signum: int) -> bool:
        return self.signal(process, signum)

    def release(self, process: Any) -> None:
        self.pids.pop(process, None)

    def reap(self) -> list[tuple[int, int]]:
        changed, self.changed = self.changed, []
        return changed


class Manager(Notifier):
    """A service manager that hears everything."""

    def __init__(self) -> None:
        super().__init__({})
        self.heard: list[str] = []

    def _send(self, message: str, *_: Any, **__: Any) -> bool:
        self.heard.append(message)
        return True


class Child:
    """A template, or a worker in ``row``, played by a test. ``orders`` is all that it was told."""

    def __init__(self, pid: int, channel: Channel, row: int | None = None) -> None:
        self.pid = pid
        self.row = row
        self.orders: list[messages.Message] = []
        self.closed = False
        self._hung_up = False  # the master
        self._channel = channel
        channel.setblocking(False)

    def report(self, message: messages.Message) -> None:
        assert self._channel.send(message)

    def hear(self) -> Iterator[tuple[messages.Message, tuple[int, ...]]]:
        """The orders that have come since the last time, with the descriptors beside them."""
        try:
            while not (self.closed or self._hung_up) and (arrival := self._channel.receive()):
                self.orders.append(arrival.message)
                yield arrival.message, arrival.descriptors
        except EOFError:
            self._hung_up = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._channel.close()


class Service:
    """A master in ``folder``, with the settings of its forkserver.toml; ``snapshot`` is of a program before."""

    def __init__(self, folder: Path, snapshot: Snapshot | None = None, **more: str) -> None:
        self.folder = folder
        self.now = 1000.0
        self.obedient = True
        self.templates: list[Child] = []
        self.workers: list[Child] = []
        self.held: set[int] = set()  # pids that no signal ends
        self.signals, self.children, self.manager = SentSignals(), PlayedChildren(), Manager()
        self.configure(**more)
        settings = loading.load(["--config", str(folder / "forkserver.toml")], {})
        log = ErrorLog(settings.error_log, settings.log_level)
        argv = ["--config", str(folder / "forkserver.toml")]
        self.resources = Resources(settings, log, argv, {}, self.manager)
        self._pids = itertools.count(FIRST_PID + len(snapshot.channels) if snapshot else FIRST_PID)
        terminal = Terminal(False)
        system = System(self.signals, terminal, self.manager, self.children, self._fork, lambda: self.now)
        command = NewProgram(["/no/such/python"], {}, str(folder))
        self.master = builder.assemble(system, self.resources, command, snapshot)
        self.fleet = self.master._fleet
        self.rollout = self.master._rollout

    def configure(self, **more: str) -> None:
        """Write the settings that a start or a reload reads."""
        lines = {
            "app": "m:a",
            "bind": "127.0.0.1:0",
            "workers": "2",
            "control_socket": "off",
            "error_log": str(self.folder / "error.log"),
            "log_level": "debug",
            **more,
        }
        text = "".join(f'{name} = "{value}"\n' for name, value in lines.items())
        (self.folder / "forkserver.toml").write_text(text)

    def _fork(self, main: signals.Main) -> int:
        assert isinstance(main, partial)
        if main.func is file_watcher.main:
            return next(self._pids)
        _, end, _ = main.args
        self.templates.append(Child(next(self._pids), Channel.of([os.dup(each) for each in end.descriptors()])))
        return self.templates[-1].pid

    # What happens

    def turn(self) -> None:
        """One turn of the master's loop; children then do what it has told them."""
        self.master.turn()
        for child in (*self.templates, *self.workers):
            for order, descriptors in child.hear():
                if isinstance(order, messages.Spawn):
                    self._spawn(child, order, descriptors)
                    continue
                close_all(descriptors)
                if self.obedient:
                    self._obey(child, order)
            if not child.closed and (signum := self._ended_by(child.pid)):
                self.end(child, signum)

    def _ended_by(self, pid: int) -> int:
        """The signal that ends a child: SIGKILL, and one that tells it to leave, which an obedient child heeds."""
        if pid in self.held:
            return 0
        ends = {signal.SIGKILL, *((signals.LEAVE, signals.LEAVE_NOW) if self.obedient else ())}
        return next((signum for to, signum in self.children.sent if to == pid and signum in ends), 0)

    def _spawn(self, template: Child, order: messages.Spawn, descriptors: tuple[int, ...]) -> None:
        worker = Child(next(self._pids), Channel.of(descriptors), order.row)
        self.workers.append(worker)
        if self.obedient:
            template.report(messages.Forked(order.row, worker.pid))
            worker.report(messages.Hello())
            worker.report(messages.Loaded())

    def _obey(self, child: Child, order: messages.Message) -> None:
        match order:
            case messages.Serve():
                child.report(messages.Ready())
            case messages.Retire():
                self.end(child)
            case messages.LogFiles():
                child.report(messages.LogsAdopted())
            case messages.ShowStacks(serial):
                child.report(messages.Stacks(serial, "Thread main"))

    def end(self, child: Child, status: int = 0) -> None:
        """``child`` ends with a wait status: 0, a signal's number, or 256 times an exit status."""
        child.close()
        self.children.changed.append((child.pid, status))

    def until(self, reached: Callable[[], object]) -> None:
        """Turns of the loop until ``reached`` is true."""
        for _ in range(MOST_TURNS):
            if reached():
                return
            self.turn()
        raise AssertionError(f"not reached within {MOST_TURNS} turns: {self.said()}")

    def serve(self) -> None:
        """Start, until every worker serves."""
        self.until(lambda: self.templates)
        self.templates[-1].report(messages.Loaded())
        self.until(lambda: self.rollout.whole() and self.rollout.was_ready)

    def reload(self) -> None:
        """A HUP, until its generation serves and nothing of the old one is left."""
        templates, old = len(self.templates), self.pids()
        self.signals.send(signal.SIGHUP)
        self.until(lambda: len(self.templates) > templates)
        self.templates[-1].report(messages.Loaded())
        self.until(lambda: self.rollout.settled and not set(self.pids()) & set(old))

    # What can be seen

    def busy(self, child: Child, line: bytes, seconds: float) -> None:
        """A call has begun in ``child`` so many ``seconds`` ago."""
        row = self.master._dispatch._table[self.worker(child.pid)]
        row.begin(line)
        row.words[ROW_WORDS + BUSY_SINCE] = int((self.now - seconds) * 1e9)

    def worker(self, pid: int) -> Worker:
        (found,) = [each for each in self.fleet.workers if each.pid == pid]
        return found

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.fleet.workers]

    def said(self) -> str:
        """The error log."""
        return (self.folder / "error.log").read_text()

    def close(self) -> None:
        """Give everything back."""
        for child in (*self.templates, *self.workers):
            child.close()
        processes = self.master._dispatch
        for end in self.master._actions._launcher.handoff:
            os.close(end)
        processes._poller.close()
        self.master._watcher.close()
        self.resources.tidy()
        self.resources.log.close()
        self.resources.access.close()
        self.signals.close()
        boards = {each.board.fd for each in processes._table._configs._known.values()} | {self.resources.board.fd}
        for board in boards:
            os.close(board)
        self.__dict__.clear()  # the memory of a scoreboard goes with the last that knows it


class MakeService(Protocol):
    """Makes a service that is about to start."""

    def __call__(self, snapshot: Snapshot | None = None, **settings: str) -> Service: ...
