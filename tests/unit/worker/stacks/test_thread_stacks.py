"""Where the threads of a process are, for the log."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from forkserver.server.threads.loop_lock import LoopLock
from forkserver.worker.stacks.thread_stacks import CallStack, call_stack, described, thread_stacks
from harness import BOUND


def test_each_thread_is_named_with_its_innermost_call_last() -> None:
    began, leave = threading.Event(), threading.Event()

    def wait_here() -> None:
        began.set()
        leave.wait(BOUND)

    thread = threading.Thread(target=wait_here, name="poller")
    thread.start()
    try:
        assert began.wait(BOUND)
        found = thread_stacks()
    finally:
        leave.set()
        thread.join()
    ours, poller = found.index("thread MainThread:\n"), found.index("thread poller:\n")
    stack = found[poller : ours if ours > poller else None]
    assert stack.index("in run") < stack.index("in wait_here") < stack.index("in wait\n")
    assert "in test_each_thread_is_named_with_its_innermost_call_last" in found[ours:]


def _served(tmp_path: Path, source: str) -> CallStack:
    """The stack of an application's call, taken where it calls ``look``; ``source`` defines ``app(look)``."""
    module = tmp_path / "views.py"
    module.write_text(source)
    names: dict[str, Any] = {}
    exec(compile(source, str(module), "exec"), names)
    found: list[CallStack] = []

    def look() -> None:
        found.append(described(sys._getframe(1)))

    lock = LoopLock()
    lock.acquire()
    lock.lend(names["app"], look)
    return found[0]


def test_the_applications_frames_come_first_and_the_servers_own_are_one_line(tmp_path: Path) -> None:
    """What an operator looks for is the innermost line of the application's code."""
    stack = _served(tmp_path, "def app(look):\n    report(look)\n\ndef report(look):\n    look()  # here\n")
    views = tmp_path / "views.py"
    assert stack.place == f"{views}:5 in report"
    first, second, rest = stack.text.split("\n")
    assert first == f"{views}:5 in report: look()  # here"
    assert second == f"{views}:2 in app: report(look)"
    assert rest.startswith("(forkserver: ")
    assert "server/threads/loop_lock.py" in rest


def test_the_servers_frames_within_the_applications_are_folded_too(tmp_path: Path) -> None:
    """An application that reads its request's body, or writes, is in the server's code for a while."""
    source = (
        "from forkserver.server.threads.loop_lock import acquired_lock\n"
        "def app(look):\n    acquired_lock().lend(inner, look)\n"
        "def inner(look):\n    look()\n"
    )
    lines = _served(tmp_path, source).text.split("\n")
    assert [line.partition(" ")[0] for line in lines] == [
        f"{tmp_path / 'views.py'}:5", "(forkserver:", f"{tmp_path / 'views.py'}:3", "(forkserver:",
    ]  # fmt: skip


def test_a_deep_stack_is_shown_by_its_ends(tmp_path: Path) -> None:
    source = "def app(look, depth=500):\n    return app(look, depth - 1) if depth else look()\n"
    lines = _served(tmp_path, source).text.split("\n")
    assert len(lines) == 52
    assert lines[40] == "(451 frames left out)"


def test_a_thread_that_there_is_not_has_no_stack() -> None:
    assert call_stack(None) is None
    assert call_stack(-1) is None


def test_a_thread_that_goes_on_while_it_is_looked_at_is_looked_at_again() -> None:
    """A frame that has returned, or a generator that has yielded, no longer leads to its caller."""
    began, go_on, later, leave = (threading.Event() for _ in range(4))
    looks: list[Mapping[int, FrameType]] = []

    def first() -> None:
        began.set()
        go_on.wait(BOUND)

    def then() -> None:
        later.set()
        leave.wait(BOUND)

    def call() -> None:
        first()
        then()

    def innermost() -> Mapping[int, FrameType]:
        looks.append(sys._current_frames())
        if len(looks) == 1:
            go_on.set()
            assert later.wait(BOUND)
        return looks[-1]

    thread = threading.Thread(target=call)
    thread.start()
    try:
        assert began.wait(BOUND)
        stack = call_stack(thread.ident, innermost)
    finally:
        go_on.set()
        leave.set()
        thread.join()
    assert stack is not None
    assert len(looks) > 2
    assert stack.text.index("in then: ") < stack.text.index("in call: then()")


def test_a_stack_without_a_frame_of_the_server_is_shown_as_it_is() -> None:
    began, leave = threading.Event(), threading.Event()

    def wait_here() -> None:
        began.set()
        leave.wait(BOUND)

    thread = threading.Thread(target=wait_here)
    thread.start()
    try:
        assert began.wait(BOUND)
        stack = call_stack(thread.ident)
    finally:
        leave.set()
        thread.join()
    assert stack is not None
    assert "forkserver: " not in stack.text
    assert stack.place
