"""The extension, where it was built and is not switched off."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Final

from forkserver.config.accelerator import is_on

_NAME: Final = "forkserver.server.wsgi.accelerator._exchange"


def load() -> ModuleType | None:
    """The extension, or None where it is switched off or was not built. Raises ImportError where it does not load."""
    if not is_on():
        return None
    try:
        return importlib.import_module(_NAME)
    except ModuleNotFoundError as error:
        if error.name != _NAME:
            raise
        return None
