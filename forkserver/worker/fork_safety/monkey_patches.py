"""Recognises gevent's and eventlet's monkey patches, which replace what forkserver's own processes run on.

``monkey.patch_all()`` replaces select, threading and os.fork, among others, for every module of the process. The loop
and the threads of a worker then wait for a hub that does not run, so the worker would never be ready. Patches of
modules that a worker does not wait in, such as ``patch_ssl()``, do no harm and are let pass.

Source: https://www.gevent.org/api/gevent.monkey.html, https://eventlet.readthedocs.io/en/latest/patching.html.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from forkserver.errors import LoadError
from forkserver.linux.common.records import NamedTuple

# The loop waits in select, its background driver is a thread, and workers are forked by os.fork.
_NEEDED: Final = frozenset({"os", "select", "selectors", "thread", "_thread", "threading"})


class _Library(NamedTuple):
    name: str
    module: str
    attribute: str  # of the module: a mapping whose keys are the patched modules
    call: str


_LIBRARIES: Final = (
    _Library("gevent", "gevent.monkey", "saved", "monkey.patch_all()"),
    _Library("eventlet", "eventlet.patcher", "already_patched", "monkey_patch()"),
)


def refuse(app: str) -> None:
    """Raise LoadError where the import of ``app`` has replaced what a worker runs on."""
    for library in _LIBRARIES:
        if patched := _patched(library):
            raise LoadError(
                f"application {app!r}: {library.name}'s {library.call} has replaced {', '.join(patched)} in this "
                "process, so a worker, which runs threads and its own event loop, would never be ready; "
                f"remove the call and use --threads N, or serve the application by a server for {library.name}"
            )


def _patched(library: _Library) -> list[str]:
    patched = getattr(sys.modules.get(library.module), library.attribute, None)
    if not isinstance(patched, Mapping):
        return []  # not loaded, or another version than those known
    return sorted(_NEEDED.intersection(name for name, value in patched.items() if value))
