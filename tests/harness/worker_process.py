"""A worker without a fork: its server and its signals are stand-ins, the master's end of its channel is the test's."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from forkserver.config import settings as table
from forkserver.ipc.channel import Channel, MasterChannel
from forkserver.ipc.messages import Message
from forkserver.ipc.scoreboard import Scoreboard
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.loading.loader import Code
from forkserver.worker.serving import Serving, WorkerConfig, WorkerOrders
from forkserver.worker.user_hooks import HookCalls
from forkserver.worker.worker import WorkerProcess

BOARD = Scoreboard(1)  # lives as long as the master, here as long as the tests


class SentSignals:
    """Signals that the test sends."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self._wake, self._woken = os.pipe()

    def send(self, *numbers: int) -> None:
        self.taken += numbers
        os.write(self._woken, b".")

    def fileno(self) -> int:
        return self._wake

    def take(self) -> list[int]:
        taken, self.taken = self.taken, []
        return taken

    def close(self) -> None:
        os.close(self._wake)
        os.close(self._woken)


class StandInServer:
    """Notes what it is told. Its status for ready_path is ``answer``, or an exception to raise."""

    answer: int | Exception = 200
    on_due_for_recycling: Callable[[str], object]

    def __init__(self, *_: object, **__: object) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.matches = True
        self.call: tuple[str, int | None] = "", None  # client and ident of what a thread has in hand
        self.watched: dict[int, Callable[[], object]] = {}

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        self.watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]

    def expire(self, thread: int, since: int) -> bool:
        self.told.append(("expire", thread, since))
        return self.matches

    def call_of(self, thread: int) -> tuple[str, int | None]:
        return self.call

    def check(self, path: str) -> int:
        self.told.append(("check", path))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.told.append((name, *arguments))


class WorkerUnderTest:
    """A worker, the master's end of its channel, and its signals."""

    def __init__(self, log: ErrorLog, **changes: Any) -> None:
        self.log = log
        self.noted = SentSignals()
        self.master, end = MasterChannel.pair()
        self.channel = Channel.of([os.dup(number) for number in end.descriptors()])
        end.orders.close()
        settings = table.defaults(app="raw:app", **changes)
        self.code = Code(lambda environ, start: [], StandInServer, object, {})  # type: ignore[arg-type]
        self.worker_config = WorkerConfig(settings, 1, 0, BOARD[0], BOARD, log, AccessLog(None), self.code)

    def wait(self) -> WorkerOrders | str:
        return WorkerProcess(self.worker_config, self.channel)._wait_for_listeners(self.noted)  # type: ignore[arg-type]

    def serving(
        self, drain: bool = False, maintenance: bool = False, hooks: dict[str, Any] | None = None
    ) -> StandInServer:
        self.channel.setblocking(False)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            given = WorkerOrders([(1, listener)], None, drain, maintenance)
            self.hook_calls = HookCalls(hooks or {}, self.worker_config.worker(), self.worker_config.row, self.log)
            noted: Any = self.noted
            self.worker = Serving(self.worker_config, self.channel, noted, self.code, given, self.hook_calls)
        server = self.worker.httpd
        assert isinstance(server, StandInServer)
        if not (drain or maintenance):
            server.told.clear()  # what it was told to begin with
        return server

    def order(self, *orders: Message) -> None:
        for order in orders:
            assert self.master.send(order)
        self.worker._hear()

    def signals(self, *numbers: int) -> None:
        self.noted.taken += numbers
        self.worker._heed()

    def reports(self) -> list[Message]:
        found: list[Message] = []
        while (report := self.master.receive()) is not None:
            found.append(report)
        return found

    def close(self) -> None:
        self.noted.close()
        self.master.close()
        self.channel.close()


StartWorker = Callable[..., WorkerUnderTest]
