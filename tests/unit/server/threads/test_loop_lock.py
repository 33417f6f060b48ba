"""The loop lock: which thread has it while the application runs, and when the application may be interrupted."""

from __future__ import annotations

import linecache
import sys
import threading
from collections.abc import Callable

import pytest

from forkserver.server.threads.loop_lock import LoopLock, acquired_lock
from harness import BOUND
from harness.late import LateError, strike
from harness.locks import is_free
from harness.worker import wait_until


@pytest.fixture
def lock() -> LoopLock:
    return acquired_lock()


def seen(lock: LoopLock) -> tuple[bool, bool]:
    """Whether another thread could have the lock, and whether the application runs."""
    return is_free(lock), lock.outside


def test_the_application_runs_without_the_lock(lock: LoopLock) -> None:
    assert seen(lock) == (False, False)
    assert lock.lend(seen, lock) == (True, True)
    assert seen(lock) == (False, False)


def test_the_way_back_in_has_it_and_the_application_goes_on_without(lock: LoopLock) -> None:
    during, after = lock.lend(lambda: (lock.borrow(seen, lock), seen(lock)))
    assert (during, after) == ((False, False), (True, True))


def raising() -> None:
    raise LookupError("the application's fault")


def test_a_fault_leaves_the_lock_as_it_was(lock: LoopLock) -> None:
    with pytest.raises(LookupError):
        lock.lend(raising)
    assert seen(lock) == (False, False)

    def inside() -> tuple[bool, bool]:
        with pytest.raises(LookupError):
            lock.borrow(raising)
        return seen(lock)

    assert lock.lend(inside) == (True, True)


def test_it_may_be_taken_again_by_its_thread(lock: LoopLock) -> None:
    """A signal handler, or a hook, may come back in."""
    with lock.mutex:
        assert not is_free(lock)
    assert not is_free(lock)
    lock.release()
    assert is_free(lock)


def waits_for_lock(thread: threading.Thread) -> bool:
    """Whether it waits for the lock: within such a statement no other thread runs before."""
    frame = sys._current_frames()[thread.ident or 0]
    return ".taken  #" in linecache.getline(frame.f_code.co_filename, frame.f_lineno)


def wait_for(lock: LoopLock) -> None:
    lock.taken  # noqa: B018
    try:
        pass
    finally:
        lock.release()


def wait_to_borrow(lock: LoopLock) -> None:
    lock.borrow(int)


@pytest.mark.parametrize("wait", [wait_for, wait_to_borrow])
def test_a_time_limit_that_comes_while_a_thread_waits_for_it_leaves_it_free(
    lock: LoopLock, wait: Callable[[LoopLock], None]
) -> None:
    """A thread that went on with it would stop the worker for ever."""
    raised: list[BaseException] = []
    begun = threading.Event()

    def run() -> None:
        begun.set()
        try:
            wait(lock)
        except LateError as error:
            raised.append(error)
            free.append(is_free(lock))

    free: list[bool] = []
    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(BOUND)
    wait_until(lambda: waits_for_lock(thread))
    with strike(thread):
        lock.release()
        thread.join(BOUND)
    assert len(raised) == 1
    assert free == [True]


def test_a_thread_lets_go_of_it_however_often_it_has_it(lock: LoopLock) -> None:
    lock.acquire()
    lock.let_go()
    assert is_free(lock)
    lock.let_go()
    assert is_free(lock)


def test_a_fork_of_the_application_has_it_and_is_not_interrupted(lock: LoopLock) -> None:
    def forking() -> tuple[tuple[bool, bool], tuple[bool, bool]]:
        lock.take_for_fork()
        during = seen(lock)
        lock.return_from_fork()
        return during, seen(lock)

    assert lock.lend(forking) == ((False, False), (True, True))
    lock.take_for_fork()
    lock.return_from_fork()
    assert seen(lock) == (False, False), "a fork by a hook leaves the hook inside"
