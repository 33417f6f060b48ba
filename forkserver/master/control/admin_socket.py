"""The listener of the admin process, and the master's end of its channel: what the master holds open for it.

The master binds the address of ``admin_bind`` and never accepts there: the admin process does, which inherits it. So
clients wait, and are not refused, while the admin process is started again. The admin process can do to the listener
what it likes, so a copy is given up in a process that ends (see ``syscalls.close_in_child``).
"""

from __future__ import annotations

import ipaddress
import select
from typing import Final

from forkserver.config.settings import Settings
from forkserver.errors import BindError
from forkserver.ipc.status_channel import StatusAnswers
from forkserver.linux import privileges, syscalls
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import listening_socket, open_listeners
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.logs.error_log import ErrorLog
from forkserver.master.model.lifecycle import NEVER

BACKLOG: Final = 128


class AdminSocket:
    """``listener`` is where clients connect, None where there is no admin process; ``answers`` the channel to it."""

    def __init__(self, listener: ListeningSocket | None = None) -> None:
        self.listener = listener
        self.answers: StatusAnswers | None = None
        self._epoll = select.epoll()

    @classmethod
    def restore(cls, snapshot: listening_socket.ListenerSnapshot | None, owner: Credentials) -> AdminSocket:
        """The socket that the program before has bound."""
        return cls(None if snapshot is None else ListeningSocket.from_snapshot(snapshot, owner))

    def snapshot(self) -> listening_socket.ListenerSnapshot | None:
        """What the next program is told of the listener."""
        return None if self.listener is None else self.listener.snapshot()

    def fileno(self) -> int:
        """Readable when the admin process has asked, or takes more of an answer."""
        return self._epoll.fileno()

    @property
    def next_look(self) -> float:
        """When the channel has something to do although nothing is readable."""
        return NEVER if self.answers is None else self.answers.next_look

    @property
    def gone(self) -> bool:
        """Whether its file was removed, or another process has shut it down, so that no client can connect."""
        return self.listener is not None and (self.listener.gone or self.listener.ended)

    def move(self, listener: ListeningSocket | None) -> None:
        """Listen there from now on, or nowhere."""
        before, self.listener = self.listener, listener
        if before is not None:
            give_up(before)

    def talk(self, answers: StatusAnswers | None) -> None:
        """Hear questions on that channel from now on; the one of before is closed."""
        before, self.answers = self.answers, answers
        if before is not None:
            self._epoll.unregister(before.fileno())
            before.close()
        if answers is not None:
            self._epoll.register(answers.fileno(), select.EPOLLIN)

    def leave_behind(self) -> None:
        """In a process just forked: close every descriptor, and leave the master's own alone."""
        if self.answers is not None:
            self.answers.close()
        if self.listener is not None:
            self.listener.close()
        self._epoll.close()

    def close(self) -> None:
        """Close everything, and remove the socket's file."""
        self.talk(None)
        self.move(None)
        self._epoll.close()


def of_settings(settings: Settings, log: ErrorLog) -> ListeningSocket | None:
    """The listener at ``admin_bind``, None where that is off. Raises BindError."""
    if settings.admin_bind is None:
        return None
    owner = privileges.socket_owner(settings.user, settings.group, settings.umask, settings.socket_group)
    try:
        (listener,) = open_listeners.open_all([settings.admin_bind], (), BACKLOG, settings.socket_mode, owner)
    except BindError as error:
        why = str(error).replace("--bind", "--admin-bind")
        raise BindError(f"admin_bind {settings.admin_bind}: {why}", error.errno) from None
    if not listener.unix and not ipaddress.ip_address(listener.address.host).is_loopback:
        log.warning(
            f"admin_bind {settings.admin_bind}: other machines can reach it, and it asks for no password; name "
            "127.0.0.1 or unix:PATH, or let a firewall choose its clients"
        )
    return listener


def give_up(listener: ListeningSocket) -> None:
    """Remove the file of a listener, and close our copy without waiting for what another process has made of it."""
    listener.unlink()
    if not (listener.unix or listener.ended):
        listener.close()
        return
    try:
        syscalls.close_in_child(listener)
    except OSError:  # no process to be had: better that a descriptor stays than that the master waits
        listener.detach()
