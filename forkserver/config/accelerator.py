"""Which code serves plain requests: the extension in C where it was built, else Python alone.

``FORKSERVER_ACCELERATOR=off`` switches the extension off.
"""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Final

from forkserver.errors import PACKAGE

VARIABLE: Final = "FORKSERVER_ACCELERATOR"
_STEM: Final = os.path.join(PACKAGE, "server/wsgi/accelerator/_exchange")


def is_on() -> bool:
    """Whether the extension is to serve where it can."""
    return os.environ.get(VARIABLE, "").lower() != "off"


def accelerator() -> str:
    """``C`` or ``python``; nothing is loaded to find out."""
    built = any(os.path.exists(f"{_STEM}{suffix}") for suffix in EXTENSION_SUFFIXES)
    return "C" if built and is_on() else "python"
