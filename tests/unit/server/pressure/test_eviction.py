"""Which connection goes first when a worker runs short: an order over facts that the test sets, without sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from forkserver.server.connection.states import BODY, DRAINING, LINGERING, READING, READY
from forkserver.server.pressure.eviction import (
    ANSWER_GRACE_SECONDS,
    GRACE_SECONDS,
    STALLED_SECONDS,
    Shortage,
)
from harness.candidates import House


@pytest.fixture
def house() -> House:
    return House()


def test_a_connection_whose_answer_is_out_goes_first(house: House) -> None:
    """One that was refused goes although its client still sends; of the others only those that send nothing."""
    house.add("idle", house.timeouts.idle)
    sends = house.add("sends", house.timeouts.lingering, LINGERING)
    sends.unread = True
    house.add("answered", house.timeouts.lingering, LINGERING)
    refused = house.add("refused", house.timeouts.discarding, LINGERING)
    refused.unread = True
    assert house.evicted(9) == ["answered", "refused", "idle"]


def test_of_idle_connections_the_longest_idle_goes_first(house: House) -> None:
    for name in "abc":
        house.add(name, house.timeouts.idle)
        house.pass_time(1)
    assert house.evicted(2) == ["a", "b"]


@pytest.mark.parametrize(
    "occupied",
    [{"state": READY}, {"queued": True}, {"buffer": b"GET"}, {"unread": True}],
    ids=["called", "later", "half", "unread"],
)
def test_a_request_that_has_come_is_not_closed_to_make_room(house: House, occupied: dict[str, Any]) -> None:
    """A call in hand, or one that waits, keeps its place in the queue of the idle."""
    vars(house.add("asks", house.timeouts.idle)).update(occupied)
    assert house.evicted(1) == []


def test_calls_in_hand_do_not_hide_the_idle_connections_behind_them(house: House) -> None:
    for number in range(50):
        house.add(f"called {number}", house.timeouts.idle, READY)
    house.add("idle", house.timeouts.idle)
    assert house.evicted(1) == ["idle"]


def test_a_crowd_of_either_kind_does_not_drive_out_the_other(house: House) -> None:
    for name in ("idle 1", "idle 2"):
        house.add(name, house.timeouts.idle)
    for rate in (10.0, 20.0):
        house.body(f"body {rate:g}", rate)
    assert house.evicted(4) == ["idle 1", "body 10", "idle 2", "body 20"]


def test_the_slowest_body_goes_first_and_a_fast_one_never(house: House) -> None:
    for rate in (600.0, 300.0, 2000.0, 40_000.0):
        house.body(f"{rate:g}", rate)
    assert house.evicted(9) == ["300", "600", "2000"]
    assert house.told[0] == (
        "connections; 4 connections: 0 without a whole request head, 4 with a body on its way, 0 idle, "
        "0 with an answer that is not taken yet; raise --worker-connections or --workers"
    )


def test_what_has_come_is_read_before_a_candidate_is_taken_for_slow(house: House) -> None:
    """The worker was late, not the client."""
    late, gone = (house.add(name, house.timeouts.heads) for name in ("late", "gone"))
    house.add("slow", house.timeouts.heads)
    house.pass_time(2)
    late.comes = lambda: setattr(late, "state", READY)
    gone.comes = gone.close
    assert house.evicted(1) == ["gone"]
    assert house.evicted(1) == ["slow"]
    assert late.state is READY


def test_a_client_that_has_gone_makes_the_room_that_is_wanted(house: House) -> None:
    """Else the next in the order, which still sends, goes as well."""
    gone, other = house.body("gone", 1.0), house.body("other", 2.0)
    gone.comes = gone.close
    assert house.evicted(1) == ["gone"]
    assert other.state is BODY


def test_a_body_that_speeds_up_is_not_judged_by_what_it_was(house: House) -> None:
    quick = house.body("quick", 10.0)
    house.body("slow", 500.0)
    quick.rate = 40_000.0
    assert house.evicted(1) == ["slow"]
    assert quick.queue is house.timeouts.bodies.queue(40_000.0)


def test_a_new_connection_has_a_moment(house: House) -> None:
    """A client that works sends its head within a round trip."""
    house.add("new", house.timeouts.heads)
    house.add("newer", house.timeouts.bodies.fresh, BODY)
    assert house.evicted(2) == []
    assert house.eviction.seconds_left() == pytest.approx(GRACE_SECONDS)
    house.pass_time(GRACE_SECONDS)
    assert house.evicted(2) == ["new", "newer"]


def test_a_crowd_too_new_to_be_measured_does_not_drive_out_an_idle_client(house: House) -> None:
    """It can be in a moment; for descriptors, which the application wants now, nothing is waited for."""
    house.add("idle", house.timeouts.idle)
    for name in "ab":
        house.add(name, house.timeouts.heads)
    assert house.evicted(1) == []
    assert house.evicted(1, Shortage.DESCRIPTORS) == ["idle"]


@pytest.mark.usefixtures("pipe")
def test_answers_too_new_to_be_judged_do_not_drive_out_an_idle_client(house: House) -> None:
    house.add("idle", house.timeouts.idle)
    for name in ("deaf 1", "deaf 2"):
        house.answer(name)
    assert house.evicted(1) == []
    house.pass_time(ANSWER_GRACE_SECONDS)
    assert house.evicted(1) == ["deaf 1"]


def test_a_flood_of_new_requests_does_not_drive_out_a_slow_body_that_moves(house: House) -> None:
    """What is replaced too often to have a rate must not seem faster than a phone."""
    house.body("phone", 2000.0)
    for name in ("new 1", "new 2", "new 3"):
        house.add(name, house.timeouts.heads)
    house.body("drip", 100.0)
    house.pass_time(GRACE_SECONDS)
    assert house.evicted(3) == ["drip", "new 1", "new 2"]
    assert house.evicted(9) == ["phone", "new 3"], "they do not outnumber the slow bodies any more"


def test_a_body_that_is_new_and_comes_well_is_measured_and_kept(house: House) -> None:
    starting = house.add("starting", house.timeouts.bodies.fresh, BODY, rate=2000.0)
    house.add("silent", house.timeouts.bodies.fresh, BODY)
    house.pass_time(GRACE_SECONDS)
    assert house.evicted(1) == ["silent"]
    assert starting.queue is house.timeouts.bodies.queue(2000.0)


@pytest.fixture
def pipe(house: House) -> Iterator[tuple[int, int]]:
    """A descriptor that has no room, which answers have, and one that has."""
    ends = os.pipe()
    house.full = ends[0]
    yield ends
    for end in ends:
        os.close(end)


def test_answers_that_are_not_taken_make_room_and_those_that_are_taken_well_never(
    house: House, pipe: tuple[int, int]
) -> None:
    """No event says that a client takes any, until a third of the kernel's buffer is free."""
    reading, taking = house.answer("reading", 30_000.0), house.answer("taking", 0.0)
    taking.fd = pipe[1]
    house.answer("deaf", 0.0)
    assert house.evicted(2) == []
    house.pass_time(ANSWER_GRACE_SECONDS)
    assert house.evicted(2) == ["deaf"]
    assert reading.state is taking.state is DRAINING


@pytest.mark.usefixtures("pipe")
def test_an_answer_among_others_has_the_time_in_which_a_lump_of_it_is_read(house: House) -> None:
    """Where a crowd of another kind makes the room that is wanted, a client that pauses keeps its answer."""
    house.answer("pausing", 0.0)
    house.pass_time(STALLED_SECONDS - 1)
    house.add("head", house.timeouts.heads)
    assert house.evicted(1) == []
    house.pass_time(1)
    assert house.evicted(1) == ["pausing"]


@pytest.mark.usefixtures("pipe")
def test_a_crowd_that_reads_nothing_gives_its_places_back_in_a_moment_the_oldest_first(house: House) -> None:
    """Else a client that opens another connection for each that is closed keeps the others out for seconds."""
    for name in ("deaf 1", "deaf 2", "deaf 3"):
        house.answer(name)
        house.pass_time(0.25)
    assert house.evicted(1) == []
    house.pass_time(ANSWER_GRACE_SECONDS - 0.85)
    assert house.eviction.seconds_left() == pytest.approx(0.1)
    house.pass_time(0.1)
    assert house.evicted(9) == ["deaf 1"]
    house.pass_time(0.5)
    assert house.evicted(9) == ["deaf 2", "deaf 3"]


@pytest.mark.usefixtures("pipe")
def test_progress_does_not_keep_an_answer_that_is_taken_slowly(house: House) -> None:
    """A crowd that takes a few KiB a second holds its places as well as one that takes nothing; the slowest go."""
    for name, rate in (("slow", 8000.0), ("fast", 20_000.0), ("phone", 2000.0)):
        house.answer(name, rate)
    house.pass_time(STALLED_SECONDS)
    for each in [*house.timeouts.answers]:
        each.wait_in(each.queue)  # it was found to move, just now
    assert house.evicted(9) == ["phone", "slow"]


@pytest.mark.usefixtures("pipe")
def test_an_answer_that_is_taken_faster_is_not_judged_by_what_it_was(house: House) -> None:
    quick = house.answer("quick", 100.0)
    house.answer("slow", 1000.0)
    house.pass_time(ANSWER_GRACE_SECONDS)
    quick.rate = 4000.0
    assert house.evicted(1) == ["slow"]
    assert quick.queue is house.timeouts.answers.queue(4000.0)


@pytest.mark.usefixtures("pipe")
def test_a_crowd_that_reads_nothing_does_not_drive_out_a_phone(house: House) -> None:
    """Neither its upload nor its download, which move: not before the crowd can be judged, and not then."""
    house.body("upload", 2000.0)
    house.answer("download", 2000.0)
    house.pass_time(STALLED_SECONDS)
    for name in ("deaf 1", "deaf 2", "deaf 3"):
        house.answer(name)
    assert house.evicted(1) == []
    house.pass_time(ANSWER_GRACE_SECONDS)
    assert house.evicted(1) == ["deaf 1"]


def test_heads_too_new_to_be_judged_do_not_drive_out_a_phone(house: House) -> None:
    """They can be in a moment; for descriptors, which the application wants now, nothing is waited for."""
    house.body("phone", 2000.0)
    for name in "ab":
        house.add(name, house.timeouts.heads)
    assert house.evicted(1) == []
    assert house.evicted(1, Shortage.DESCRIPTORS) == ["phone"]


@pytest.mark.parametrize("queue", ["heads", "bodies"])
def test_requests_that_wait_for_a_thread_do_not_hide_the_unfinished_ones_behind_them(house: House, queue: str) -> None:
    """They keep their places in the queues, as many as there are."""
    queues = {"heads": house.timeouts.heads, "bodies": house.timeouts.bodies.fresh}
    for number in range(50):
        house.add(f"whole {number}", queues[queue], READY)
    house.add("silent", queues[queue], READING if queue == "heads" else BODY)
    house.pass_time(GRACE_SECONDS)
    assert house.evicted(2) == ["silent"]


@pytest.mark.usefixtures("pipe")
@pytest.mark.parametrize("kind", ["bodies", "answers"])
def test_what_is_fast_is_looked_at_again_for_it_may_have_stalled(house: House, kind: str) -> None:
    """Else a worker full of bursts accepts no client until one of them has timed out."""
    queues = {"bodies": house.timeouts.bodies, "answers": house.timeouts.answers}[kind]
    fast = house.add("fast", queues.queue(40_000.0), BODY if kind == "bodies" else DRAINING, 40_000.0)
    fast.fd = house.full
    house.pass_time(STALLED_SECONDS)
    assert house.evicted(1) == []
    assert house.eviction.seconds_left() == pytest.approx(GRACE_SECONDS)
    fast.rate = 0.0
    assert house.evicted(1) == ["fast"]


@pytest.mark.usefixtures("pipe")
def test_what_was_fast_and_still_moves_is_put_in_its_place_first(house: House) -> None:
    """It may be faster than others; and in its place among the fast it is looked at in time."""
    fast, slower = (house.body(name, 40_000.0) for name in ("fast", "slower"))
    answer = house.answer("answer", 40_000.0)
    due = fast.queue.deadline(fast)
    house.pass_time(STALLED_SECONDS)
    slower.rate, answer.rate = 10_000.0, 5000.0
    assert house.evicted(1) == []
    assert fast.queue.deadline(fast) == due
    assert house.evicted(3) == ["answer", "slower"]


def test_room_that_is_uncertain_costs_no_client_that_waits_for_its_answer(house: House) -> None:
    house.body("slow", 1.0)
    house.add("deaf", house.timeouts.answers.fresh, DRAINING)
    house.pass_time(60)
    assert not house.eviction.evict_resting()
    house.add("idle", house.timeouts.idle)
    house.add("answered", house.timeouts.lingering, LINGERING)
    assert [house.eviction.evict_resting() for _ in range(3)] == [True, True, False]
    assert house.closed == ["answered", "idle"]


class Upload:
    """A body that needs ``wanted`` bytes of the spool; each that is closed gives 50 back."""

    def __init__(self, house: House, wanted: int) -> None:
        self._house, self._wanted = house, wanted

    def shortage(self, _length: int) -> str | None:
        return "max_spool is used up" if 50 * len(self._house.closed) < self._wanted else None


def test_slow_bodies_make_room_in_the_spool_as_far_as_they_have_any(house: House) -> None:
    for rate in (1.0, 10.0, 100.0, 40_000.0):
        house.body(f"{rate:g}", rate).size_in_spool = 0 if rate == 10.0 else 50
    house.add("head", house.timeouts.heads)
    house.pass_time(60)
    enough: Any = Upload(house, 100)
    assert house.eviction.make_spool_room(enough, 100) is None
    assert house.closed == ["1", "100"]
    too_much: Any = Upload(house, 1000)
    assert house.eviction.make_spool_room(too_much, 1000) == "max_spool is used up"
    assert house.closed == ["1", "100"]
    assert all(line.startswith("spool space; ") for line in house.told)


def test_only_a_close_helps_where_there_is_no_candidate(house: House) -> None:
    assert house.evicted(1) == []
    assert house.eviction.seconds_left() is None
    assert len(house.told) == 1
