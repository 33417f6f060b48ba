"""The title of a process, as ps and top show it.

Of the distribution setproctitle its extension module alone is loaded: the package around it imports ``logging``, which
no other part of a master needs. Where the extension is not found there, the package says what is to be done.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import Any, Final

_PACKAGE: Final = "setproctitle"
_EXTENSION: Final = "setproctitle._setproctitle"


def _setter() -> Callable[[str], None]:
    package = PathFinder.find_spec(_PACKAGE)
    spec = package and PathFinder.find_spec(_EXTENSION, package.submodule_search_locations)
    if spec is None or spec.loader is None:
        from setproctitle import setproctitle

        return setproctitle
    module: Any = spec.loader.create_module(spec)
    spec.loader.exec_module(module)
    setter: Callable[[str], None] = module.setproctitle
    return setter


set_title: Final = _setter()
