"""A service for the tests of the master's model."""

from __future__ import annotations

import pytest

from forkserver.master.model.events import EventKind
from harness.model import House


@pytest.fixture
def house() -> House:
    """Four workers of generation 1 serve."""
    made = House()
    made.load()
    made.boot_all()
    assert made.news() == [(EventKind.READY, 1)]
    return made
