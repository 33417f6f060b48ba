"""A service for the tests of the master's model."""

from __future__ import annotations

import pytest

from forkserver.master.model.events import EventKind
from harness.model import House
from harness.unshared import Service


@pytest.fixture
def house() -> House:
    """Four workers of generation 1 serve."""
    made = House()
    made.load()
    made.boot_all()
    assert made.news() == [(EventKind.READY, 1)]
    return made


@pytest.fixture
def service() -> Service:
    """Four workers of generation 1 serve, on a machine with two processors."""
    made = Service()
    made.boot_all()
    assert made.news() == [(EventKind.READY, 1)]
    return made
