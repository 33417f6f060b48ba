"""What a worker makes of orders and signals, without a fork: its server is a stand-in that notes what it is told."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.config import settings as table
from forkserver.errors import LoadError
from forkserver.ipc import messages
from forkserver.ipc.channel import Channel, MasterChannel, close_all
from forkserver.ipc.messages import Message
from forkserver.ipc.scoreboard import Scoreboard
from forkserver.linux import signals
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.loading.loader import Code
from forkserver.worker.serving import Serving, WorkerConfig, WorkerOrders
from forkserver.worker.user_hooks import UserHooks
from forkserver.worker.worker import WorkerProcess

BOARD = Scoreboard(1)  # lives as long as the master, here as long as the tests


class Noted:
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


class Server:
    """Notes what it is told. Its status for ready_path is ``answer``, or an exception to raise."""

    answer: int | Exception = 200
    on_due_for_recycling: Callable[[str], object]

    def __init__(self, *_: object, **__: object) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.matches = True
        self.watched: dict[int, Callable[[], object]] = {}

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        self.watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]

    def expire(self, thread: int, since: int) -> bool:
        self.told.append(("expire", thread, since))
        return self.matches

    def check(self, path: str) -> int:
        self.told.append(("check", path))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.told.append((name, *arguments))


class Desk:
    """A worker, the master's end of its channel, and its signals."""

    def __init__(self, log: ErrorLog, **changes: Any) -> None:
        self.log = log
        self.noted = Noted()
        self.master, end = MasterChannel.pair()
        self.channel = Channel.of([os.dup(number) for number in end.descriptors()])
        end.orders.close()
        settings = table.defaults(app="raw:app", **changes)
        self.code = Code(lambda environ, start: [], Server, object, UserHooks({}))  # type: ignore[arg-type]
        self.worker_config = WorkerConfig(settings, 1, 0, BOARD[0], BOARD, log, AccessLog(None), self.code)

    def wait(self) -> WorkerOrders | None:
        return WorkerProcess(self.worker_config, self.channel)._wait_for_listeners(self.noted)  # type: ignore[arg-type]

    def serving(self, drain: bool = False, maintenance: bool = False) -> Server:
        self.channel.setblocking(False)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            given = WorkerOrders([(1, listener)], None, drain, maintenance)
            self.worker = Serving(self.worker_config, self.channel, self.noted, self.code, given)  # type: ignore[arg-type]
        server = self.worker.httpd
        assert isinstance(server, Server)
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


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Desk]]:
    # It could not be taken back, and other tests fork.
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    log = ErrorLog(str(tmp_path / "log"), "debug", "worker=1 gen=1")
    made: list[Desk] = []

    def start(**changes: Any) -> Desk:
        made.append(Desk(log, **changes))
        return made[-1]

    yield start
    for each in made:
        each.close()
    os.close(log.fileno())


# Until it is told to serve


def test_listeners_come_with_their_numbers_and_the_ends_of_the_queue(handlers: Callable[..., Desk]) -> None:
    waiting = handlers()
    give, take = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ends = [one.fileno(), two.fileno(), give, take]
        waiting.master.send(messages.Serve(siblings=True, maintenance=False, numbers="7,-9"), ends)
        given = waiting.wait()
        assert given is not None
        addresses = [(number, listener.getsockname()) for number, listener in given.listeners]
        assert addresses == [(7, one.getsockname()), (-9, two.getsockname())]
    assert given.handoff is not None
    pairs = zip(given.handoff, (give, take), strict=True)
    assert all(os.path.sameopenfile(ours, theirs) for ours, theirs in pairs)
    for _, listener in given.listeners:
        listener.close()
    close_all((*given.handoff, give, take))


def test_a_stop_announced_before_is_remembered(handlers: Callable[..., Desk]) -> None:
    """It would otherwise be the one worker that keeps clients for the next second."""
    waiting = handlers()
    waiting.master.send(messages.Drain())
    waiting.master.send(messages.Drop(3))
    with socket.create_server(("127.0.0.1", 0)) as one:
        waiting.master.send(messages.Serve(siblings=True, maintenance=False, numbers="1"), [one.fileno()])
        given = waiting.wait()
    assert given is not None
    assert (given.drain, given.handoff) == (True, None)
    given.listeners[0][1].close()
    assert ("drain",) in waiting.serving(drain=True).told


@pytest.mark.parametrize("number", [signals.LEAVE, signals.LEAVE_NOW])
def test_a_signal_of_the_masters_ends_the_waiting(handlers: Callable[..., Desk], number: int) -> None:
    waiting = handlers()
    waiting.noted.send(number)
    assert waiting.wait() is None


def test_an_order_to_retire_ends_the_waiting(handlers: Callable[..., Desk]) -> None:
    waiting = handlers()
    waiting.master.send(messages.Retire(1.0, handoff=True))
    assert waiting.wait() is None


def test_the_end_of_the_master_ends_the_waiting(handlers: Callable[..., Desk]) -> None:
    waiting = handlers()
    waiting.master.close()
    assert waiting.wait() is None


# While it serves


@pytest.mark.parametrize("matches", [True, False])
def test_who_hears_that_a_call_is_too_long_says_so(handlers: Callable[..., Desk], matches: bool) -> None:
    """Who does not is stopped, or stuck in C code, and is killed. The call may have ended by itself meanwhile."""
    here = handlers()
    server = here.serving()
    server.matches = matches
    here.order(messages.Expire(0, 41))
    assert server.told == [("expire", 0, 41)]
    assert here.reports() == [messages.Expiring(0, 41)]


def test_a_worker_that_is_spent_says_so_and_serves_on(handlers: Callable[..., Desk]) -> None:
    """When it is replaced is the master's decision."""
    here = handlers()
    server = here.serving()
    server.on_due_for_recycling("it has served 1000 requests")
    assert here.reports() == [messages.RecyclingDue("it has served 1000 requests")]
    assert server.told == []


def test_orders_that_are_for_the_server_reach_it(handlers: Callable[..., Desk]) -> None:
    here = handlers()
    server = here.serving()
    here.order(messages.Drain(), messages.Drop(5), messages.Retire(3.0, handoff=True))
    assert server.told == [("drain",), ("drop", 5), ("retire", 3.0, True)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_of_anybody_else_is_told_to_the_master(handlers: Callable[..., Desk], number: signal.Signals) -> None:
    """It may have gone to the whole process group: then the service stops, else this worker is replaced."""
    here = handlers()
    server = here.serving()
    here.signals(number)
    assert server.told == []
    assert here.reports() == [messages.AskedToLeave(number)]


def test_a_reload_of_the_whole_group_is_the_masters_alone(handlers: Callable[..., Desk]) -> None:
    here = handlers()
    server = here.serving()
    here.signals(signal.SIGHUP)
    assert server.told == here.reports() == []


def test_the_masters_signal_to_leave_does_not_bring_siblings_back(handlers: Callable[..., Desk]) -> None:
    """It comes beside the order, which has said that nobody is left."""
    here = handlers(graceful_timeout=7.0)
    server = here.serving()
    here.order(messages.Retire(3.0, handoff=False))
    here.signals(signals.LEAVE)
    assert server.told == [("retire", 3.0, False), ("retire", 7.0, False)]


def test_a_quick_end_is_quick(handlers: Callable[..., Desk]) -> None:
    here = handlers()
    server = here.serving()
    here.signals(signals.LEAVE_NOW)
    assert server.told == [("close_now",)]


def test_without_a_master_a_signal_ends_a_worker(handlers: Callable[..., Desk]) -> None:
    """Nobody else is left to decide."""
    here = handlers(graceful_timeout=7.0)
    server = here.serving()
    here.master.close()
    here.worker._hear()
    here.signals(signal.SIGTERM, signal.SIGINT)
    assert server.told == [("retire", 7.0, False), ("close_now",)]


def test_a_worker_does_not_leave_before_it_has_heard_every_order(handlers: Callable[..., Desk]) -> None:
    """What it handed on a moment ago may be for it to take back: the siblings leave, too."""
    made = handlers()
    made.serving()
    assert not made.worker._has_orders()
    assert made.master.send(messages.Retire(1.0, handoff=False))
    assert made.worker._has_orders()
    made.order()
    assert not made.worker._has_orders()
    made.worker.alone = True
    assert not made.worker._has_orders()


def test_without_a_master_nobody_takes_connections_over(handlers: Callable[..., Desk]) -> None:
    """Every sibling sees the same end at the same time."""
    here = handlers(graceful_timeout=7.0)
    server = here.serving()
    number = here.channel.fileno()
    here.master.close()
    here.worker._hear()
    assert server.told == [("retire", 7.0, False)]
    assert number not in server.watched


@pytest.mark.parametrize("status", [200, 204, 302, 399])
def test_a_good_answer_to_ready_path(handlers: Callable[..., Desk], status: int) -> None:
    here = handlers(ready_path="/healthz")
    server = here.serving()
    server.answer = status
    here.worker.check()
    assert server.told == [("check", "/healthz")]


@pytest.mark.parametrize("answer", [199, 400, 503, ConnectionError("no answer")])
def test_a_bad_answer_to_ready_path(handlers: Callable[..., Desk], answer: int | Exception) -> None:
    here = handlers(ready_path="/healthz")
    here.serving().answer = answer
    with pytest.raises(LoadError, match=f"ready_path '/healthz' was (not )?answered.*{answer}"):
        here.worker.check()


def test_without_ready_path_nothing_is_asked(handlers: Callable[..., Desk]) -> None:
    here = handlers()
    server = here.serving()
    here.worker.check()
    assert server.told == []


def test_maintenance_holds_from_the_first_request_on(handlers: Callable[..., Desk]) -> None:
    """A worker that is born meanwhile must not answer one request with the application before it hears of it."""
    waiting = handlers()
    waiting.master.send(messages.Maintain(on=False))  # overtaken by what the order to serve says
    with socket.create_server(("127.0.0.1", 0)) as one:
        waiting.master.send(messages.Serve(siblings=True, maintenance=True, numbers="1"), [one.fileno()])
        given = waiting.wait()
    assert given is not None
    assert given.maintenance
    given.listeners[0][1].close()
    assert ("maintain", True) in waiting.serving(maintenance=True).told


def test_maintenance_is_switched_at_any_time(handlers: Callable[..., Desk]) -> None:
    here = handlers()
    server = here.serving()
    here.order(messages.Maintain(on=True), messages.Maintain(on=False))
    assert server.told == [("maintain", True), ("maintain", False)]


def test_what_an_application_forks_gives_back_what_is_ours_once(
    handlers: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that forks in its turn has files of its own under the same numbers, and handlers of its own."""
    here = handlers()
    server = here.serving()
    reset: list[bool] = []
    monkeypatch.setattr(signals, "default", lambda: reset.append(True))
    numbers = (here.noted._wake, here.noted._woken)
    with open(os.devnull, "rb") as file:
        here.worker._forget()
        for number in numbers:
            os.dup2(file.fileno(), number)
        here.worker._forget()
        for number in numbers:
            os.fstat(number)
    assert server.told == [("after_fork",), ("forget",), ("after_fork",)]
    assert reset == [True]
    assert here.channel.fileno() == -1


def test_a_fault_while_it_is_given_back_keeps_nothing_else(
    handlers: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket of a get_request of the user's may raise when it is closed."""
    here = handlers()
    server = here.serving()
    reset: list[bool] = []
    monkeypatch.setattr(signals, "default", lambda: reset.append(True))

    def forget() -> None:
        raise RuntimeError("oops")

    server.forget = forget  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="oops"):
        here.worker._forget()
    assert here.channel.fileno() == -1
    assert reset == [True]
    here.noted = Noted()


def test_stacks_are_reported_with_the_number_of_the_question(handlers: Callable[..., Desk]) -> None:
    """Two people may ask at once."""
    here = handlers()
    here.serving()
    here.order(messages.ShowStacks(serial=7))
    report = here.master.receive()
    assert isinstance(report, messages.Stacks)
    assert report.serial == 7
    assert "test_stacks_are_reported" in report.text
