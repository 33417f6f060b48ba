"""A wait is ended by any thread, and nothing is written once the descriptor is given back."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.server.threads.wakeup import Wakeup


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    made = Wakeup()
    yield made
    made.close()


def readable(wakeup: Wakeup) -> bool:
    poll = select.poll()
    poll.register(wakeup.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def test_it_is_readable_from_notify_until_clear(wakeup: Wakeup) -> None:
    assert not readable(wakeup)
    wakeup.notify()
    wakeup.notify()
    assert readable(wakeup)
    wakeup.clear()
    wakeup.clear()  # the other thread that was woken
    assert not readable(wakeup)


@pytest.mark.parametrize("end", ["close", "forget"])
def test_nothing_is_written_to_the_next_owner_of_its_number(wakeup: Wakeup, end: str, tmp_path: Path) -> None:
    """Eight bytes in the application's file would be found much later, if at all."""
    number = wakeup.fileno()
    with (tmp_path / "file").open("wb") as file:
        getattr(wakeup, end)()
        os.dup2(file.fileno(), number)
        wakeup.notify()
        getattr(wakeup, end)()
        assert os.fstat(number).st_size == 0, "and it is open"
        os.close(number)
    assert wakeup.fileno() == -1


def test_a_forked_child_does_not_wait_for_a_thread_that_it_does_not_have(wakeup: Wakeup) -> None:
    """The lock may be held at the fork: here by this thread, there by none."""
    wakeup._lock.acquire()
    wakeup.forget()
    assert wakeup.fileno() == -1
