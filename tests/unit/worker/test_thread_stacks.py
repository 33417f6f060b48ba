"""Where the threads of a process are, for the log."""

from __future__ import annotations

import threading

from forkserver.worker.thread_stacks import thread_stacks
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
