"""Small facts that never change."""

from __future__ import annotations

from typing import ClassVar

import pytest

from forkserver.ipc.records import Record


class Move(Record):
    KIND: ClassVar[int] = 1
    slot: int
    generation: int = 2


class Turn(Record):
    slot: int
    generation: int = 2


def test_fields_come_in_their_order_by_name_or_by_default() -> None:
    """As a dataclass has it, and type checkers believe."""
    assert Move(1) == Move(1, 2) == Move(generation=2, slot=1)
    assert repr(Move(1)) == "Move(slot=1, generation=2)"
    assert Move(1).values() == (1, 2)


def test_records_of_two_classes_differ_whatever_they_hold() -> None:
    """Retiring a worker is not killing it, though both name one."""
    assert Move(1) != Turn(1)
    assert Move(1) != (1, 2)
    assert len({Move(1), Move(1), Move(3), Turn(1)}) == 3


def test_a_pattern_takes_the_fields() -> None:
    """The master tells steps and messages apart by ``match``."""
    match Move(1, 5):
        case Move(slot, generation):
            assert (slot, generation) == (1, 5)
        case other:
            pytest.fail(f"{other} is no Move")


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"slot": 1}), ((1,), {"KIND": 3}), ((1,), {"pid": 3})],
    ids=["missing", "too many", "twice", "no field", "unknown"],
)
def test_what_does_not_fit_the_fields_is_refused(values: tuple[int, ...], named: dict[str, int]) -> None:
    """A message made of what came over a channel must be whole."""
    with pytest.raises(TypeError, match=r"Move\(slot, generation\) cannot be made"):
        Move(*values, **named)


def test_nothing_changes_a_record() -> None:
    """A step that was planned is the step that is taken."""
    move = Move(1)
    with pytest.raises(AttributeError, match="never changes"):
        move.slot = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="never changes"):
        del move.slot
    assert move.slot == 1
