"""Where in the code something happens, as an operator can look it up: module and line.

Code is told apart by its file: the standard library's, an installed package's, forkserver's own, what was generated,
the import system's, and the application's, which is all the rest. A compiled module (Cython, mypyc) has no frames: what
it calls while it is imported seems to be called by the import system, which calls nothing of the kind by itself.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from types import FrameType
from typing import Final

from forkserver.errors import PACKAGE

_STDLIB: Final = os.path.dirname(os.__file__) + os.sep
_OURS: Final = PACKAGE + os.sep
_INSTALLED: Final = ("/site-packages/", "/dist-packages/")
_FRAMES: Final = 2000  # looked at for one place; an import within an import takes about ten


def caller(depth: int) -> FrameType | None:
    """The frame ``depth`` calls above the function that asks; None where no Python code is so far up.

    A thread may begin in C code: ``_thread.start_new_thread(os.open, ...)``.
    """
    try:
        return sys._getframe(depth + 1)
    except ValueError:
        return None


def place(frame: FrameType | None) -> str:
    """The innermost line outside the standard library and forkserver, and the application's that led to it."""
    inner = ""
    for _ in range(_FRAMES):
        if frame is None:
            break
        kind = kind_of(frame.f_code.co_filename)
        if kind == "application":
            own = _line(frame)
            return own if not inner else f"{inner}, by {own}"
        if kind == "installed" and not inner:
            inner = _line(frame)
        frame = frame.f_back
    return inner


def _line(frame: FrameType) -> str:
    return f"{module_of(frame)}:{frame.f_lineno}"


def module_of(frame: FrameType) -> str:
    """The name of the module whose code ``frame`` runs."""
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else os.path.basename(frame.f_code.co_filename)


@cache
def kind_of(file: str) -> str:
    """Whose code ``file`` is."""
    if file.startswith("<frozen importlib."):
        return "import"
    if file.startswith("<frozen "):
        return "stdlib"
    if file.startswith("<"):
        return "generated"
    if file.startswith(_OURS):
        return "ours"
    if any(part in file for part in _INSTALLED):
        return "installed"
    return "stdlib" if file.startswith(_STDLIB) else "application"
