"""Monkey patches are recognised by what gevent and eventlet say of themselves."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from forkserver.errors import LoadError
from forkserver.worker.fork_safety import monkey_patches


def pretend(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: object) -> None:
    module = ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


def test_without_gevent_and_eventlet_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gevent.monkey", "eventlet.patcher"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkey_patches.refuse("site:app")


def test_a_library_that_is_only_imported_is_let_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "gevent.monkey", saved={})
    pretend(monkeypatch, "eventlet.patcher", already_patched={"os": False})
    monkey_patches.refuse("site:app")


@pytest.mark.parametrize(
    ("module", "attribute", "named"),
    [
        ("gevent.monkey", "saved", r"gevent's monkey.patch_all\(\) has replaced _thread, os, select in this process"),
        ("eventlet.patcher", "already_patched", r"eventlet's monkey_patch\(\) has replaced _thread, os, select in"),
    ],
)
def test_patches_of_what_a_worker_runs_on_are_refused(
    monkeypatch: pytest.MonkeyPatch, module: str, attribute: str, named: str
) -> None:
    """A worker would never be ready, and nothing would say why."""
    pretend(monkeypatch, module, **{attribute: {"select": {"poll": 1}, "os": True, "_thread": True, "ssl": True}})
    with pytest.raises(LoadError, match=named) as caught:
        monkey_patches.refuse("site:app")
    assert "use --threads N" in str(caught.value)


@pytest.mark.parametrize("patched", [{"ssl": True}, {"socket": True, "queue": True}])
def test_patches_of_anything_else_are_let_pass(monkeypatch: pytest.MonkeyPatch, patched: dict[str, bool]) -> None:
    pretend(monkeypatch, "gevent.monkey", saved=patched)
    monkey_patches.refuse("site:app")


def test_a_version_that_keeps_its_books_otherwise_is_let_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "gevent.monkey", saved=SimpleNamespace(os=True))
    monkey_patches.refuse("site:app")
