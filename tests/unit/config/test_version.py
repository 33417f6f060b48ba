"""The version that runs."""

from __future__ import annotations

from importlib import metadata

from forkserver.config import version


def test_the_version_is_that_of_the_distribution() -> None:
    assert metadata.version(version.DISTRIBUTION) == version.VERSION
