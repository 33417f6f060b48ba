"""What is known of the files that are watched: when one was changed, replaced, removed or made.

A file is looked at by its time of modification, size and inode: an editor writes it again, or puts another in its
place. While an import that failed is the last one, a module that appears in a folder of modules counts too.

A file may be written by the import itself (generated code, a version file), and would have the code loaded again for
ever. So one that has changed while something was loading, several times in a row, does not count while something loads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final

Look = Callable[[str], os.stat_result]
State = tuple[int, int, int] | None  # None where there is no such file

MOST_WHILE_LOADING: Final = 3  # changes of a file in a row that count although something loads
MOST_IN_FOLDERS: Final = 10_000  # files below folders that were named, so that a mistaken "/" does not take the machine


class FileStates:
    """The files that were ``add``-ed, and what was last seen of them. ``look`` is os.stat."""

    def __init__(self, look: Look = os.stat) -> None:
        self._look = look
        self._states: dict[str, State] = {}
        self._while_loading: dict[str, int] = {}
        self._folders: dict[str, frozenset[str]] = {}
        self._roots: list[str] = []
        self.loading = False
        self.failed = False  # the last import has

    @property
    def count(self) -> int:
        return len(self._states)

    def add(self, paths: Iterable[str], since_ns: int | None = None) -> list[str]:
        """Watch ``paths`` too. Returns those that are new here and were modified after ``since_ns``."""
        late = []
        for path in paths:
            if path not in self._states:
                state = self._states[path] = self._state(path)
                if since_ns is not None and state is not None and state[0] > since_ns and self._counts(path):
                    late.append(path)
        return late

    def add_roots(self, paths: Iterable[str]) -> None:
        """Watch files, and every file below folders, that were named."""
        self._roots = list(paths)
        self.add(self._below_roots())

    def look_for_modules_in(self, folders: Iterable[str], since_ns: int | None = None) -> list[str]:
        """Watch ``folders`` for modules that appear, as long as the last import has failed.

        Returns those that were made after ``since_ns``, when that import began: it may have looked for them before.
        """
        self._folders = {folder: _modules_in(folder) for folder in folders}
        if since_ns is None:
            return []
        found = (os.path.join(folder, name) for folder, names in self._folders.items() for name in names)
        return [path for path in found if self._is_made_since(path, since_ns) and self._counts_while_loading(path)]

    def _is_made_since(self, path: str, since_ns: int) -> bool:
        try:
            return path.endswith(".py") and self._look(path).st_ctime_ns > since_ns
        except OSError:
            return False

    def folders(self) -> set[str]:
        """The folders in which something may happen that counts, links followed."""
        files = (each for path in self._states for each in (path, os.path.realpath(path)))
        return {*map(os.path.dirname, files), *self._folders, *filter(os.path.isdir, self._roots)}

    def changed(self) -> list[str]:
        """What counts and has changed since the last call, in order."""
        found = [path for path in self._differing() if self._counts(path)]
        if self.failed:
            found += self._appeared()
        return sorted(found)

    def _differing(self) -> Iterator[str]:
        if self._roots:
            known = set(self._states)
            for path in self._below_roots():
                if path not in known:
                    self._states[path] = self._state(path)
                    yield path
        for path, before in self._states.items():
            now = self._state(path)
            if now != before:
                self._states[path] = now  # the keys stay
                yield path

    def _appeared(self) -> Iterator[str]:
        for folder, before in self._folders.items():
            now = _modules_in(folder)
            self._folders[folder] = now
            yield from (os.path.join(folder, name) for name in now - before)

    def _counts(self, path: str) -> bool:
        if not self.loading:
            self._while_loading.pop(path, None)
            return True
        return self._counts_while_loading(path)

    def _counts_while_loading(self, path: str) -> bool:
        self._while_loading[path] = times = self._while_loading.get(path, 0) + 1
        return times <= MOST_WHILE_LOADING

    def _state(self, path: str) -> State:
        try:
            found = self._look(path)
        except (OSError, ValueError):
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _below_roots(self) -> Iterator[str]:
        left = MOST_IN_FOLDERS
        for root in self._roots:
            if not os.path.isdir(root):
                yield root
                continue
            for folder, folders, files in os.walk(root):
                folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
                for name in files[:left]:
                    yield os.path.join(folder, name)
                left -= min(left, len(files))


def _modules_in(folder: str) -> frozenset[str]:
    """The names in ``folder`` that may be modules or packages."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return frozenset()
    named = (entry.name for entry in entries if entry.name.endswith(".py") or _may_be_package(entry))
    return frozenset(named)


def _may_be_package(entry: os.DirEntry[str]) -> bool:
    return entry.name.isidentifier() and entry.name != "__pycache__" and entry.is_dir()
