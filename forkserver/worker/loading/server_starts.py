"""Refuses a server that the application starts while it is imported, such as Flask's by ``app.run()``.

Such a call never returns, so the import would never end. It belongs under ``if __name__ == "__main__":``. Until the
import ends, the functions that serve until they are stopped raise an error instead, in the thread of the import; a
server in another thread, or in a process that was forked, is let be.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from os import getpid  # the built-in function: an import that is watched notes calls of os.getpid
from types import ModuleType
from typing import Any, Final

from forkserver.worker.fork_safety.import_finder import told_of

UNDER_MAIN: Final = 'if __name__ == "__main__":'
# By module: the class, if any, and the function that serves until it is stopped.
_FUNCTIONS: Final = {
    "aiohttp.web": ("", "run_app"),
    "socketserver": ("BaseServer", "serve_forever"),
    "uvicorn": ("", "run"),
    "waitress": ("", "serve"),
    "werkzeug.serving": ("", "run_simple"),
}


@contextmanager
def refused() -> Iterator[None]:
    """Until the block ends, have each such function raise RuntimeError in this thread."""
    here = getpid(), get_ident()
    active = True
    undo: list[Callable[[], None]] = []

    def is_refused() -> bool:
        return active and here == (getpid(), get_ident())

    def replace(module: ModuleType) -> None:
        holder, name = _FUNCTIONS[module.__name__]
        owner = getattr(module, holder, None) if holder else module
        if owner is not None and hasattr(owner, name):
            undo.append(_replace(owner, name, module.__name__, is_refused))

    for name in _FUNCTIONS.keys() & sys.modules.keys():
        replace(sys.modules[name])
    try:
        with told_of(_FUNCTIONS.keys(), replace):
            yield
    finally:
        active = False
        for each in undo:
            each()


def _replace(owner: Any, name: str, module: str, is_refused: Callable[[], bool]) -> Callable[[], None]:
    """Put in place of ``owner``'s function one that first asks ``is_refused``; gives what puts it back."""
    original = getattr(owner, name)

    @wraps(original)
    def guarded(*arguments: Any, **named: Any) -> Any:
        if is_refused():
            raise RuntimeError(
                f"{module}'s {name} would start a server here, which forkserver is already; put that call under "
                f"`{UNDER_MAIN}`"
            )
        return original(*arguments, **named)

    setattr(owner, name, guarded)

    def put_back() -> None:
        if getattr(owner, name, None) is guarded:  # the application may have put its own there
            setattr(owner, name, original)

    return put_back
