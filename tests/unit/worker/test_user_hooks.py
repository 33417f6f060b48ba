"""The hooks module: what is taken from it, what is refused, and what a hook that fails costs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.errors import ConfigError, LoadError
from forkserver.ipc import figures
from forkserver.ipc.scoreboard import REQUESTS, Row, Scoreboard
from forkserver.logs.error_log import ErrorLog
from forkserver.worker import user_hooks
from forkserver.worker.user_hooks import Hook, HookCalls, HookGeneration, HookRequest, HookWorker
from harness import BOUND

Load = Callable[[str], dict[str, Hook]]
BOARD = Scoreboard(1)  # lives as long as the master, here as long as the tests


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ErrorLog]:
    made = ErrorLog(str(tmp_path / "log"), "debug", "worker=3 gen=2")
    yield made
    os.close(made.fileno())


@pytest.fixture
def row() -> Row:
    return BOARD[0]


@pytest.fixture
def load(tmp_path: Path, log: ErrorLog, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Write a hooks module and load it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(text: str) -> dict[str, Hook]:
        (tmp_path / "my_hooks.py").write_text(text)
        return user_hooks.load("my_hooks", log)

    yield make
    sys.modules.pop("my_hooks", None)


def worker(pid: int = 0) -> HookWorker:
    return HookWorker(number=3, generation=2, pid=pid or os.getpid())


def said(log: ErrorLog) -> str:
    return Path(log.target).read_text()


def test_without_a_module_there_is_no_hook(log: ErrorLog) -> None:
    found = user_hooks.load(None, log)
    assert [name for name in user_hooks.NAMES if name in found] == []


def test_what_the_module_defines_is_a_hook(load: Load, log: ErrorLog) -> None:
    """Any of the names; and one that was imported from elsewhere is as good."""
    found = load("from builtins import print as worker_exit\ndef post_fork(worker): pass\n")
    assert [name for name in user_hooks.NAMES if name in found] == ["post_fork", "worker_exit"]
    assert said(log) == ""


def test_a_module_of_nothing_that_is_called_is_warned_about(load: Load, log: ErrorLog) -> None:
    """A name that is misspelt would never be missed otherwise."""
    load("def post_forked(worker): pass\n")
    assert (
        "hooks 'my_hooks': none of generation_loaded, post_fork, worker_ready, request_timeout, worker_exit is in"
        in said(log)
    )


def test_a_module_that_makes_up_attributes_has_no_hooks(load: Load, log: ErrorLog) -> None:
    load("def __getattr__(name): return print\n")
    assert "none of generation_loaded" in said(log)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("post_fork = 'x'", "hooks 'my_hooks': post_fork is a str, not callable; write def post_fork(worker)"),
        ("worker_exit = None", "hooks 'my_hooks': worker_exit is None, not callable; write def worker_exit(worker)"),
        (
            "def post_fork(server, worker): pass",  # gunicorn's
            "hooks 'my_hooks': post_fork cannot be called with one argument, the worker; write def post_fork(worker)",
        ),
        (
            "def request_timeout(worker): pass",
            "request_timeout cannot be called with 2 arguments, the worker and the request; write def request_timeout(",
        ),
        ("generation_loaded = 7", "generation_loaded is an int, not callable; write def generation_loaded(generation)"),
        ("async def worker_ready(worker): pass", "worker_ready cannot be called with one argument, the worker"),
    ],
)
def test_what_cannot_be_called_is_refused(load: Load, text: str, message: str) -> None:
    """When it is loaded, and not when the first worker comes to it."""
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert message in str(caught.value)


def test_a_module_that_is_not_there_is_a_mistake_in_the_settings(log: ErrorLog) -> None:
    with pytest.raises(ConfigError, match="hooks 'no_such_hooks': no module 'no_such_hooks'"):
        user_hooks.load("no_such_hooks", log)


@pytest.mark.parametrize("fault", ["raise RuntimeError('no pool')", "import sys; sys.exit(3)", "def ("])
def test_a_module_that_fails_is_told_with_its_traceback(load: Load, fault: str) -> None:
    """It is the application's code, and refuses a reload as the application does."""
    with pytest.raises(LoadError, match="hooks 'my_hooks' failed while it was imported") as caught:
        load(fault)
    assert "my_hooks.py" in caught.value.traceback


def test_hooks_are_told_who_the_worker_is(load: Load, log: ErrorLog, row: Row) -> None:
    load(
        "seen = []\n"
        "def post_fork(worker): seen.append(('post_fork', worker.number, worker.generation, worker.pid))\n"
        "def worker_ready(worker): seen.append(('worker_ready', worker))\n"
        "def worker_exit(worker): seen.append(('worker_exit', worker))\n"
    )
    hook_calls = HookCalls(user_hooks.load("my_hooks", log), worker(), row, log)
    hook_calls.ready()
    hook_calls.leaving("reload", 0)
    assert sys.modules["my_hooks"].seen == [
        ("worker_ready", worker()),
        ("worker_exit", worker()._replace(reason="reload", status=0)),
    ]


@pytest.mark.parametrize("fault", ["RuntimeError('no pool')", "SystemExit(3)", "KeyboardInterrupt()"])
def test_a_hook_that_raises_costs_a_traceback_in_the_log(load: Load, log: ErrorLog, row: Row, fault: str) -> None:
    """Whether a worker lives is not for a hook to say."""
    found = load(f"def worker_ready(worker): raise {fault}\n")
    HookCalls(found, worker(), row, log).ready()
    assert "error worker=3 gen=2" in said(log)
    assert "hook worker_ready: " in said(log)
    assert "; the worker goes on\n" in said(log)
    assert "in worker_ready" in said(log)
    assert row.busy() is None


def test_a_hook_is_seen_as_a_call_while_it_runs_and_is_no_request(log: ErrorLog, row: Row) -> None:
    """One that hangs is then found as a call that hangs is, and the log names it."""
    seen = []

    def look(_: HookWorker) -> None:
        busy = row.busy()
        assert busy is not None
        seen.append(busy.line)

    hook_calls = HookCalls({"worker_ready": look, "worker_exit": look}, worker(), row, log)
    counted = row.words[REQUESTS]
    hook_calls.ready()
    hook_calls.leaving("reload", 0)
    assert seen == ["hook worker_ready", "hook worker_exit"]
    assert row.busy() is None
    assert row.words[REQUESTS] == counted, "it is no request"
    assert not any(row.words[figures.FIRST : figures.END]), "and none has waited"


def test_a_process_that_the_application_forked_is_no_worker(log: ErrorLog, row: Row) -> None:
    """It may come back through the worker's own frames, and must not say that the worker leaves."""
    called: list[HookWorker] = []
    HookCalls({"worker_exit": called.append}, worker(pid=os.getppid()), row, log).leaving("reload", 0)
    assert called == []


def test_the_code_that_is_loaded_is_told_once_and_what_that_raises_is_logged(load: Load, log: ErrorLog) -> None:
    found = load(
        "seen = []\ndef generation_loaded(generation):\n    seen.append(generation)\n    raise SystemExit(3)\n"
    )
    generation = HookGeneration(2, True, 4711)
    user_hooks.tell_loaded(found, generation, log)
    assert sys.modules["my_hooks"].seen == [generation]
    assert "hook generation_loaded: it exited (SystemExit: 3); the code is used all the same\n" in said(log)
    user_hooks.tell_loaded({}, generation, log)


REQUEST = HookRequest("GET /slow", "an-id", "192.0.2.7", 30.1, "views.py:7 in report")


def test_a_timeout_is_told_in_a_thread_of_its_own_and_waited_for_before_the_worker_leaves(
    log: ErrorLog, row: Row
) -> None:
    """The loop, in which that is noticed, goes on; and a report that is on its way is not cut off."""
    told: list[object] = []
    go_on, shown = threading.Event(), []

    def late(who: HookWorker, request: HookRequest) -> None:
        go_on.wait(BOUND)
        told.append((who, request, threading.current_thread() is threading.main_thread()))

    def leave(_: HookWorker) -> None:
        told.append("exit")

    hook_calls = HookCalls({"request_timeout": late, "worker_exit": leave}, worker(), row, log)
    assert hook_calls.wants_timeouts
    hook_calls.timed_out(REQUEST)
    assert told == []

    class Looking:
        def join(self) -> None:
            busy = row.busy()
            assert busy is not None
            shown.append(busy.line)
            go_on.set()

    looking: Any = Looking()
    hook_calls._threads.insert(0, looking)
    hook_calls.leaving("timeout", 0)
    assert told == [(worker(), REQUEST, False), "exit"]
    assert shown == ["hook request_timeout"], "one that hangs is found as a call that hangs"


def test_without_the_hook_nothing_is_looked_at_for_it(log: ErrorLog, row: Row) -> None:
    assert not HookCalls({"worker_exit": print}, worker(), row, log).wants_timeouts


def test_where_there_is_no_thread_for_it_that_is_logged(
    log: ErrorLog, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    hook_calls = HookCalls({"request_timeout": print}, worker(), row, log)
    hook_calls.timed_out(REQUEST)
    hook_calls.leaving("timeout", 0)
    assert "hook request_timeout is not called for GET /slow: can't start new thread; lower --threads" in said(log)
