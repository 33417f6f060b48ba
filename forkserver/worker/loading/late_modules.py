"""Modules that the master imports once the workers serve.

No start waits for them. They are imported then and not when they are first needed, because the environment that they
come from may be removed or replaced while the service runs.
"""

from __future__ import annotations

import importlib
from typing import Final

# For: an interpreter looked up by its name; a mistyped setting; a configuration file.
_MODULES: Final = ("shutil", "difflib", "tomllib")


def load() -> None:
    """Import all of them. Raises ImportError."""
    for name in _MODULES:
        importlib.import_module(name)
