"""Deadlines come due in their order, and asking costs no more than what is due."""

from __future__ import annotations

from forkserver.server.connection.timeout_queue import TimeoutQueue, earliest


def queue(*things: str, seconds: float = 10.0) -> TimeoutQueue[str]:
    """A queue into which each of ``things`` was put a second after the one before, from second 0."""
    made: TimeoutQueue[str] = TimeoutQueue(seconds)
    for now, thing in enumerate(things):
        made.put(thing, now)
    return made


def test_things_are_due_in_the_order_they_were_put_in() -> None:
    made = queue("a", "b", "c")
    assert made.due(9.9) == []
    assert made.due(10) == ["a"]
    assert made.due(100) == ["b", "c"]
    assert made.due(100) == [], "what was due is out"
    assert len(made) == 0


def test_a_thing_that_shows_life_starts_anew() -> None:
    """Progress counts, not age."""
    made = queue("a", "b")
    made.put("a", 5)
    assert list(made) == ["b", "a"]
    assert made.due(14) == ["b"]
    assert made.due(15) == ["a"]


def test_a_thing_that_is_forgotten_is_never_due() -> None:
    made = queue("a", "b")
    made.discard("a")
    made.discard("a")
    made.discard("never there")
    assert made.due(100) == ["b"]


def test_the_first_is_known_without_taking_it() -> None:
    """The longest idle connection is what is closed when room is needed."""
    made = queue("a", "b")
    assert (made.first(), made.next_due(), len(made)) == ("a", 10, 2)
    empty = queue()
    assert (empty.first(), empty.next_due()) == (None, None)


def test_time_0_is_a_deadline_like_any() -> None:
    """A machine's clock may just have started."""
    made = queue("a", seconds=0.0)
    assert made.next_due() == 0
    assert earliest([made]) == 0
    assert made.due(0) == ["a"]


def test_the_earliest_of_several_queues_is_found() -> None:
    assert earliest([queue("a"), queue(), queue("b", seconds=3.0)]) == 3
    assert earliest([queue(), queue()]) is None
    assert earliest([]) is None
