"""Tells when a module has been imported, without importing it for that.

A finder, the first on ``sys.meta_path`` for a while, has the others find the module, and its loader tell when the
module has been executed.

Source: https://docs.python.org/3/reference/import.html, "The meta path".
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class ImportFinder:
    """Calls ``loaded`` with each module of ``names`` that is imported."""

    def __init__(self, names: Collection[str], loaded: Callable[[ModuleType], None]) -> None:
        self._names = names
        self._loaded = loaded

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification that another finder gives; None for a module that is not watched."""
        if name not in self._names:
            return None
        others = [each for each in sys.meta_path if each is not self]
        spec = next((found for each in others if (found := each.find_spec(name, path, target))), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self._tell_of(spec.loader)
        return spec

    def _tell_of(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the class's own again
            execute(module)
            self._loaded(module)

        loader.exec_module = exec_module


@contextmanager
def told_of(names: Collection[str], loaded: Callable[[ModuleType], None]) -> Iterator[None]:
    """Until the block ends, call ``loaded`` with each module of ``names`` that is imported."""
    finder = ImportFinder(names, loaded)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:  # the application may have put another list of finders there
            sys.meta_path.remove(finder)
