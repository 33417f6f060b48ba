"""The file of a Unix socket: who makes it, who gets it, and its removal.

A file that a killed server left is removed, one that a server listens on is not. In a folder that another user may
change, the file is made, given away and removed with that user's rights (files/trusted_paths.py), so that a link put
there in time leads nowhere that this user could not go.

Source: unix(7), open(2) on O_PATH.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import Final

from forkserver.errors import BindError
from forkserver.linux.files import trusted_paths
from forkserver.linux.files.file_permissions import Actor, acting_as, actor_of, change_owner
from forkserver.linux.files.trusted_paths import Place, UntrustedPathError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.linux.sockets.stream_socket import holder_of

SUN_PATH_BYTES: Final = 107  # unix(7): sun_path is 108 bytes, the last one NUL
ABSTRACT: Final = "unix:@"  # before a name of the abstract namespace, as ss(8) and systemd write it


def maker_of(place: Place, credentials: Credentials) -> Actor | None:
    """The user to make the socket as; None for ourselves. Raises UntrustedPathError.

    A folder of root's that others may write too is the socket's owner's to write: then there is nothing to give away,
    and no name that may lead to another file by then.
    """
    if place.actor is not None or not place.guarded or os.geteuid() != 0:
        return place.actor
    if place.replaceable and credentials.uid in (-1, 0):
        raise UntrustedPathError(f"{place.reason}, and can put another in its place")
    if not credentials.changes:
        return None
    user = actor_of(max(credentials.uid, 0))
    return user if credentials.gid == -1 else user._replace(gid=credentials.gid)


def remove(path: str, made: tuple[int, int], owner: Credentials, service: int) -> None:
    """Remove the socket at ``path``, if it is the one ``made``. Raises OSError."""
    with trusted_paths.find(path, service, follow=False) as place:
        try:
            maker = maker_of(place, owner)
        except UntrustedPathError:
            return  # by now another user may choose which file this is
        with acting_as(maker):
            found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
            if (found.st_dev, found.st_ino) == made:
                os.unlink(place.name, dir_fd=place.folder)


def give(path: str, credentials: Credentials, maker: Actor | None) -> None:
    """Give the socket just bound at ``path`` its owner. Raises BindError, OSError.

    By a descriptor, and only what its maker made: where a user may change the folder, that user made it, and the name
    may lead to another file by now. Source: open(2) on O_PATH.
    """
    with acting_as(maker):
        number = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(number)
        made_by = os.geteuid() if maker is None else maker.uid
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != made_by or found.st_nlink != 1:
            raise BindError(
                f"cannot bind unix:{path}: another file was put there; choose a folder of its own with --bind"
            )
        wanted = (credentials.uid, credentials.gid)
        if any(new not in (-1, old) for new, old in zip(wanted, (found.st_uid, found.st_gid), strict=True)):
            if maker is not None and maker.uid == 0:
                # Others may have put another socket of root's there by now.
                raise BindError(
                    f"cannot bind unix:{path}: it gets the folder's group (setgid), and others than root may write "
                    "there; choose a folder of its own with --bind"
                )
            change_owner(number, *wanted)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):  # EINVAL: not in this user namespace
            raise
        raise BindError(
            f"cannot bind unix:{path}: only root and members of group {credentials.gid} may give it to that; join it, "
            "start as root, or leave out --socket-group",
            error.errno,
        ) from None
    finally:
        os.close(number)


def clear_stale(path: str) -> None:
    """Remove the socket that a killed server left at ``path``. Raises BindError where a server uses the name."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BindError(f"cannot bind unix:{path}: a file of another kind is there; move it or choose another path")
    if answers(path):
        holder = holder_of(path)
        listening = f"a server is listening there{f', {holder}' if holder else ''}"
        raise BindError(f"cannot bind unix:{path}: {listening}; stop it or choose another path", errno.EADDRINUSE)
    with suppress(FileNotFoundError):
        os.unlink(path)


def answers(path: str) -> bool:
    """Whether a process listens at the Unix socket ``path``, or may do so."""
    with PlainSocket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            # EAGAIN: its queue is full, so it lives. Anything else (EACCES) does not say that no server is there.
            return error.errno != errno.EPROTOTYPE
    return True


def identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
