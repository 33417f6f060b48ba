"""A master whose children a test plays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.master.upgrade.snapshot import Snapshot
from harness.master import MakeService, Service


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[MakeService]:
    """Makes a master that starts; settings are those of its file."""
    made: list[Service] = []

    def make(snapshot: Snapshot | None = None, **settings: str) -> Service:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Service(folder, snapshot, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def service(make_service: MakeService) -> Service:
    """Two workers serve."""
    made = make_service()
    made.serve()
    return made
