"""States in sealed memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forkserver.master.upgrade import snapshot
from forkserver.master.upgrade.snapshot import Snapshot


@pytest.fixture
def memory() -> Iterator[Callable[[Any], int]]:
    opened: list[int] = []

    def make(content: Any) -> int:
        opened.append(content.sealed() if isinstance(content, Snapshot) else snapshot.sealed(content, "test"))
        return opened[-1]

    yield make
    for number in opened:
        os.close(number)
