"""A module tells of its first import, and is imported as if nothing looked on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.worker.fork_safety.import_finder import told_of


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "watched_module.py").write_text("value = 1\n")
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    (tmp_path / "other_module.py").write_text("")
    yield
    for name in ("watched_module", "broken_module", "other_module"):
        sys.modules.pop(name, None)


def test_the_import_of_a_watched_module_is_told_when_it_is_executed() -> None:
    told: list[object] = []
    before = list(sys.meta_path)
    with told_of({"watched_module", "missing_module"}, lambda module: told.append((module, module.value))):
        importlib.import_module("other_module")
        made = importlib.import_module("watched_module")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("missing_module")
    assert told == [(made, 1)]
    assert sys.meta_path == before
    assert "exec_module" not in vars(made.__loader__)


def test_a_module_that_fails_is_not_told_of() -> None:
    told: list[object] = []
    with told_of({"broken_module"}, told.append), pytest.raises(ZeroDivisionError):
        importlib.import_module("broken_module")
    assert told == []


def test_finders_that_were_replaced_meanwhile_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = list(sys.meta_path)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path)
    with told_of({"watched_module"}, lambda module: None):
        sys.meta_path = ours
    assert sys.meta_path is ours
