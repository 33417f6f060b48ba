"""Events that the operator is told about."""

from __future__ import annotations

from forkserver.ipc.serialization import load
from forkserver.master.model.events import EventKind


def test_an_event_that_an_earlier_version_left_to_tell_is_understood() -> None:
    before = "a dead template's successor does not load; who lives serves on"
    assert load(EventKind, before) is EventKind.NOT_REPLACED
