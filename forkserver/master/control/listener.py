"""Where the control socket is, and opening a listener there.

The setting ``control_socket`` names a path, or ``auto``: the runtime directory of systemd, else a folder of this user's
own, in which each master has a socket named by its pid. Sockets that killed masters left there are removed. A failure
with ``auto`` is logged, and the service starts without a control socket.

Source: systemd.exec(5) on RuntimeDirectory=.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from forkserver.config import runtime_folders
from forkserver.config.settings import Settings
from forkserver.errors import BindError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import socket_file
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.linux.sockets.socket_file import SUN_PATH_BYTES
from forkserver.linux.sockets.unix_socket import bind_unix
from forkserver.logs.error_log import ErrorLog
from forkserver.master.control.socket import MOST_CLIENTS

MODE: Final = 0o600
FILE: Final = "control.sock"
VARIABLE: Final = "FORKSERVER_CONTROL_SOCKET"  # the setting's, and where forkserverctl looks


def of_settings(settings: Settings, environ: Mapping[str, str], log: ErrorLog) -> ListeningSocket | None:
    """The control socket of ``settings``, opened; None for none. Raises BindError."""
    try:
        path = where(settings.control_socket, environ)
        if path is not None:
            return listen(path, settings.service_uid)
        if settings.control_socket != "auto":
            return None
        opened, why = usual(environ, settings.service_uid)
        if why:
            log.info(f"no control socket for forkserverctl: {why}; name one with --control-socket PATH")
    except BindError as error:
        # No setting names this path: serve without it, unless another master is there.
        if settings.control_socket != "auto" or error.errno == errno.EADDRINUSE:
            raise
        log.warning(f"{error}; serving without")
        return None
    return opened


def where(setting: str, environ: Mapping[str, str]) -> str | None:
    """The path that the setting ``control_socket`` means; None for no socket.

    ``auto`` is ``control.sock`` in the runtime directory of systemd (``RUNTIME_DIRECTORY``, systemd.exec(5)); where
    there is none, see ``usual``.
    """
    if setting != "auto":
        return None if setting == "off" else os.path.abspath(setting)
    directory = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]  # of several, the first
    return os.path.join(directory, FILE) if os.path.isabs(directory) else None


def usual(environ: Mapping[str, str], service: int = -1) -> tuple[ListeningSocket | None, str]:
    """A listener in a folder of this user's own, or none and the reason: no setting names it.

    What masters that were killed have left in the folder is removed.
    """
    uid = os.geteuid()
    folders = runtime_folders.folders(environ, uid)
    why = f"none of {', '.join(folders)} can be a folder of this user alone"
    for folder in folders:
        if not runtime_folders.make(folder, uid):
            continue
        _remove_stale(folder)
        path = runtime_folders.socket_of(folder, os.getpid())
        if len(os.fsencode(path)) > SUN_PATH_BYTES:
            continue
        try:
            return listen(path, service), ""
        except BindError as error:
            why = str(error)
    return None, why


def _remove_stale(folder: str) -> None:
    for pid, path in runtime_folders.sockets(folder):
        # No process listens, and the one of that pid, which could be about to, is not there.
        if not _alive(pid) and not socket_file.answers(path):
            with suppress(OSError):  # another start has done it
                os.unlink(path)


def _alive(pid: int) -> bool:
    try:
        with suppress(PermissionError):  # it is another user's
            os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    return True


def listen(path: str, service: int = -1) -> ListeningSocket:
    """A socket at ``path`` for a ControlSocket; ``service`` is the uid that workers run as. Raises BindError."""
    try:
        return bind_unix(path, MOST_CLIENTS, MODE, Credentials(), service)
    except BindError as error:
        why = str(error).partition(": ")[2]
        raise BindError(
            f"control_socket {path}: {why.partition(';')[0]}; name another path with --control-socket, or off for none",
            error.errno,
        ) from None
