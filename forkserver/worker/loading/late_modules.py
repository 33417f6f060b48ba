"""Modules that are imported before they are needed, and where they are, where not each start needs them.

The master imports some once the workers serve: no start waits for them, and the environment that they come from may be
removed or replaced while the service runs. A template that gives up root's rights imports others before that, because
the application's user may not be able to read them.
"""

from __future__ import annotations

import importlib
from typing import Final

# For: a mistyped setting. (tomllib is there where a file was read at the start.)
_MODULES: Final = ("difflib",)
# For: an application that is none, or is named in an unusual way; one that imports the classes of this package.
_OF_AN_APPLICATION: Final = ("ast", "difflib", "importlib.util", "inspect", "pkgutil", "forkserver.server.wsgi_server")


def load() -> None:
    """Import what the master may need later. Raises ImportError."""
    for name in _MODULES:
        importlib.import_module(name)


def load_for_application() -> None:
    """Import what may be needed while an application is loaded. Raises ImportError."""
    for name in _OF_AN_APPLICATION:
        importlib.import_module(name)
