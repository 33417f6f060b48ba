"""A lock that no exception leaves taken, and that the server and its logs have no other."""

from __future__ import annotations

import linecache
import re
import sys
import threading
from pathlib import Path

import pytest

from forkserver.errors import PACKAGE
from forkserver.linux.common.safe_lock import SafeLock
from harness import BOUND
from harness.late import LateError, strike
from harness.locks import is_free
from harness.worker import wait_until


@pytest.mark.parametrize("reentrant", [False, True])
def test_it_is_taken_and_given_back(reentrant: bool) -> None:
    lock = SafeLock(reentrant)
    assert is_free(lock)
    lock.taken  # noqa: B018
    assert not is_free(lock)
    if reentrant:
        lock.taken  # noqa: B018
        lock.release()
        assert not is_free(lock)
    lock.release()
    assert is_free(lock)


def stands_at_taken(thread: threading.Thread) -> bool:
    """Whether it waits for the lock: within such a statement no other thread runs before."""
    frame = sys._current_frames()[thread.ident or 0]
    return ".taken  #" in linecache.getline(frame.f_code.co_filename, frame.f_lineno)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_time_limit_that_comes_while_a_thread_waits_for_it_leaves_it_free(reentrant: bool) -> None:
    """On every CPython: since 3.14 a ``with`` statement does not."""
    lock, begun, raised = SafeLock(reentrant), threading.Event(), []
    lock.acquire()

    def wait() -> None:
        begun.set()
        try:
            lock.taken  # noqa: B018
            try:
                pass
            finally:
                lock.release()
        except LateError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert begun.wait(BOUND)
    wait_until(lambda: stands_at_taken(thread))
    with strike(thread):
        lock.release()
        thread.join(BOUND)
    assert len(raised) == 1
    assert is_free(lock)


@pytest.mark.parametrize("folder", ["server", "logs"])
def test_what_application_threads_run_takes_no_lock_by_a_with_statement(folder: str) -> None:
    """It is what a late exception may strike in, and the next thread would wait for ever."""
    for path in sorted(Path(PACKAGE, folder).rglob("*.py")):
        found = re.findall(r"^ *with .*lock\b.*:$", path.read_text(), re.MULTILINE)
        assert found == [], path
