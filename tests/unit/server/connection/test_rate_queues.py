"""The order of the slowest bodies."""

from __future__ import annotations

from forkserver.server.connection.rate_queues import FAST_BYTES, RateQueues, band_of

TIMEOUT = 60.0


def test_the_slowest_are_at_hand_and_the_fast_are_not_among_them() -> None:
    bodies: RateQueues[str] = RateQueues(TIMEOUT, 1.0)
    for name, rate in (("fast", FAST_BYTES), ("phone", 1500.0), ("drip", 55.0), ("stalled", 0.0), ("late drip", 60.0)):
        bodies.queue(rate).put(name, 0.0)
    assert [name for queue in bodies.slow() for name in queue] == ["stalled", "drip", "late drip", "phone"]
    assert len(bodies) == 5
    assert bodies.is_faster(bodies.queue(1500.0), bodies.queue(55.0))


def test_every_rate_has_a_queue() -> None:
    assert band_of(0) == 0
    assert band_of(float("inf")) == band_of(FAST_BYTES) > band_of(FAST_BYTES - 1)
    bodies: RateQueues[str] = RateQueues(TIMEOUT, 1.0)
    assert all(bodies.queue(2.0**power - 1) in bodies.queues for power in range(30))
