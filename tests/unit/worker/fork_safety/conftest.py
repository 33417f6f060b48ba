"""A small heap for tests that look through it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _objects_of_the_run_are_not_looked_through() -> Iterator[None]:
    """The test run has a hundred times the objects of a template, and each search of the heap looks at all of them."""
    gc.freeze()
    yield
    gc.unfreeze()
