"""What the master keeps open: settings, logs, listeners, scoreboard, TLS keys, pid file and control socket.

A reload reads the settings again and changes all of it or nothing: what was opened before a step fails is closed again.
Listeners and logs are final only with ``settle``, once the new code serves or has failed. ``tidy`` removes the files
that were made. Processes are started elsewhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from forkserver.config import invocation, loading, working_directory
from forkserver.config import settings as settings_table
from forkserver.config.settings import SURPLUS, Settings
from forkserver.errors import ConfigError, ForkserverError
from forkserver.ipc.scoreboard import Scoreboard, Shape
from forkserver.linux import privileges, systemd
from forkserver.linux.common.counted import count_of
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.descriptor_limit import NOFILE_KEEP
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import listening_socket
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.logs.error_log import ErrorLog
from forkserver.master.control.admin_socket import AdminSocket
from forkserver.master.control.socket import ControlSocket
from forkserver.master.reporting import startup_banner
from forkserver.master.resources import listener_set, log_set
from forkserver.master.resources.fd_store import FdStore
from forkserver.master.resources.listener_set import ListenerSet, Terms
from forkserver.master.resources.log_set import LogSet
from forkserver.master.resources.moved_files import MovedFiles
from forkserver.master.resources.open_files import OpenFiles
from forkserver.master.resources.pidfile import PidFile

if TYPE_CHECKING:
    from forkserver.logs.access_log import AccessLog
    from forkserver.tls.contexts import TlsContexts

_FOR_NEW_ONES: Final = ("backlog", "socket_mode", "socket_group")
# Workers of the old and the new code accept at one listener while they are replaced, so they speak one protocol.
_LANGUAGE: Final = {"encrypted": "TLS", "proxy_protocol": "the PROXY protocol"}
_MORE_PORTS: Final = 100  # that a person who develops may have in use
_LEAST_ROWS: Final = 32  # room for slots that are added by signal


class ResourcesSnapshot(NamedTuple):
    """All of it for the next program, as descriptor numbers: -1 for a log that is no file of ours.

    ``shape`` is the geometry of the scoreboard, ``directory`` the path of the directory that relative names are
    resolved in, ``soft_limit`` that of open files for children, ``admin`` the listener of the admin process, ``owner``
    that of Unix sockets, whose account may be gone since; an older program did not tell them.
    """

    settings: loading.SettingsSnapshot
    error_log: int
    access_log: int
    board: int
    listener_set: listener_set.ListenerSetSnapshot
    control: listening_socket.ListenerSnapshot | None
    pidfile: str | None
    shape: Shape | None = None
    directory: str = ""
    soft_limit: int | None = None
    admin: listening_socket.ListenerSnapshot | None = None
    owner: Credentials | None = None

    def descriptors(self) -> list[int]:
        """What has to stay open."""
        bound = [each.listener for each in (*self.listener_set.served, *self.listener_set.going)]
        bound += [each for each in (self.control, self.admin) if each is not None]
        files = [number for number in (self.error_log, self.access_log, self.board) if number >= 0]
        return files + [each.descriptor for each in bound]


class Resources:
    """Everything opened for ``settings``, which a reload reads again from ``argv`` and ``environ``.

    ``snapshot`` is what the program before has opened already. Raises BindError, ConfigError and ForkserverError, with
    nothing left behind.
    """

    def __init__(
        self,
        settings: Settings,
        log: ErrorLog,
        argv: Sequence[str],
        environ: Mapping[str, str],
        notifier: systemd.Notifier | None = None,
        snapshot: ResourcesSnapshot | None = None,
    ) -> None:
        self.settings = settings
        self._argv = list(argv)
        self._environ = environ
        self.started_in = invocation.physical_directory()
        inherited = "" if snapshot is None else snapshot.directory
        self.directory = inherited or invocation.directory(environ, self.started_in)
        self.environment = invocation.environment(self.directory, sys.orig_argv, sys.argv)
        self.open_files = OpenFiles(snapshot.soft_limit if snapshot else None)
        if why := self.open_files.fit(settings.nofile, settings.workers, len(settings.bind)):  # before any is opened
            log.warning(why)
        opened = -1 if snapshot is None else snapshot.access_log
        self.logs = LogSet(settings, log, opened, inherited=snapshot is not None)
        if snapshot is not None:
            self._restore(snapshot, notifier or systemd.Notifier({}))
            return
        self.board = _board(settings)
        self.tls = tls_for(settings)
        store = FdStore(systemd.listen_fds(environ), notifier or systemd.Notifier({}), log)
        if store.activated and settings.sources.get("bind") != "default":
            log.info(f"systemd has given {count_of(len(store.activated), 'listener')}; bind is not used")
        terms = _terms(settings)
        self._owner = terms.owner
        self.listener_set = ListenerSet(settings.bind, store.activated, terms, store)
        for address, listener in self.listener_set.on_other_ports:
            log.warning(
                f"another process has {address}; serving at {startup_banner.link(listener, settings.encrypted)}"
            )
        self._files = MovedFiles(environ, ControlSocket(), AdminSocket())
        self.control, self.admin = self._files.control, self._files.admin
        try:
            self._files.open(settings, log)
        except ForkserverError:
            self.tidy()
            raise

    def _restore(self, snapshot: ResourcesSnapshot, notifier: systemd.Notifier) -> None:
        systemd.forget(os.environ, systemd.LISTEN)
        inherited = Scoreboard.restore(snapshot.board, snapshot.shape)
        self.board = inherited if inherited.sealed else _board(self.settings)
        self.tls = self._tls_again(self.settings)
        self._owner = self._owner_again() if snapshot.owner is None else snapshot.owner
        store = FdStore((), notifier, self.log)
        self.listener_set = ListenerSet.restore(snapshot.listener_set, _terms(self.settings, self._owner), store)
        service = self.settings.service_uid
        pidfile = PidFile(snapshot.pidfile, inherited=True, service=service) if snapshot.pidfile is not None else None
        self.control = ControlSocket.restore(snapshot.control, service) if snapshot.control else ControlSocket()
        self.admin = AdminSocket.restore(snapshot.admin, self._owner)
        self._files = MovedFiles(self._environ, self.control, self.admin, pidfile)

    def snapshot(self) -> ResourcesSnapshot:
        """What the next program is told. Only between reloads."""
        error, access = self.logs.files
        return ResourcesSnapshot(
            settings=loading.snapshot(self.settings),
            error_log=self.log.fileno() if error else -1,
            access_log=self.access.fileno() if access else -1,
            board=self.board.fd,
            listener_set=self.listener_set.snapshot(),
            control=self.control.snapshot(),
            pidfile=None if self._files.pidfile is None else self._files.pidfile.path,
            shape=self.board.shape,
            directory=self.directory,
            soft_limit=self.open_files.soft_limit,
            admin=self.admin.snapshot(),
            owner=self._owner,
        )

    def count_lost_lines(self, count: Callable[[int], None]) -> None:
        """Have ``count`` called with the number of lines that could not be written to the logs."""
        self.log.on_lost = self.access.on_lost = count

    @property
    def log(self) -> ErrorLog:
        """The error log of the newest settings."""
        return self.logs.error

    @property
    def access(self) -> AccessLog:
        """The access log of the newest settings."""
        return self.logs.access

    @property
    def listeners(self) -> list[ListeningSocket]:
        """Those that are open."""
        return self.listener_set.open

    def make_room(self, nofile: int, workers: int, listeners: int) -> str:
        """Have descriptors for so many; what is wrong is logged, and returned."""
        if why := self.open_files.fit(nofile, workers, listeners):
            self.log.warning(why)
        return why

    def reload(self) -> None:
        """Read the settings again and hold what they say; listeners and logs are final with ``settle``.

        Raises ForkserverError, with everything as it was.
        """
        if place := self.environment.moved():
            raise ConfigError(
                f"{self.environment.typed} leads to {place} by now, and the running program is that of "
                f"{self.environment.real}: new code would meet old dependencies; send USR2, or restart"
            )
        # Relative names in the settings are resolved there, wherever that path leads now.
        with working_directory.entered(self.directory):
            new = loading.load(self._argv, self._environ)
            self._refuse_lost_file(new)
            if new.app is None:
                raise ConfigError("no application given any more; name it as MODULE:APP")
            working_directory.refuse_chosen(new, self.directory)
            self._change_to(new)

    def return_to(self, directory: str) -> None:
        """Have relative names be meant from ``directory`` again, where what serves was loaded: a reload has failed."""
        try:
            with working_directory.entered(directory):
                working_directory.refuse_chosen(self.settings, directory)
        except ConfigError as error:
            self.log.warning(f"{error}; until the next reload relative names of logs are meant from {self.directory}")

    def _refuse_lost_file(self, new: Settings) -> None:
        """Where no flag names the file, a deploy that has lost it would mean every default: address, user, limits."""
        if self.settings.config_path is not None and new.config_path is None:
            raise ConfigError(
                f"{settings_table.FILE} of the current directory: it was read before, and {self.directory} has none; "
                "put it back (an empty one for the defaults), or restart"
            )

    def _change_to(self, new: Settings) -> None:
        self._refuse_another_language(new)
        tls = tls_for(new, self.tls)
        room = new.nofile, new.workers, len(new.bind) + len(self.listeners)
        if new.nofile != NOFILE_KEEP:
            self.make_room(*room)
        with ExitStack() as undo:
            terms = _terms(new)
            ipv4_only = self.listener_set.change(new.bind, terms)
            undo.callback(self.listener_set.undo)
            board = self.sealed_board(new)
            if board is not self.board:
                undo.callback(os.close, board.fd)
            prepared = self._files.prepare(self.settings, new, self.log, undo)
            self.logs.change(new)
            undo.pop_all()
        self._files.take(prepared, self.log)
        self._warn_of_unchanged(new)
        if startup_banner.as_root(new) and not startup_banner.as_root(self.settings):
            self.log.warning(startup_banner.AS_ROOT)
        for address in ipv4_only:
            self.log.info(f"{address} serves IPv4 alone, as it was opened; the next stop and start adds IPv6")
        if new.nofile == NOFILE_KEEP:  # sets the limit back: only now, when nothing is refused any more
            self.make_room(*room)
        self.settings, self.board, self.tls, self._owner = new, board, tls, terms.owner

    def sealed_board(self, settings: Settings) -> Scoreboard:
        """A scoreboard for code under ``settings``. Raises ForkserverError."""
        fits = settings.threads == self.board.threads and _rows(settings) <= self.board.rows
        return self.board if fits else _board(settings)

    def tls_of(self, settings: Settings) -> TlsContexts | None:
        """TLS contexts for code of the program before: those we have, where the ``settings`` are the same."""
        return self.tls if settings == self.settings else self._tls_again(settings)

    def _tls_again(self, settings: Settings) -> TlsContexts | None:
        """Read the keys again, which no snapshot contains; None where that fails.

        The trial could read them a moment ago, so a renewal may be under way. Running workers have their own.
        """
        try:
            return tls_for(settings)
        except ForkserverError as error:
            self.log.error(f"{error}; the workers of before serve on, reload when it is fixed")
            return None

    def _owner_again(self) -> Credentials:
        """The owner of Unix sockets, which an older program did not tell: ours where its account is gone since."""
        try:
            return _terms(self.settings).owner
        except ConfigError as error:
            self.log.error(f"{error}; it is gone since the start: sockets serve on, their files may stay at the end")
            return Credentials()

    def _refuse_another_language(self, new: Settings) -> None:
        for name, language in _LANGUAGE.items():
            if getattr(new, name) != getattr(self.settings, name):
                raise ConfigError(f"{language} cannot be changed for addresses that are served; restart")

    def _warn_of_unchanged(self, new: Settings) -> None:
        """Say which changes a reload does not apply."""
        changed = {name for name in new.sources if getattr(new, name) != getattr(self.settings, name)}
        if "bind" in changed and self.listener_set.activated:
            self.log.warning("bind has changed and is not used: systemd has given the listeners")
        for name, way_out in self.listener_set.unreachable() if self.listener_set.activated else ():
            self.log.warning(
                f"no client can connect at {name}: its file was removed or replaced, or it was shut down; a reload "
                f"changes nothing of what systemd has given: {way_out}"
            )
        for name in _FOR_NEW_ONES:
            if name in changed:
                self.log.warning(f"{name} has changed: it applies to addresses that are added, to others by a restart")

    @property
    def changing(self) -> bool:
        """Whether a reload has opened listeners or logs that are not settled yet."""
        return self.listener_set.changing or self.logs.changing

    def settle(self, taken: bool, now: float) -> None:
        """Keep the listeners and logs of the last reload where its code has ``taken`` over, else those before it."""
        if before := self.logs.settle(taken):
            self.settings = self.settings.with_values_of(before, log_set.SETTINGS)
        for listener in self.listener_set.settle(taken, now):
            self.log.info(f"now serving at {startup_banner.shown(listener.name, self.settings.encrypted)} too")
        self._tell_of_held(self.listener_set.refused)

    def drop_listeners(self) -> list[int]:
        """Close our copies of the listeners that were given up, and return their numbers."""
        dropped = self.listener_set.drop()
        for _, name in dropped:
            self.log.info(f"no longer serving at {startup_banner.shown(name, self.settings.encrypted)}")
        return [number for number, _ in dropped]

    def refuse_arrivals(self, unix: bool) -> bool:
        """Refuse new connections at our own listeners of that family; returns whether there are any."""
        own = [listener for listener in self.listeners if listener.ends and listener.unix == unix]
        self._tell_of_held(listening_socket.refuse_arrivals(own))
        return bool(own)

    def _tell_of_held(self, refused: bool) -> None:
        if not refused:
            self.log.warning(
                f"TCP listeners do not refuse new connections within {listening_socket.HELD_SECONDS:g} s: a process of "
                "the application holds one in the kernel, or no process can be started; clients that connect until "
                "they are closed may be reset"
            )

    def tidy(self) -> None:
        """Close the sockets and remove the files that were made."""
        self.listener_set.close()
        self._files.close()


def _terms(settings: Settings, owner: Credentials | None = None) -> Terms:
    """Those of ``settings``; ``owner`` where it is known. Raises ConfigError."""
    if owner is None:
        owner = privileges.socket_owner(settings.user, settings.group, settings.umask, settings.socket_group)
    more_ports = _MORE_PORTS if settings.free_port == "on" else 0
    return Terms(settings.backlog, settings.socket_mode, owner, more_ports)


def _rows(settings: Settings) -> int:
    # A rollout has two workers in each slot, earlier ones may still drain, and slots may be added by signal.
    return max(4 * settings.workers + _LEAST_ROWS, SURPLUS * settings.most_workers)


def _board(settings: Settings) -> Scoreboard:
    try:
        return Scoreboard(_rows(settings), settings.threads)
    except OSError as error:
        raise ForkserverError(f"cannot have the scoreboard's memory: {error.strerror}") from None


def tls_for(settings: Settings, before: TlsContexts | None = None) -> TlsContexts | None:
    """The TLS contexts of ``settings``, None for plain HTTP; ``before`` are those in use. Raises ConfigError."""
    if not settings.encrypted:
        return None
    from forkserver.tls.contexts import TlsContexts  # late: OpenSSL takes 4 MiB

    return TlsContexts(settings, before)
