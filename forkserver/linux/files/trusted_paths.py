"""Which rights a path may be opened with: ours, or those of a user who may change what the path leads to.

``find`` walks a path from the root folder, one component at a time, each held open and judged by its descriptor. While
every folder belongs to root or to us and no other user may write it, the path is trusted and means what root has put
there: links, FIFOs and devices included. The first folder or link of another user hands the rest of the path to that
user: from there on the thread acts with that user's rights (file_permissions.py), so the path reaches nothing that the
user does not reach anyway. A folder of root's that others may write is shared: root's own entries in it count where the
sticky bit protects them, and everything else is guarded.

What is guarded is opened without following a link in the last place, and has to be a regular file with one name: else
a link, a hard link or a FIFO that was put there would choose the file. An ordinary user cannot act as another; then
guarded is all that changes.

A folder of the service's user inside another user's (``/srv/app`` of a deploy account, ``/srv/app/run`` of www-data) is
the one place where the rights pass from one user to the next: ``service`` is that user's number.

Source: path_resolution(7), symlink(7), open(2) on O_PATH and O_NOFOLLOW, proc(5), "Safe path walking" in
systemd's chase(); fs.protected_symlinks in sysctl_fs(5) for the rule about links.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from forkserver.linux.files.file_permissions import ActingError, Actor, acting_as, actor_of, is_mapped, user_name

_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_ENTRY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
GROUP_OR_ALL: Final = stat.S_IWGRP | stat.S_IWOTH  # an access control list shows in the group's bits: acl(5)
_PROC_ROOT_INODE: Final = 1  # include/linux/proc_ns.h, PROC_ROOT_INO
WAY_OUT: Final = "name one in a folder that only root may write"
_MOST_LINKS: Final = 40  # path_resolution(7)


class UntrustedPathError(OSError):
    """A path that is not opened, for a ``reason`` that the system knows nothing of. The text is ``reason; way out``."""

    def __init__(self, reason: str, way_out: str = WAY_OUT) -> None:
        super().__init__(errno.EPERM, f"{reason}; {way_out}")
        self.reason = reason

    def __str__(self) -> str:
        return str(self.strerror)


class Place:
    """Where a path leads: an open folder and a name in it, ``path`` as it was given.

    ``actor`` is the user whose rights count there, None for our own. ``reason`` says why the place is guarded, and is
    empty where it is trusted. A context manager, which closes the folder.
    """

    def __init__(self, path: str, walk: _Walk, name: str) -> None:
        self.path = path
        self.name = name
        self.folder = walk.folder
        self.actor = walk.actor
        self.replaceable = bool(walk.reason)  # the folder itself: its path may lead elsewhere by now
        self.reason = walk.reason or walk.shared_folder
        self._service = walk.service
        self._magic = walk.in_proc

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.folder)

    @property
    def guarded(self) -> bool:
        return bool(self.reason)

    @contextmanager
    def credentials(self) -> Iterator[None]:
        """Have this thread act with the rights that count here."""
        with _acting(self.actor, self.reason):
            yield

    def open(self, flags: int, mode: int = 0o600) -> int:
        """Open the file; a new one gets ``mode``. Never waits for a FIFO's other end.

        Only the descriptor of a FIFO stays non-blocking. Raises OSError, and UntrustedPathError for what is guarded and
        is no regular file with one name.
        """
        # A link of /proc leads to an open file and has no text to walk along.
        flags |= os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | (0 if self._magic else os.O_NOFOLLOW)
        with self.credentials():
            number = self._open(flags, mode)
        try:
            self._check(number)
        except BaseException:
            os.close(number)
            raise
        return number

    def _open(self, flags: int, mode: int) -> int:
        try:
            return os.open(self.name, flags, mode, dir_fd=self.folder)
        except OSError as error:
            if self.guarded:
                self._refuse(error)
            if error.errno != errno.ENXIO or not self._is_fifo():
                raise
        # A FIFO without a reader: open for both, it is there for the next reader.
        return os.open(self.name, (flags & ~(os.O_WRONLY | os.O_CREAT)) | os.O_RDWR, dir_fd=self.folder)

    def _is_fifo(self) -> bool:
        return stat.S_ISFIFO(os.stat(self.name, dir_fd=self.folder, follow_symlinks=self._magic).st_mode)

    def _refuse(self, error: OSError) -> None:
        """Say what the kernel has refused in the terms of this place; other errors speak for themselves."""
        if error.errno == errno.ELOOP:
            raise UntrustedPathError(f"a symbolic link, and {self.reason}") from None
        if error.errno == errno.ENXIO:
            raise UntrustedPathError(f"not a regular file, and {self.reason}") from None
        if error.errno in (errno.EACCES, errno.EPERM) and self.actor is not None:
            raise _denied(self.actor, self.reason) from None

    def _check(self, number: int) -> None:
        found = os.fstat(number)
        if self.guarded:
            self._check_guarded(found)
        if not stat.S_ISFIFO(found.st_mode):
            os.set_blocking(number, True)

    def _check_guarded(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise UntrustedPathError(f"not a regular file, and {self.reason}")
        if found.st_nlink != 1:
            raise UntrustedPathError(f"a file with {found.st_nlink} names, and {self.reason}")
        if self.actor is None and found.st_uid not in (*our_uids(), self._service):
            raise UntrustedPathError(f"it belongs to {user_name(found.st_uid)}, and {self.reason}")


def _denied(actor: Actor, reason: str) -> UntrustedPathError:
    error = UntrustedPathError(
        f"permission denied for {actor.name} ({reason}, so it is opened with the rights of that user)",
        f"give the file to {actor.name}, or {WAY_OUT}",
    )
    error.reason = reason
    return error


@contextmanager
def _acting(actor: Actor | None, reason: str) -> Iterator[None]:
    try:
        with acting_as(actor):
            yield
    except ActingError as error:
        raise UntrustedPathError(f"{error.strerror}, and {reason}") from None


class _Walk:
    """A path from the root folder on: ``folder`` is where it is, the caller closes it."""

    def __init__(self, service: int) -> None:
        self.service = service
        self.actor: Actor | None = None
        self.reason = ""
        self.shared_folder = ""  # the same for the folder itself, which may hold entries of root's that are safe
        self.in_proc = False
        self._sticky = False
        self._proc = _device("/proc")
        self._links = 0
        self._way: list[str] = []
        self.folder = os.open("/", _FOLDER)
        self._arrive(os.fstat(self.folder))

    def go(self, path: str, follow: bool, into_guarded: bool) -> str:
        """Walk to the folder of the absolute ``path``; its last name, where no link was followed in its place.

        ``follow`` links in the last place, in guarded folders only with ``into_guarded``. Raises OSError.
        """
        rest = deque(_parts(path))
        while rest:
            name = rest.popleft()
            try:
                entry = self._look(name)
            except FileNotFoundError:
                if rest:
                    raise
                return name
            try:
                found = os.fstat(entry)
                if not rest and (not stat.S_ISLNK(found.st_mode) or not self._follows(follow, into_guarded)):
                    return name
                self._check_entry(name, found)
                if stat.S_ISLNK(found.st_mode):
                    rest.extendleft(reversed(self._along(name, entry)))
                else:
                    entry = self._enter(name, entry, found)
            finally:
                os.close(entry)
        return "."

    def _look(self, name: str) -> int:
        try:
            with _acting(self.actor, self.reason):
                return os.open(name, _ENTRY, dir_fd=self.folder)
        except PermissionError:
            if self.actor is None:
                raise
            raise _denied(self.actor, self.reason) from None

    def _follows(self, follow: bool, into_guarded: bool) -> bool:
        if self.in_proc:
            return False
        return follow and (into_guarded or not (self.reason or self.shared_folder))

    def _check_entry(self, name: str, found: os.stat_result) -> None:
        """Note whose the entry ``name`` of the folder is: its owner's, or of all who may replace it."""
        if self._is_foreign(found):
            self._hand_to(found.st_uid, f"{user_name(found.st_uid)} owns {self._path(name)}")
        elif self.shared_folder and not self._sticky:
            self.reason = self.reason or self.shared_folder

    def _is_foreign(self, found: os.stat_result) -> bool:
        """Whether another user than root and ourselves owns it, as far as this user namespace can tell."""
        if found.st_uid in our_uids() or (found.st_dev == self._proc and found.st_ino == _PROC_ROOT_INODE):
            return False
        # In a namespace of an ordinary user, root's own folders have no owner: the kernel gives us no right over them.
        return os.geteuid() != 0 or is_mapped(found.st_uid)

    def _hand_to(self, uid: int, reason: str) -> None:
        if os.geteuid() != 0:
            self.reason = self.reason or reason
        elif self.actor is None or uid == self.service != self.actor.uid:
            self.actor, self.reason = actor_of(uid), reason

    def _along(self, name: str, entry: int) -> list[str]:
        """The components that the link ``name``, open as ``entry``, stands for."""
        self._links += 1
        if self._links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._path(name))
        if self.in_proc:
            # /proc/self/cwd and its like lead to an open folder: the kernel alone can follow them.
            with _acting(self.actor, self.reason):
                folder = os.open(name, _FOLDER, dir_fd=self.folder)
            os.close(self._enter(name, folder, os.fstat(folder)))
            return []
        target = os.readlink("", dir_fd=entry)
        if target.startswith("/"):
            self._way = []
            root = os.open("/", _FOLDER)
            os.close(self.folder)
            self.folder = root
            self._arrive(os.fstat(root))
        return _parts(target)

    def _enter(self, name: str, entry: int, found: os.stat_result) -> int:
        """Go into ``entry``; the descriptor of the folder before, for the caller to close. Raises OSError."""
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._path(name))
        before, self.folder = self.folder, entry
        self._way = self._way[:-1] if name == ".." else [*self._way, name]
        if self._is_foreign(found):
            self._hand_to(found.st_uid, f"{user_name(found.st_uid)} owns {self._path()}")
        self._arrive(found)
        return before

    def _arrive(self, found: os.stat_result) -> None:
        # The group of an ordinary user's folder is that user's own choice.
        others = GROUP_OR_ALL if os.geteuid() == 0 else stat.S_IWOTH
        shared = found.st_mode & others and self.actor is None
        self.shared_folder = f"others than root may write {self._path()}" if shared else ""
        self._sticky = bool(found.st_mode & stat.S_ISVTX)
        self.in_proc = found.st_dev == self._proc

    def _path(self, *more: str) -> str:
        return f"/{'/'.join((*self._way, *more))}"


def find(path: str, service: int = -1, *, follow: bool = True, into_guarded: bool = False) -> Place:
    """Where ``path`` leads, and with which rights; the name in the last place need not exist.

    ``service`` is the uid that workers run as. A link in the last place is followed with ``follow``, in a guarded
    folder only with ``into_guarded``. Raises OSError where a folder is missing or may not be entered.
    """
    # Not abspath: the folder above a link's target is another one than that of the link.
    whole = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    walk = _Walk(service)
    try:
        return Place(path, walk, walk.go(whole, follow, into_guarded))
    except BaseException:
        os.close(walk.folder)
        raise


def why_guarded(path: str) -> str:
    """Who else may change what ``path`` leads to, in a clause; empty where it is trusted. Raises OSError."""
    try:
        with find(path) as place:
            return place.reason
    except UntrustedPathError as error:
        return error.reason


def why_chosen(directory: str) -> str:
    """Which other user has chosen that ``directory``, a path of the current one, leads to it; empty where none has.

    A folder that would be that user's by its own path as well is no choice that matters. Raises OSError.
    """
    chosen, own = _folder(directory), _folder(os.getcwd())
    return chosen[2] if chosen[1] and chosen[:2] != own[:2] else ""


def _folder(path: str) -> tuple[Actor | None, bool, str]:
    """The user whose rights count in the folder ``path``, whether another may put another in its place, and why."""
    with find(os.path.join(path, "name"), follow=False) as place:
        return place.actor, place.replaceable, place.reason


def our_uids() -> tuple[int, int]:
    """The users that are trusted: root, and ourselves."""
    return 0, os.geteuid()


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _device(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_dev
    return -1
