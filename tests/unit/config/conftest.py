"""What tests of the settings share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No forkserver.toml of the directory the tests run in may be read."""
    monkeypatch.chdir(tmp_path)
