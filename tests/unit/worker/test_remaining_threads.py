"""Threads of the application that hold a worker's exit."""

from __future__ import annotations

import threading

from forkserver.worker import remaining_threads


def test_a_thread_that_stays_is_named() -> None:
    leave, named = threading.Event(), threading.Event()
    told: list[str] = []

    def tell(names: str) -> None:
        told.append(names)
        named.set()

    thread = threading.Thread(target=leave.wait, name="poller")
    thread.start()
    try:
        remaining_threads.tell_of(tell, 0.0)
        assert named.wait(30)
    finally:
        leave.set()
        thread.join()
    assert "'poller' (" in told[0]


def test_a_daemon_holds_nothing() -> None:
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, daemon=True)
    thread.start()
    told: list[str] = []
    remaining_threads.tell_of(told.append, 0.0)
    leave.set()
    thread.join()
    assert told == []
