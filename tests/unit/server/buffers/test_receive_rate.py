"""How fast a body comes, and what is refused."""

from __future__ import annotations

import pytest

from forkserver.server.buffers.receive_rate import PROGRESS_BYTES, STALLED_SECONDS, ReceiveRate

TIMEOUT = 30.0
RATE = 240


def verdict(progress: ReceiveRate, now: float, late: float = 0.0, rate: int = RATE) -> str | None:
    return progress.verdict(now, late, TIMEOUT, rate)


def dripped(rate: float, seconds: int) -> ReceiveRate:
    """A body that has come at ``rate`` bytes a second for ``seconds``, from the time 0 on."""
    progress, sent = ReceiveRate(0.0), 0
    for second in range(1, seconds + 1):
        progress.add(int(rate * second) - sent, float(second))
        sent = int(rate * second)
    return progress


@pytest.mark.parametrize("rate", [RATE, 1000, 1_000_000])
def test_a_body_at_the_least_rate_or_above_goes_on(rate: int) -> None:
    assert all(verdict(dripped(rate, seconds), seconds) is None for seconds in (1, 30, 60, 600))


def test_a_body_below_the_least_rate_is_refused_with_figures() -> None:
    """The operator reads what came, and which setting it was measured by."""
    assert verdict(dripped(55, 38), 38) is None
    assert verdict(dripped(55, 39), 39) == (
        "the body is slower than body_min_rate, 240 bytes a second: 2145 bytes came in 39 s"
    )


def test_the_first_seconds_do_not_count() -> None:
    """A phone that changes cells stalls for a while, and makes up for it."""
    progress = ReceiveRate(0.0)
    progress.add(PROGRESS_BYTES, 29.0)
    assert verdict(progress, 33.0) is None
    progress.add(RATE * 30, 34.0)
    assert verdict(progress, 60.0) is None


def test_a_rate_of_0_switches_the_least_rate_off_and_leaves_the_timeout() -> None:
    progress = dripped(55, 600)
    assert verdict(progress, 600, rate=0) is None
    assert verdict(progress, 650, rate=0) == "the body has made no progress for 61 s; body_timeout is 30 s"


def test_time_in_which_the_worker_read_nothing_does_not_count() -> None:
    """A call that keeps the interpreter for minutes is no fault of a client's."""
    progress = dripped(300, 30)
    progress.add(PROGRESS_BYTES, 199.0)  # what the kernel could take meanwhile
    assert verdict(progress, 200.0) is not None
    assert verdict(progress, 200.0, late=160.0) is None


def test_bytes_that_wait_in_the_kernel_count_once() -> None:
    progress = ReceiveRate(0.0)
    progress.see(3000, 5.0)
    assert (progress.received, progress.moved_at) == (3000, 5.0)
    progress.add(3000, 6.0)
    assert (progress.received, progress.moved_at) == (3000, 5.0)
    progress.add(500, 7.0)
    assert progress.received == 3500


def test_the_rate_is_of_late() -> None:
    """A burst at the beginning is forgotten after two looks: what counts is whether the body comes now."""
    progress = ReceiveRate(0.0)
    progress.add(1_000_000, 1.0)
    assert progress.look(1.0) == 1_000_000
    progress.add(2000, 5.0)
    assert progress.look(5.0) == pytest.approx(200_400)
    progress.add(2000, 9.0)
    assert progress.look(9.0) == pytest.approx(500)


def test_a_body_that_came_fast_and_has_stalled_comes_at_no_rate() -> None:
    """Else a client that sends a burst and nothing more holds its place until the burst is forgotten."""
    progress = ReceiveRate(0.0)
    progress.add(40_000, 0.5)
    assert progress.rate(1.0) == 40_000
    assert progress.rate(0.5 + STALLED_SECONDS) == 0
    progress.add(PROGRESS_BYTES, 3.0)
    assert progress.rate(3.0) > 13_000


def test_a_body_that_comes_slowly_in_steps_has_not_stalled() -> None:
    progress = dripped(2000, 10)
    assert progress.rate(10.0 + STALLED_SECONDS) > 1500
