"""Our own listeners in systemd's descriptor store, so that a restart without a .socket unit loses no connection.

Descriptors that systemd passes at the start are of three kinds: sockets of a .socket unit, our own listeners, known by
their stable names, and others, which are closed. A listener counts as kept only once systemd has confirmed it. Opening
an address, and deciding which are served, is done in listener_set.py.

Source: sd_notify(3) on FDSTORE=1, systemd.service(5) on FileDescriptorStoreMax=.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Final

from forkserver.errors import BindError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import open_listeners
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.linux.systemd import Notifier, is_storable
from forkserver.logs.error_log import ErrorLog

# With a sign that no unit's name has: listeners of a forkserver-x.socket bear its name, and are activated, not stored.
PREFIX: Final = "forkserver="
# Any other byte is written as %XX. (What urllib.parse gives for these is the same; it takes a start 3 ms.)
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~/[]@+=, ")
_UNNAMED: Final = "stored"  # systemd's name for what was stored without one


def name_of(address: str) -> str | None:
    """The stable name of the listener at ``address``, as the settings have it; None where it cannot be kept.

    Port 0 is another port each time, and a descriptor's number may belong to another socket.
    """
    name = PREFIX + "".join(chr(each) if each in _PLAIN else f"%{each:02X}" for each in os.fsencode(address))
    storable = is_storable(name) and not address.endswith(":0") and not address.startswith("fd://")
    return name if storable else None


class FdStore:
    """What was ``passed`` at the start, by kind, and what systemd keeps of ours. ``activated`` are a .socket unit's."""

    def __init__(self, passed: Iterable[tuple[int, str]], notifier: Notifier, log: ErrorLog) -> None:
        self._notifier = notifier
        self._log = log
        self.activated: list[tuple[int, str]] = []
        self._left: dict[str, int] = {}  # descriptors that are not taken back yet
        for number, name in passed:
            self._sort(number, name)

    def _sort(self, number: int, name: str) -> None:
        if name.startswith(PREFIX) and name not in self._left:
            self._left[name] = number
        elif name.startswith(PREFIX) or name == _UNNAMED or not stat.S_ISSOCK(os.fstat(number).st_mode):
            self._log.warning(
                f"systemd has passed {name!r} (descriptor {number}), which is no listener; it is not used"
            )
            os.close(number)
        else:
            self.activated.append((number, name))

    def take(self, address: str, backlog: int, mode: int, owner: Credentials) -> ListeningSocket | None:
        """The listener of ``address`` that systemd has kept; None where there is none as the settings want it."""
        name = name_of(address)
        number = self._left.pop(name, None) if name is not None else None
        if name is None or number is None:
            return None
        try:
            listener = open_listeners.inherited(number, f"systemd's {name}")
        except BindError as error:
            self._refuse(name, number, str(error))
            return None
        if why := _unlike(listener, mode, owner):
            listener.detach()
            self._refuse(name, number, why)
            return None
        listener.socket.listen(backlog)
        kept = ListeningSocket(listener.socket, own=True, owner=owner)
        kept.kept = True
        return kept

    def _refuse(self, name: str, number: int, why: str) -> None:
        self._log.warning(f"what systemd has kept as {name} is bound anew: {why}")
        self._notifier.unstore(name)
        os.close(number)

    def forget_the_rest(self) -> None:
        """Give up what was kept and is not configured any more."""
        left, self._left = self._left, {}
        for name, number in left.items():
            self._log.info(f"systemd has kept {name}, which is not served any more; it is closed")
            self._notifier.unstore(name)
            os.close(number)

    def keep(self, bound: Iterable[tuple[str, ListeningSocket]]) -> None:
        """Have systemd keep the listeners of these addresses, as far as it has a store, and room for one more."""
        new = [(name, each) for address, each in bound if each.ends and (name := name_of(address))]
        if not new or not self._notifier.enabled:
            return
        for name, listener in new:
            self._notifier.store(name, listener.fileno())
        kept = self._notifier.has_room()
        for name, listener in new:
            listener.kept = kept
            if not kept:
                self._notifier.unstore(name)  # whether it has this one is not known

    def forget(self, address: str, listener: ListeningSocket) -> None:
        """``address`` is given up: it ends with us."""
        if listener.kept and (name := name_of(address)):
            self._notifier.unstore(name)
        listener.kept = False


def _unlike(listener: ListeningSocket, mode: int, owner: Credentials) -> str:
    """Why a kept listener is not what the settings ask for; empty where it is."""
    if not listener.unix or listener.abstract:
        return ""
    if listener.path is None:
        return "it has no file"
    try:
        found = os.lstat(listener.path)
    except OSError as error:
        return f"{listener.path}: {error.strerror}"
    if not stat.S_ISSOCK(found.st_mode):
        return f"{listener.path} is another file now"
    wanted = (mode, owner.uid if owner.uid != -1 else found.st_uid, owner.gid if owner.gid != -1 else found.st_gid)
    return (
        "" if (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == wanted else "its mode or owner has changed"
    )
