"""Another user's rights on files, for one thread and one block of code.

Root opens and makes files in folders that another user may change. With root's rights a link that is put there in time
leads to any file. ``acting_as`` gives the calling thread that user's identity for files (fsuid, fsgid and groups): the
kernel then checks every step of a path as it does for that user, whatever is swapped meanwhile. The other identities
stay root's, so the way back is always open. The kernel forgets at each change whether the process may be dumped;
``acting_as`` restores that.

Source: setfsuid(2), setfsgid(2), setgroups(2), PR_SET_DUMPABLE(2const), fchownat(2), capabilities(7),
user_namespaces(7).
"""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from forkserver.linux.common.records import NamedTuple

_PR_GET_DUMPABLE: Final = 3  # include/uapi/linux/prctl.h
_PR_SET_DUMPABLE: Final = 4
_DUMPABLE: Final = 1
_NO_ID: Final = 2**32 - 1  # (uid_t) -1: changes nothing, so the call gives what is in force
_AT_EMPTY_PATH: Final = 0x1000  # include/uapi/linux/fcntl.h
_UID_MAP: Final = "/proc/self/uid_map"

# The system call concerns one thread; the function of the C library changes all threads. From the kernel's tables.
_SETGROUPS: Final = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206}

_libc: Final = ctypes.CDLL(None, use_errno=True)


class ActingError(OSError):
    """This process may not take another user's rights, although it is root."""

    def __init__(self, actor: Actor) -> None:
        super().__init__(
            errno.EPERM, f"cannot act as {actor.name}: the capabilities CAP_SETUID and CAP_SETGID are missing"
        )


class Actor(NamedTuple):
    """A user as file permissions know one: uid, gid and supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def name(self) -> str:
        return user_name(self.uid)


def actor_of(uid: int) -> Actor:
    """The user ``uid`` with the groups of its account; one without an account has a group of the same number."""
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return Actor(uid, uid, (uid,))
    return Actor(uid, account.pw_gid, tuple(os.getgrouplist(account.pw_name, account.pw_gid)))


def user_name(uid: int) -> str:
    """The name of the account ``uid``, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The name of the group ``gid``, or its number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def is_mapped(uid: int) -> bool:
    """Whether the user exists in this process's user namespace; an owner that does not is shown as 65534."""
    try:
        with open(_UID_MAP, encoding="ascii") as file:
            ranges = [line.split() for line in file]
    except OSError:  # no /proc: acting as that user says so
        return True
    return any(int(first) <= uid < int(first) + int(count) for first, _, count in ranges)


@contextmanager
def acting_as(actor: Actor | None) -> Iterator[None]:
    """Have this thread open and make files with the rights of ``actor``; None changes nothing. Raises ActingError."""
    if actor is None:
        yield
        return
    before = Actor(_current(_libc.setfsuid), _current(_libc.setfsgid), tuple(os.getgroups()))
    dumpable = _dumpable()
    try:
        try:
            _set_groups(actor.groups)  # first: it is refused where nothing has been changed yet
        except OSError:
            raise ActingError(actor) from None
        try:
            _set(_libc.setfsgid, actor.gid)
            _set(_libc.setfsuid, actor.uid)
            yield
        finally:
            _set(_libc.setfsuid, before.uid)
            _set(_libc.setfsgid, before.gid)
            _set_groups(before.groups)
    finally:
        if dumpable == _DUMPABLE:
            _libc.prctl(_PR_SET_DUMPABLE, *map(ctypes.c_ulong, (_DUMPABLE, 0, 0, 0)))


def change_owner(number: int, uid: int, gid: int) -> None:
    """Give the file behind ``number`` (O_PATH will do) to ``uid`` and ``gid``; -1 keeps either. Raises OSError."""
    empty = ctypes.c_char_p(b"")
    if _libc.fchownat(number, empty, ctypes.c_uint(uid & _NO_ID), ctypes.c_uint(gid & _NO_ID), _AT_EMPTY_PATH) != 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))


def _dumpable() -> int:
    return int(_libc.prctl(_PR_GET_DUMPABLE, *map(ctypes.c_ulong, (0, 0, 0, 0))))


def _current(change: Callable[[Any], int]) -> int:
    return int(change(ctypes.c_uint(_NO_ID))) & _NO_ID


def _set(change: Callable[[Any], int], number: int) -> None:
    """setfsuid(2) and setfsgid(2) give the previous number whether or not they fail: ask what is in force."""
    change(ctypes.c_uint(number))
    if _current(change) != number:
        raise ActingError(Actor(number, number, ()))


def _set_groups(groups: Sequence[int]) -> None:
    number = _SETGROUPS.get(os.uname().machine)
    if number is None:
        os.setgroups(groups)
        return
    wanted = (ctypes.c_uint * len(groups))(*groups)
    if _libc.syscall(ctypes.c_long(number), ctypes.c_size_t(len(groups)), wanted) != 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
