"""What to do about a path whose file system is mounted read-only, as a unit's or a container's often is.

Source: ``ProtectSystem=`` and ``ReadWritePaths=`` in systemd.exec(5).
"""

from __future__ import annotations

import errno
import os


def way_out(error: OSError, path: str) -> str:
    """How to have ``path`` writable where ``error`` says that its file system is not; else empty."""
    if error.errno != errno.EROFS:
        return ""
    folder = os.path.dirname(os.path.abspath(path))
    return (
        f"under systemd (ProtectSystem=strict) allow it with ReadWritePaths={folder}, or "
        "write below the folder of StateDirectory=, LogsDirectory= or RuntimeDirectory=; in a container mount a volume"
    )
