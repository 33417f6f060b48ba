"""syslog as the target of a log: a datagram for each line, to the daemon behind /dev/log; without waiting for it.

``syslog`` alone means the facility daemon; ``syslog:local0`` another one, ``syslog:/path`` another socket, and both
together do: ``syslog:local0:/path``. In a log with ``priorities`` a line that begins with one in angle brackets has
that severity; in another log it is text, perhaps a client's. Where the daemon was started anew, the socket is connected
again; a line for which there is no room is dropped and counted.

Source: RFC 3164 section 4.1 in its local form, without a host, as syslog(3) sends it; unix(7).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from errno import ECONNREFUSED, ECONNRESET, ENOENT, ENOTCONN, EPIPE
from select import PIPE_BUF
from typing import Final

from forkserver.linux.common.records import NamedTuple
from forkserver.linux.syscalls import monotonic, wall_time
from forkserver.logs.datagram_socket import DatagramSocket
from forkserver.logs.log_output import LogOutput

NAME: Final = "syslog"
_DEVICE: Final = "/dev/log"
_FACILITIES: Final = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9,
    "authpriv": 10, "ftp": 11, **{f"local{number}": 16 + number for number in range(8)},
}  # fmt: skip
_INFO: Final = 6
_PRIORITY: Final = re.compile(rb"<([0-7])>")
_MOST_BYTES: Final = 8192  # of a line; what daemons take, rsyslog by default
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_GONE: Final = frozenset((ECONNREFUSED, ECONNRESET, ENOENT, ENOTCONN, EPIPE))  # the daemon, which may be back


class SyslogTarget(NamedTuple):
    """Where lines go, and the facility's number."""

    path: str
    facility: int


def syslog_target(text: str | None) -> SyslogTarget | None:
    """What ``text`` says of syslog; None where it means a file. Raises ValueError where it can mean neither."""
    name, *parts = (text or "").split(":", 2)
    if name != NAME:
        return None
    facility, path = "daemon", _DEVICE
    for part in parts:
        if part.startswith("/"):
            path = part
        elif part in _FACILITIES:
            facility = part
        else:
            raise ValueError(f"no facility {part!r}: use one of {', '.join(_FACILITIES)}, or the path of a socket")
    return SyslogTarget(path, _FACILITIES[facility])


def is_syslog(target: str) -> bool:
    """Whether a log's ``target`` means syslog."""
    return target.partition(":")[0] == NAME


def names_file(target: str | None) -> bool:
    """Whether a log's ``target`` is a file, and not a standard stream, syslog or nothing."""
    return target not in (None, "", "-") and not is_syslog(target)


class SyslogOutput(LogOutput):
    """Lines to ``target``. Raises OSError where no daemon listens there. ``clock`` gives seconds."""

    def __init__(self, target: SyslogTarget, priorities: bool, clock: Callable[[], float] = monotonic) -> None:
        self._target = target
        self._priorities = priorities
        self._socket = DatagramSocket(target.path)
        super().__init__(self._socket.fileno(), clock)

    def _choose(self) -> None:
        self._piece = PIPE_BUF

    def renew(self) -> None:
        """In a forked child: send by a socket that the parent does not share. Datagrams of several never mix."""
        self._socket.renew()

    def close(self) -> None:
        """Close the socket."""
        if (sock := getattr(self, "_socket", None)) is not None:
            sock.close()

    def _write(self, data: bytes) -> int:
        return sum(not self._send_line(line) for line in data.splitlines())

    def _send_line(self, line: bytes) -> bool:
        match = _PRIORITY.match(line) if self._priorities else None
        severity = int(match[1]) if match else _INFO
        if match:
            line = line[match.end() :]
        datagram = self._header(severity) + line[:_MOST_BYTES]
        for attempt in range(2):
            try:
                self._socket.send(datagram)
            except OSError as error:
                self.reason = os.strerror(error.errno or 0).lower()
                if attempt or error.errno not in _GONE or not self._reconnect():
                    return False
            else:
                return True
        return False

    def _header(self, severity: int) -> bytes:
        at = time.localtime(wall_time())
        clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
        priority = self._target.facility * 8 + severity
        return f"<{priority}>{_MONTHS[at.tm_mon - 1]} {at.tm_mday:2} {clock} forkserver[{os.getpid()}]: ".encode()

    def _reconnect(self) -> bool:
        try:
            self._socket.connect()
        except OSError as error:
            self.reason = os.strerror(error.errno or 0).lower()
            return False
        return True
