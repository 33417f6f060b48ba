"""A file without a name: no other process can open it, and it is gone with its last descriptor.

As tempfile.TemporaryFile makes it, whose module a worker would load, with those for compression, for nothing else.

Source: open(2) on O_TMPFILE, which NFS and overlays of old kernels lack: there a name is made and removed at once.
"""

from __future__ import annotations

import os
from errno import EISDIR, ENOENT, EOPNOTSUPP
from io import FileIO
from typing import Final

_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_MODE: Final = 0o600
_LACKING: Final = (EOPNOTSUPP, EISDIR, ENOENT)  # ENOENT: the folder is not there, or a kernel before O_TMPFILE


def open_nameless(folder: str, prefix: str) -> FileIO:
    """Such a file in ``folder``, for reading and writing, without a buffer; a name, if needed, has ``prefix``.

    Raises OSError.
    """
    try:
        return FileIO(os.open(folder, _FLAGS & ~os.O_NOFOLLOW | os.O_TMPFILE | os.O_EXCL, _MODE), "rb+")
    except OSError as error:
        if error.errno not in _LACKING:
            raise
    path = os.path.join(folder, f"{prefix}{os.urandom(8).hex()}")
    made = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, _MODE)
    try:
        os.unlink(path)
    except OSError:
        os.close(made)
        raise
    return FileIO(made, "rb+")
