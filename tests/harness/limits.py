"""Limits of this process, as a test needs them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

USUAL_OPEN_FILES = 1024  # the soft limit that select(2) asks for


@contextmanager
def usual_open_files() -> Iterator[int]:
    """The usual soft limit of open files inside the block; gives the hard one. Skips where that is low."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4 * USUAL_OPEN_FILES:
        pytest.skip("the hard limit of open files is too low")
    resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL_OPEN_FILES, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
