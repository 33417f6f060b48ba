"""Opening files by paths that another user may be able to change: logs, keys, settings.

Each function says what it trusts; trusted_paths.py walks the path and finds the rights to open with.

Source: open(2), memfd_create(2), fifo(7).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from forkserver.linux.files.file_permissions import user_name
from forkserver.linux.files.trusted_paths import GROUP_OR_ALL, Place, UntrustedPathError, find, our_uids

_MIB: Final = 1024 * 1024
_MOST_READ: Final = 16 * _MIB  # of a file: its owner can make it larger than all memory, at no cost
_NOT_REGULAR: Final = "not a regular file (a reload reads it again)"


def open_for_append(path: str, mode: int, service: int = -1) -> int:
    """A descriptor that appends to ``path``; a new file gets ``mode``. For logs, each time that one is opened.

    Returns at once: a FIFO is opened whether or not it has a reader, and its descriptor is non-blocking; no other is.
    ``service`` is the uid that workers run as. Raises OSError and UntrustedPathError.
    """
    with find(path, service) as place:
        return place.open(os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode)


@contextmanager
def readable(path: str, service: int = -1) -> Iterator[str]:
    """A name by which ``path`` can be read, as often as needed: that of a copy in memory, of 16 MiB at most.

    A link is followed with the rights of the user who may change it. The file itself is opened once and without
    waiting, for its owner can have the kernel hold whatever opens it (fcntl(2), F_SETLEASE). Raises OSError, and
    UntrustedPathError where it is no regular file.
    """
    with find(path, service, into_guarded=True) as place:
        number = _copied(place)
        try:
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)


def _copied(place: Place) -> int:
    """A descriptor of memory with what the file of ``place`` holds now. Raises OSError and UntrustedPathError."""
    number = os.memfd_create("forkserver-copy", os.MFD_CLOEXEC)
    try:
        with open(place.open(os.O_RDONLY), "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, _NOT_REGULAR, place.path)
            left = _MOST_READ
            while left > 0 and (data := file.read(min(left, _MIB))):
                os.write(number, data)
                left -= len(data)
        if not left:
            size = f"a file of {_MOST_READ // _MIB} MiB or more"
            if place.guarded:
                raise UntrustedPathError(f"{size}, and {place.reason}")
            raise UntrustedPathError(size, "name a smaller one")
    except BaseException:
        os.close(number)
        raise
    return number


def open_trusted(path: str) -> int | None:
    """``path`` for reading, where only root and we may write it and choose what it is; None where there is none.

    Raises OSError, and UntrustedPathError with the reason alone.
    """
    if not os.path.lexists(path):
        return None
    try:
        with find(path) as place:
            if place.guarded:
                raise UntrustedPathError(place.reason)
            number = place.open(os.O_RDONLY)
    except FileNotFoundError:  # a link that leads nowhere
        return None
    try:
        _refuse_writable(os.fstat(number))
    except UntrustedPathError:
        os.close(number)
        raise
    return number


def open_regular(path: str) -> int:
    """``path`` for reading, even if others may write it. Never waits: a FIFO or a device is refused. Raises OSError."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, _NOT_REGULAR, path)
    except OSError:
        os.close(number)
        raise
    return number


def _refuse_writable(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UntrustedPathError("it is not a regular file")
    if found.st_uid not in our_uids():
        raise UntrustedPathError(f"{user_name(found.st_uid)} owns it")
    if found.st_mode & GROUP_OR_ALL:
        raise UntrustedPathError(f"others than root may write it (mode {stat.S_IMODE(found.st_mode):04o})")
