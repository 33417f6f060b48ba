"""Directories whose entries change, as the kernel tells of them.

Source: inotify(7). File systems of other machines and of some containers tell nothing, so a caller looks by itself too.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

# include/uapi/linux/inotify.h
_MODIFIED: Final = 0x00000002
_ATTRIBUTES: Final = 0x00000004
_WRITTEN: Final = 0x00000008
_MOVED: Final = 0x00000040 | 0x00000080
_CREATED: Final = 0x00000100
_DELETED: Final = 0x00000200
_ONLY_DIRECTORIES: Final = 0x01000000
_MASK: Final = _MODIFIED | _ATTRIBUTES | _WRITTEN | _MOVED | _CREATED | _DELETED | _ONLY_DIRECTORIES
_EVENT: Final = struct.Struct("=iIII")  # wd, mask, cookie, and the length of the name behind it
_READ_BYTES: Final = 64 * 1024

_libc: Final = ctypes.CDLL(None, use_errno=True)


class DirectoryEvents:
    """Watched directories; ``fileno`` is readable when something has happened. Raises OSError."""

    def __init__(self) -> None:
        self._descriptor = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))  # the flags are defined as these
        if self._descriptor < 0:
            raise _error("inotify_init1")

    def fileno(self) -> int:
        return self._descriptor

    def watch(self, folder: str) -> None:
        """Tell of what happens to the entries of ``folder``; again is once. Raises OSError."""
        if int(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), ctypes.c_uint32(_MASK))) < 0:
            raise _error(f"inotify_add_watch {folder}")

    def take(self) -> set[str]:
        """The names of the entries to which something has happened since the last call; "" where some are not known."""
        names = set()
        try:
            while data := os.read(self._descriptor, _READ_BYTES):
                names |= _names(data)
        except BlockingIOError:
            pass  # all of them were taken
        return names

    def close(self) -> None:
        os.close(self._descriptor)


def _names(data: bytes) -> set[str]:
    """The names in what was read; an event of a queue that was too long, or of the directory itself, has none."""
    names, at = set(), 0
    while at < len(data):
        length = _EVENT.unpack_from(data, at)[3]
        at += _EVENT.size
        names.add(os.fsdecode(data[at : at + length].rstrip(b"\0")))
        at += length
    return names


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
