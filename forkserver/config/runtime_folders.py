"""Folders for the control sockets of masters that systemd has given none, and what lies in them.

Each is this user's own and closed to others (0700), in the first of these places that can be used: $XDG_RUNTIME_DIR,
/run/user/UID, /run (for root), /tmp. In it a master has the socket PID.sock. A folder that another user has made in its
place, or a link, is not used.

Source: XDG Base Directory Specification; file-hierarchy(7); unix(7).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Final

from forkserver.linux.files import trusted_paths

MOST_SOCKETS: Final = 256  # of one folder, that are looked at
_SOCKET: Final = re.compile(r"([0-9]{1,10})\.sock")


def folders(environ: Mapping[str, str], uid: int) -> list[str]:
    """The folders that the user ``uid`` may have, the first to be used first; whether they are there or not."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    found = [f"{runtime.rstrip('/')}/forkserver"] if os.path.isabs(runtime) else []
    found.append(f"/run/user/{uid}/forkserver")
    found += [f"/run/forkserver-{uid}"] if uid == 0 else []
    found.append(f"/tmp/forkserver-{uid}")
    return list(dict.fromkeys(found))


def make(folder: str, uid: int) -> bool:
    """Make ``folder`` where it is missing; whether it can be trusted then."""
    if not _lasting(folder, uid) or not _ours_to_choose(folder):
        return False
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    return trusted(folder, uid)


def _ours_to_choose(folder: str) -> bool:
    """Whether no other user may change what the path leads to, in any folder above."""
    try:
        with trusted_paths.find(folder) as place:
            return place.actor is None and not place.replaceable
    except OSError:
        return False


def trusted(folder: str, uid: int) -> bool:
    """Whether ``folder`` is a folder that the user ``uid`` alone may enter, and that no other user can replace."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not stat.S_IMODE(found.st_mode) & 0o077
    return own and _lasting(folder, uid)


def _lasting(folder: str, uid: int) -> bool:
    """Whether only ``uid`` and root may rename or remove what ``uid`` has at ``folder``."""
    try:
        above = os.stat(os.path.dirname(folder))
    except OSError:
        return False
    return above.st_uid in (0, uid) and (not above.st_mode & 0o022 or bool(above.st_mode & stat.S_ISVTX))


def sockets(folder: str) -> list[tuple[int, str]]:
    """The pid and the path of each master's socket in ``folder``, by pid; some may be of masters that were killed."""
    try:
        names = sorted(os.listdir(folder))[:MOST_SOCKETS]
    except OSError:
        return []
    matches = (_SOCKET.fullmatch(name) for name in names)
    return sorted((int(match[1]), os.path.join(folder, match[0])) for match in matches if match)


def socket_of(folder: str, pid: int) -> str:
    """Where the master ``pid`` has its socket."""
    return os.path.join(folder, f"{pid}.sock")
