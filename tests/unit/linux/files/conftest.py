"""Folders of root's and of another user's for the tests of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import reach
from harness.intruder import give


@pytest.fixture
def public() -> Iterator[Path]:
    with reach.public_folder() as made:
        yield made


@pytest.fixture
def foreign(public: Path) -> Path:
    """A folder of another user's."""
    folder = public / "foreign"
    folder.mkdir()
    give(folder)
    return folder
