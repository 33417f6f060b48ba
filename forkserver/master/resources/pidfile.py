"""The file that holds the master's process id while it runs.

The file is there whole or not at all: it is written beside its place and renamed over it. A running master's is never
taken away from it, and only our own is removed. In a folder that another user may change, all of that is done with that
user's rights (trusted_paths.py). To other programs the file is a hint, no more.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Final

from forkserver.errors import ConfigError, ForkserverError
from forkserver.linux.files import trusted_paths
from forkserver.linux.files.trusted_paths import Place, UntrustedPathError

_MODE: Final = 0o644
_NUMBER_BYTES: Final = 32
_NAMES: Final = (b"forkserver: master"[:15], b"forkserver")  # the kernel keeps so many bytes: proc(5)


class PidFile:
    """The pid file at ``path``; ``inherited`` where the program before wrote it; ``service`` is the workers' uid.

    Raises ConfigError where another server has it, or its path may not be trusted, and ForkserverError where it cannot
    be written.
    """

    def __init__(self, path: str, inherited: bool = False, service: int = -1) -> None:
        self.path = os.path.abspath(path)
        self._service = service
        if inherited:
            return
        try:
            with self._place() as place, place.credentials():
                _refuse_holder(place, path)
                _write(place)
        except UntrustedPathError as error:
            raise ConfigError(f"pidfile {path!r}: {error}") from None
        except OSError as error:
            from forkserver.linux.files import read_only  # late: for a mistake

            fix = read_only.way_out(error, path) or "fix that"
            raise ForkserverError(f"pidfile {path!r}: {_reason(error)}; {fix} or name another file") from None

    def _place(self) -> Place:
        return trusted_paths.find(self.path, self._service, follow=False)

    @property
    def is_ours(self) -> bool:
        """Whether the file is there and names us."""
        try:
            with self._place() as place, place.credentials():
                return _read(place) == os.getpid()
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the file, if it is still ours; one that may not be removed stays, and names no process by then."""
        with suppress(OSError), self._place() as place, place.credentials():
            if _read(place) == os.getpid():
                os.unlink(place.name, dir_fd=place.folder)


def _reason(error: OSError) -> str:
    return f"cannot be written: {(error.strerror or '').lower()}"


def _write(place: Place) -> None:
    """Beside it and then over it, so that no reader finds half a number. Raises OSError."""
    beside = f"{place.name}.{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=place.folder)  # of a master that was killed; or a link, which must not be followed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    number = os.open(beside, flags, _MODE, dir_fd=place.folder)
    try:
        with open(number, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        os.replace(beside, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    except OSError:  # a full disk, or a folder is in its place
        with suppress(OSError):
            os.unlink(beside, dir_fd=place.folder)
        raise


def _read(place: Place) -> int | None:
    """The number in a regular file; anything else, a FIFO or a link of another user's, holds none."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if place.guarded else 0)
    try:
        number = os.open(place.name, flags, dir_fd=place.folder)
    except OSError:
        return None
    try:
        regular = stat.S_ISREG(os.fstat(number).st_mode)
        text = os.read(number, _NUMBER_BYTES).decode("ascii", "replace").strip() if regular else ""
    finally:
        os.close(number)
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _refuse_holder(place: Place, path: str) -> None:
    """Raises ConfigError where another forkserver has the file; its pid may be ours: pids come again in containers."""
    pid = _read(place)
    if pid is not None and pid != os.getpid() and _is_forkserver(pid):
        raise ConfigError(f"pidfile {path!r}: forkserver runs already as pid {pid}; stop it, or name another file")


def _is_forkserver(pid: int) -> bool:
    """Whether a master has this pid, by its name, which is its title or, in the middle of an upgrade, the command.

    Not by its command line: that is the process's own memory, and the user who wrote the pid file may have named a
    process of which a page does not come. Nor is a shell, a log's reader or multiprocessing's forkserver a master.
    """
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().rstrip(b"\n") in _NAMES
    except OSError:
        return False
