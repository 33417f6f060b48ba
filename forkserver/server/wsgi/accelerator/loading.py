"""The extension, where it was built and is not switched off."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Final

from forkserver.config.accelerator import is_on

ABI: Final = 4  # of module.c: what it and the Python code ask of each other
_NAME: Final = "forkserver.server.wsgi.accelerator._exchange"


def load() -> ModuleType | None:
    """The extension, or None where it is switched off or was not built.

    Raises ImportError where it does not load, or was built of another version's source.
    """
    if not is_on():
        return None
    try:
        extension = importlib.import_module(_NAME)
    except ModuleNotFoundError as error:
        if error.name != _NAME:
            raise
        return None
    if (built := getattr(extension, "ABI", 0)) != ABI:
        raise ImportError(f"{extension.__file__} was built for another version of forkserver (ABI {built}, not {ABI})")
    return extension
