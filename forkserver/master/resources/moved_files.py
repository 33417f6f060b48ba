"""Pid file, control socket and admin listener: a reload moves all of them at once, whether its code loads or not.

What the new settings name is made beside what there is (``prepare``); only when nothing of the reload can fail any more
is the old one given up (``take``). A file that was removed from its place is made again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from forkserver.config.settings import Settings
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.logs.error_log import ErrorLog
from forkserver.master.control import admin_socket
from forkserver.master.control import listener as control_listener
from forkserver.master.control import socket as control_socket
from forkserver.master.control.admin_socket import AdminSocket
from forkserver.master.control.socket import ControlSocket
from forkserver.master.resources.pidfile import PidFile

SETTINGS: Final = ("pidfile", "control_socket", "admin_bind", "admin_hosts")


class PreparedFiles(NamedTuple):
    """The pid file to have from now on, and whether and where control socket and admin process are to listen."""

    pidfile: PidFile | None
    moves_control: bool
    listener: ListeningSocket | None
    moves_admin: bool
    admin: ListeningSocket | None


class MovedFiles:
    """All as the settings have them; ``environ`` is where the runtime directory is looked up."""

    def __init__(
        self, environ: Mapping[str, str], control: ControlSocket, admin: AdminSocket, pidfile: PidFile | None = None
    ) -> None:
        self._environ = environ
        self.control = control
        self.admin = admin
        self.pidfile = pidfile

    def open(self, settings: Settings, log: ErrorLog) -> None:
        """Make what ``settings`` name. Raises BindError, ConfigError and ForkserverError."""
        if settings.pidfile is not None:
            self.pidfile = PidFile(settings.pidfile, service=settings.service_uid)
        self.control.move(control_listener.of_settings(settings, self._environ, log))
        self.admin.move(admin_socket.of_settings(settings, log))

    def prepare(self, before: Settings, new: Settings, log: ErrorLog, undo: ExitStack) -> PreparedFiles:
        """Make what ``new`` names beside what ``before`` did; ``undo`` takes it back. Raises as ``open``."""
        control = self._next_control(before, new, log, undo)
        return PreparedFiles(self._next_pidfile(new, undo), *control, *self._next_admin(before, new, log, undo))

    def _next_pidfile(self, new: Settings, undo: ExitStack) -> PidFile | None:
        """The pid file that ``new`` names, written; the one we have where it is that, and still there."""
        before = self.pidfile
        if new.pidfile is None:
            return None
        if before is not None and _same_file(before.path, new.pidfile) and before.is_ours:
            return before
        made = PidFile(new.pidfile, service=new.service_uid)
        undo.callback(made.remove)
        return made

    def _next_control(
        self, before: Settings, new: Settings, log: ErrorLog, undo: ExitStack
    ) -> tuple[bool, ListeningSocket | None]:
        """Whether the control socket changes: the setting names another, or its file was removed; and to which."""
        path = control_listener.where(new.control_socket, self._environ)
        same = new.control_socket == before.control_socket
        if path is not None and self.control.path is not None:
            same = _same_file(path, self.control.path)
        if same and not self.control.gone:
            return False, None
        opened = control_listener.of_settings(new, self._environ, log)
        if opened is not None:
            undo.callback(control_socket.give_up, opened)
        return True, opened

    def _next_admin(
        self, before: Settings, new: Settings, log: ErrorLog, undo: ExitStack
    ) -> tuple[bool, ListeningSocket | None]:
        """Whether the listener of the admin process changes, and to which."""
        if new.admin_bind == before.admin_bind and not self.admin.gone:
            return False, None
        opened = admin_socket.of_settings(new, log)
        if opened is not None:
            undo.callback(admin_socket.give_up, opened)
        return True, opened

    def take(self, prepared: PreparedFiles, log: ErrorLog) -> None:
        """Give up what there was, and say where it is now."""
        before, now = self.pidfile, prepared.pidfile
        self.pidfile = now
        if before is not now:
            if before is not None and (now is None or not _same_file(before.path, now.path)):
                before.remove()
            log.info("no pid file any more" if now is None else f"the pid file is now {now.path}")
        if prepared.moves_control:
            self.control.move(prepared.listener)
            path = prepared.listener.path if prepared.listener else None
            log.info(f"the control socket is now {path}" if path else "no control socket any more")
        if prepared.moves_admin:
            self.admin.move(prepared.admin)
            if prepared.admin is None:
                log.info("no admin process any more")

    def close(self) -> None:
        """Close the sockets and remove the files."""
        self.control.close()
        self.admin.close()
        if self.pidfile is not None:
            self.pidfile.remove()


def _same_file(one: str, other: str) -> bool:
    """Whether two paths name one entry of one folder, by whichever links lead there."""
    (folder, name), (its, other_name) = map(os.path.split, (os.path.abspath(one), os.path.abspath(other)))
    return name == other_name and os.path.realpath(folder) == os.path.realpath(its)
