"""A control socket in a folder of the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.control_clients import ControlClients


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[ControlClients]:
    made = ControlClients(str(tmp_path / "control.sock"))
    yield made
    made.close()
