"""The version that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import pytest

from forkserver.config import version


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    version.version.cache_clear()
    yield
    version.version.cache_clear()


def test_the_version_is_that_of_the_distribution() -> None:
    assert version.version() == metadata.version("forkserver-wsgi")


def test_the_version_stays_when_the_files_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The master of a long-running service tells what runs, not what was installed since."""
    runs = version.version()
    monkeypatch.setattr(metadata, "version", lambda _name: "99")
    assert version.version() == runs


def test_without_an_installation_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert version.version() == "(not installed: running from its source)"
