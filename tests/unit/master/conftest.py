"""A master whose children a test plays, and its parts alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from forkserver.linux import systemd
from forkserver.master.model.generation import Purpose
from forkserver.master.upgrade.snapshot import Snapshot
from harness.master import MakeService, Service
from harness.master_parts import Parts, Unshared


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


@pytest.fixture
def parts() -> Iterator[Parts]:
    made = Parts()
    yield made
    made.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the service manager is told."""
    sent: list[str] = []
    monkeypatch.setattr(systemd.Notifier, "_send", lambda _, message, **__: sent.append(message))
    return sent


@pytest.fixture
def unshared(parts: Parts) -> Unshared:
    return Unshared(parts)


@pytest.fixture
def released(unshared: Unshared, tmp_path: Path) -> Path:
    """A generation that was loaded by a link, which leads to another release by now, and has lost its template."""
    parts, link = unshared.parts, tmp_path / "current"
    for name in ("r1", "r2"):
        (tmp_path / name).mkdir()
    link.symlink_to("r1")
    cast("Any", parts.actions._resources).directory = str(link)
    parts.rollout.rolling, parts.rollout.current = None, parts.launcher.begin(Purpose.RELOAD, parts.settings)
    link.unlink()
    link.symlink_to("r2")
    parts.launcher.begin(Purpose.REPLACE, parts.settings)
    return link
