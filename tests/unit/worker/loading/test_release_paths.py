"""A generation's folders stay what they were when it was begun, although a link on their paths is switched."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from forkserver.config import loading
from forkserver.config.invocation import Environment
from forkserver.worker.loading.release_paths import (
    Release,
    enter_search_path,
    gone,
    moved,
    pin_packages,
    search_path_without,
)


@pytest.fixture
def current(tmp_path: Path) -> Path:
    """A link that leads to the first of two releases."""
    for name in ("r1", "r2"):
        (tmp_path / name / "lib").mkdir(parents=True)
    link = tmp_path / "current"
    link.symlink_to("r1")
    return link


def switch(link: Path) -> None:
    link.unlink()
    link.symlink_to("r2")


@pytest.mark.parametrize("named", ["directory", "chdir", "relative chdir", "pythonpath"])
def test_a_switched_link_is_noticed_wherever_it_is_named(
    current: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(current.parent)
    arguments = {
        "directory": ["a:app"],
        "chdir": ["a:app", "--chdir", str(current)],
        "relative chdir": ["a:app", "--chdir", "current/lib"],
        "pythonpath": ["a:app", "--pythonpath", str(current / "lib")],
    }[named]
    directory = str(current if named == "directory" else current.parent)
    loaded = loading.load(arguments, {})
    release = Release.of(directory, loaded)
    assert moved(release, directory, loaded) is None
    switch(current)
    move = moved(release, directory, loaded)
    assert move is not None
    assert str(current) in move.typed
    assert (os.sep + "r1" in move.before, os.sep + "r2" in move.now) == (True, True)
    pinned = release.pin(loaded)
    assert moved(release, release.directory, pinned) is None
    assert loaded.chdir != pinned.chdir or loaded.pythonpath != pinned.pythonpath or named == "directory"


def test_a_folder_that_was_removed_is_named(current: Path) -> None:
    loaded = loading.load(["a:app", "--chdir", str(current)], {})
    release = Release.of("/", loaded)
    assert gone(release) == ""
    shutil.rmtree(current.parent / "r1")
    assert gone(release) == str(current.parent / "r1")


def test_packages_come_from_the_environment_of_before(current: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that are imported later, too: parts of a package, and forkserver's own."""
    package = ModuleType("pinned_package")
    package.__path__ = [str(current / "lib" / "package")]
    monkeypatch.setitem(sys.modules, "pinned_package", package)
    monkeypatch.setattr(sys, "path", [str(current / "lib"), "/elsewhere", f"{current}-not"])
    environment = Environment(str(current), os.path.realpath(current))
    pin_packages(environment)
    assert package.__path__ == [str(current / "lib" / "package")], "it leads there still"
    switch(current)
    pin_packages(environment)
    real = current.parent / "r1" / "lib"
    assert sys.path == [str(real), "/elsewhere", f"{current}-not"]
    assert package.__path__ == [str(real / "package")]


@pytest.mark.parametrize(
    ("named", "before", "after"),
    [
        ("src", ["r1/src"], ["r2/src"]),
        ("lib/../src", ["r1/src"], ["r2/src"]),
        ("../shared", ["shared"], ["shared"]),
        (".", ["r1"], ["r2"]),
        ("src:", ["r1/src", "r1"], ["r2/src", "r2"]),
        ("", ["r1", "r1/venv"], ["r1/venv"]),
        ("r1/src", ["r1/src"], ["r1/src"]),
        ("{top}/r1/src", ["r1/src"], ["r1/src"]),
        ("{top}/r1", ["r1"], ["r1"]),
        ("src", ["r1/lib", "r1-not", "r1"], ["r1/lib", "r1-not"]),
    ],
    ids=[
        "relative", "with a parent", "a sibling", "the directory", "the directory by an empty entry", "-m or -c",
        "of another meaning", "absolute", "the directory, absolute", "not of the variable",
    ],
)  # fmt: skip
def test_relative_entries_of_pythonpath_mean_the_directory_that_was_entered(
    current: Path, monkeypatch: pytest.MonkeyPatch, named: str, before: list[str], after: list[str]
) -> None:
    """What was given by its whole path stays: the environment of a release, and what its .pth files name."""
    top = current.parent
    monkeypatch.chdir(top / "r2")
    monkeypatch.setattr(sys, "path", ["/elsewhere", *(str(top / each) for each in before)])
    enter_search_path(str(top / "r1"), named.format(top=top))
    assert sys.path == ["/elsewhere", *(str(top / each) for each in after)]


def test_what_runs_by_roots_rights_is_never_imported_from_the_folder_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``python -m forkserver`` searches it first, and its user may be the application's."""
    (tmp_path / "planted.py").touch()
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), f"{tmp_path}/", *sys.path])
    monkeypatch.chdir(tmp_path)
    before = sys.path[:]
    with search_path_without(str(tmp_path)):
        assert importlib.util.find_spec("planted") is None
        assert importlib.util.find_spec("wave") is not None
    assert sys.path == before
