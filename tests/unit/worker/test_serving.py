"""What a worker that serves makes of orders and signals, and what a process gives back that its application forks."""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from forkserver.errors import LoadError
from forkserver.ipc import messages
from forkserver.linux import signals
from forkserver.logs.access_log import AccessLog
from forkserver.server.connection.timeouts import NEVER
from forkserver.server.loop.event_loop import EventLoop
from harness.worker_process import SentSignals, StartWorker


@pytest.mark.parametrize("matches", [True, False])
def test_a_worker_that_hears_that_a_call_is_too_long_says_so(start_worker: StartWorker, matches: bool) -> None:
    """One that does not is stopped, or stuck in C code, and is killed. The call may have ended by itself meanwhile."""
    here = start_worker()
    server = here.serving()
    server.matches = matches
    here.order(messages.Expire(0, 41))
    assert server.told == [("expire", 0, 41)]
    assert here.reports() == [messages.Expiring(0, 41)]


def test_a_call_that_is_too_long_is_told_to_its_hook_before_it_is_interrupted(start_worker: StartWorker) -> None:
    """With all that a report of the application's needs; of one that is over nothing is told."""
    told: list[Any] = []
    here = start_worker()
    here.serving(hooks={"request_timeout": lambda *said: told.append(said)}).call = "192.0.2.7", threading.get_ident()
    row = here.worker_config.row
    row.begin(b"GET /slow?password=x", 0, "an-id")
    since = row.busy().since
    here.order(messages.Expire(0, since - 1), messages.Expire(0, since))
    row.end()
    here.hook_calls.leaving(here.worker.leaves_for, 0)
    ((who, request),) = told
    assert who == here.worker_config.worker()
    assert (request.line, request.id, request.client) == ("GET /slow", "an-id", "192.0.2.7")
    assert "in " in request.stack
    assert here.worker.leaves_for == "timeout"


@pytest.mark.parametrize(
    ("orders", "why"),
    [
        ([messages.Retire(1.0, handoff=True, why="reload")], "reload"),
        ([messages.Expire(0, 41), messages.Retire(1.0, handoff=True, why="reload")], "timeout"),
        ([messages.Retire(1.0, True, "recycled"), messages.Retire(1.0, False, "stop")], "recycled"),
    ],
)
def test_a_worker_knows_why_it_leaves(start_worker: StartWorker, orders: list[messages.Message], why: str) -> None:
    here = start_worker()
    here.serving()
    here.order(*orders)
    assert here.worker.leaves_for == why


def test_a_worker_that_is_told_by_a_signal_or_has_no_master_knows_that(start_worker: StartWorker) -> None:
    here = start_worker()
    here.serving()
    here.signals(signals.LEAVE_NOW)
    assert here.worker.leaves_for == "stop"
    orphan = start_worker()
    orphan.serving()
    orphan.master.close()
    orphan.worker._hear()
    assert orphan.worker.leaves_for == "master gone"


def test_a_slow_call_is_logged_with_its_client_and_where_it_stands(start_worker: StartWorker) -> None:
    """And the master is told the rest of what its list says."""
    here = start_worker()
    here.serving().call = "192.0.2.7", threading.get_ident()
    row = here.worker_config.row
    row.begin(b"GET /slow?password=x", 0, "an-id")
    since = row.busy().since
    here.order(messages.ShowCall(0, since))
    row.come_on()
    here.order(messages.ShowCall(0, since))
    row.end()
    first, second = here.reports()
    assert first == messages.CallShown(0, since, "192.0.2.7", first.place)
    assert isinstance(second, messages.CallShown)
    said = Path(here.log.target).read_text()
    told = "slow request: GET /slow (0.0 s so far, request an-id), client 192.0.2.7; where it stands:\n  "
    assert told in said
    assert "GET /slow (0.0 s so far, 0.0 s without output, request an-id)" in said
    assert "password" not in said


@pytest.mark.parametrize("thread_lives", [False, True])
def test_of_a_call_that_is_over_nothing_is_said(start_worker: StartWorker, thread_lives: bool) -> None:
    here = start_worker()
    here.serving().call = "", threading.get_ident() if thread_lives else None
    row = here.worker_config.row
    row.begin(b"GET /slow")
    since = row.busy().since
    if thread_lives:
        row.end()
        row.begin(b"GET /next")
    here.order(messages.ShowCall(0, since))
    row.end()
    assert here.reports() == []
    assert "slow request" not in Path(here.log.target).read_text()


def test_a_worker_that_is_spent_says_so_and_serves_on(start_worker: StartWorker) -> None:
    """When it is replaced is the master's decision."""
    here = start_worker()
    server = here.serving()
    server.on_due_for_recycling("it has served 1000 requests")
    assert here.reports() == [messages.RecyclingDue("it has served 1000 requests")]
    assert server.told == []


def test_orders_that_are_for_the_server_reach_it(start_worker: StartWorker) -> None:
    here = start_worker()
    server = here.serving()
    here.order(messages.Drain(), messages.Drop(5), messages.Retire(3.0, handoff=True))
    assert server.told == [("drain",), ("drop", 5), ("retire", 3.0, True)]


@pytest.mark.parametrize("asleep", [True, False])
def test_only_what_a_signal_handler_raises_while_the_loop_sleeps_is_no_end(
    start_worker: StartWorker, asleep: bool
) -> None:
    """Elsewhere something may be half done; and a call of the kernel that fails there would fail again and again."""
    here = start_worker()
    here.serving()
    with closing(select.epoll()) as epoll:
        epoll.close()
        loop = SimpleNamespace(
            timeouts=SimpleNamespace(next_at=NEVER),
            row=None,
            ready=(),
            calls=SimpleNamespace(waiting=()),
            context=SimpleNamespace(access=AccessLog(None)),
            poller=SimpleNamespace(poll=_raise if asleep else epoll.poll),
        )
        with pytest.raises((TimeoutError, ValueError)) as caught:
            EventLoop._wait(cast("Any", loop), None)
    with nullcontext() if asleep else pytest.raises(ValueError, match="closed epoll"):
        here.worker._outlive(caught.value)
    assert ("TimeoutError: too late" in Path(here.log.target).read_text()) is asleep


def _raise(*_: object) -> NoReturn:
    raise TimeoutError("too late")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_of_any_other_process_is_told_to_the_master(start_worker: StartWorker, number: signal.Signals) -> None:
    """It may have gone to the whole process group: then the service stops, else this worker is replaced."""
    here = start_worker()
    server = here.serving()
    here.signals(number)
    assert server.told == []
    assert here.reports() == [messages.AskedToLeave(number)]


def test_a_reload_of_the_whole_group_is_the_masters_alone(start_worker: StartWorker) -> None:
    here = start_worker()
    server = here.serving()
    here.signals(signal.SIGHUP)
    assert server.told == here.reports() == []


def test_the_masters_signal_to_leave_does_not_bring_siblings_back(start_worker: StartWorker) -> None:
    """It comes beside the order, which has said that no sibling is left."""
    here = start_worker(graceful_timeout=7.0)
    server = here.serving()
    here.order(messages.Retire(3.0, handoff=False))
    here.signals(signals.LEAVE)
    assert server.told == [("retire", 3.0, False), ("retire", 7.0, False)]


def test_a_quick_end_is_quick(start_worker: StartWorker) -> None:
    here = start_worker()
    server = here.serving()
    here.signals(signals.LEAVE_NOW)
    assert server.told == [("close_now",)]


def test_without_a_master_a_signal_ends_a_worker(start_worker: StartWorker) -> None:
    """No other process is left to decide."""
    here = start_worker(graceful_timeout=7.0)
    server = here.serving()
    here.master.close()
    here.worker._hear()
    here.signals(signal.SIGTERM, signal.SIGINT)
    assert server.told == [("retire", 7.0, False), ("close_now",)]


def test_a_worker_does_not_leave_before_it_has_heard_every_order(start_worker: StartWorker) -> None:
    """What it handed on a moment ago may be for it to take back: the siblings leave, too."""
    made = start_worker()
    made.serving()
    assert not made.worker._has_orders()
    assert made.master.send(messages.Retire(1.0, handoff=False))
    assert made.worker._has_orders()
    made.order()
    assert not made.worker._has_orders()
    made.worker.alone = True
    assert not made.worker._has_orders()


def test_without_a_master_no_sibling_takes_connections_over(start_worker: StartWorker) -> None:
    """Every sibling sees the same end at the same time."""
    here = start_worker(graceful_timeout=7.0)
    server = here.serving()
    number = here.channel.fileno()
    here.master.close()
    here.worker._hear()
    assert server.told == [("retire", 7.0, False)]
    assert number not in server.watched


@pytest.mark.parametrize("status", [200, 204, 302, 399])
def test_a_good_answer_to_ready_path(start_worker: StartWorker, status: int) -> None:
    here = start_worker(ready_path="/healthz")
    server = here.serving()
    server.answer = status
    here.worker.check()
    assert server.told == [("check", "/healthz")]


@pytest.mark.parametrize("answer", [199, 400, 503, ConnectionError("no answer")])
def test_a_bad_answer_to_ready_path(start_worker: StartWorker, answer: int | Exception) -> None:
    here = start_worker(ready_path="/healthz")
    here.serving().answer = answer
    with pytest.raises(LoadError, match=f"ready_path '/healthz' was (not )?answered.*{answer}"):
        here.worker.check()


def test_without_ready_path_nothing_is_asked(start_worker: StartWorker) -> None:
    here = start_worker()
    server = here.serving()
    here.worker.check()
    assert server.told == []


def test_maintenance_is_switched_at_any_time(start_worker: StartWorker) -> None:
    here = start_worker()
    server = here.serving()
    here.order(messages.Maintain(on=True), messages.Maintain(on=False))
    assert server.told == [("maintain", True), ("maintain", False)]


def test_what_an_application_forks_gives_back_what_is_ours_once(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that forks in its turn has files of its own under the same numbers, and handlers of its own."""
    here = start_worker()
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
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket of a get_request of the user's may raise when it is closed."""
    here = start_worker()
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
    here.noted = SentSignals()


def test_stacks_are_reported_with_the_number_of_the_question(start_worker: StartWorker) -> None:
    """Two people may ask at once."""
    here = start_worker()
    here.serving()
    here.order(messages.ShowStacks(serial=7))
    report = here.master.receive()
    assert isinstance(report, messages.Stacks)
    assert report.serial == 7
    assert "test_stacks_are_reported" in report.text
