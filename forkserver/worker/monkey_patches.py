"""Recognises gevent's and eventlet's monkey patches, which replace what forkserver's own processes run on.

``monkey.patch_all()`` replaces select, threading, socket, signal and os.fork for every module of the process. The loop
and the threads of a worker then wait for a hub that does not run, so the worker would never be ready.

Source: https://www.gevent.org/api/gevent.monkey.html, https://eventlet.readthedocs.io/en/latest/patching.html.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from forkserver.errors import LoadError


def refuse(app: str) -> None:
    """Raise LoadError where ``app`` has applied monkey patches while it was imported."""
    for library, call, patched in _patches():
        shown = ", ".join(patched[:6]) + (", …" if len(patched) > 6 else "")
        raise LoadError(
            f"application {app!r}: {call} of {library} has replaced {shown} while it was imported, and a worker "
            "that runs real threads and its own event loop would never be ready; "
            f"remove the call, and use --threads N for requests that wait (or serve the application with {library})"
        )


def _patches() -> list[tuple[str, str, list[str]]]:
    """Each library whose patches are in place, the call that applies them, and the modules that are patched."""
    found = []
    saved = getattr(sys.modules.get("gevent.monkey"), "saved", None)  # module name -> what was there before
    if isinstance(saved, Mapping) and saved:
        modules = sorted(name for name in map(str, saved) if not name.startswith("_gevent"))
        found.append(("gevent", "monkey.patch_all()", modules))
    already = getattr(sys.modules.get("eventlet.patcher"), "already_patched", None)  # module name -> True
    if isinstance(already, Mapping) and any(already.values()):
        found.append(("eventlet", "monkey_patch()", sorted(str(name) for name, is_so in already.items() if is_so)))
    return found
