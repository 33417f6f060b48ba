"""Modules that the master imports once the workers serve.

No start waits for them. They are imported then and not when they are first needed, because the environment that they
come from may be removed or replaced while the service runs.
"""

from __future__ import annotations

import importlib
from typing import Final

# For: an interpreter looked up by its name; a mistyped setting. (tomllib is there where a file was read at the start.)
_MODULES: Final = ("shutil", "difflib")


def load() -> None:
    """Import all of them. Raises ImportError."""
    for name in _MODULES:
        importlib.import_module(name)
