"""syslog as the target of a log: a datagram for each line, to the daemon behind /dev/log; without waiting for it.

``syslog`` alone means the facility daemon; ``syslog:local0`` another one, ``syslog:/path`` another socket, and both
together do: ``syslog:local0:/path``. In place of a path ``udp://ADDRESS:PORT`` and ``tcp://ADDRESS:PORT`` are another
machine, which is told ours, and the time with its zone. In a log with ``priorities`` a line that begins with one in
angle brackets has that severity; in another log it is text, perhaps a client's. Where the daemon was started anew, the
socket is connected again; a line for which there is no room is dropped and counted.

Names of machines are not looked up: that waits for another machine, and the master must not.

Source: RFC 3164 section 4.1 in its local form, without a host, as syslog(3) sends it; unix(7). To other machines: RFC
5424 section 6, RFC 5426, RFC 6587.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from errno import (
    EAGAIN,
    ECONNREFUSED,
    ECONNRESET,
    EDESTADDRREQ,
    EHOSTUNREACH,
    ENETUNREACH,
    ENOENT,
    ENOTCONN,
    EPIPE,
    ETIMEDOUT,
)
from select import PIPE_BUF
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

from forkserver.linux.common.records import NamedTuple
from forkserver.linux.syscalls import monotonic, wall_time
from forkserver.logs.daemon_socket import Address, DatagramSocket, StreamSocket
from forkserver.logs.error_format import rfc3339
from forkserver.logs.log_output import LogOutput

NAME: Final = "syslog"
_DEVICE: Final = "/dev/log"
_FACILITIES: Final = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9,
    "authpriv": 10, "ftp": 11, **{f"local{number}": 16 + number for number in range(8)},
}  # fmt: skip
_INFO: Final = 6
_PRIORITY: Final = re.compile(rb"<([0-7])>")
_HOST_AND_PORT: Final = re.compile(r"(?:\[(?P<six>[^]]*)\]|(?P<host>[^:\[\]/]+))(?::(?P<port>[0-9]{1,5}))?")
_MOST_BYTES: Final = 8192  # of a line; what daemons take, rsyslog by default
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_GONE: Final = frozenset(  # the daemon, which may be back, or the way to it
    (ECONNREFUSED, ECONNRESET, EDESTADDRREQ, EHOSTUNREACH, ENETUNREACH, ENOENT, ENOTCONN, EPIPE, ETIMEDOUT)
)
_REMOTE: Final = re.compile(r"(?:^|:)(udp|tcp)://(.*)", re.DOTALL)
_PORT: Final = 514


class SyslogTarget(NamedTuple):
    """Where lines go, and the facility's number; ``stream`` is by TCP."""

    address: Address
    facility: int
    stream: bool = False

    def __str__(self) -> str:
        """The address as a person writes it."""
        if isinstance(self.address, str):
            return self.address
        host, port = self.address
        return f"{'tcp' if self.stream else 'udp'}://{f'[{host}]' if ':' in host else host}:{port}"


def syslog_target(text: str | None) -> SyslogTarget | None:
    """What ``text`` says of syslog; None where it means a file. Raises ValueError where it can mean neither."""
    name, more, rest = (text or "").partition(":")
    if name != NAME:
        return None
    remote = _REMOTE.search(rest)
    local = rest[: remote.start()] if remote else rest
    parts = local.split(":", 1) if local or (more and not remote) else []
    facility, address = "daemon", _remote(remote[1], remote[2]) if remote else _DEVICE
    for part in parts:
        if part.startswith("/") and not remote:
            address = part
        elif part in _FACILITIES:
            facility = part
        else:
            raise ValueError(
                f"no facility {part!r}: use one of {', '.join(_FACILITIES)}, the path of a socket, "
                "udp://ADDRESS:PORT or tcp://ADDRESS:PORT"
            )
    return SyslogTarget(address, _FACILITIES[facility], remote is not None and remote[1] == "tcp")


def _remote(scheme: str, text: str) -> tuple[str, int]:
    """The address and the port in ``text``. Raises ValueError with the way out."""
    match = _HOST_AND_PORT.fullmatch(text)
    port = int(match["port"] or _PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(f"{scheme}://{text}: give {scheme}://ADDRESS:PORT; without a port it is {_PORT}")
    host = match["six"] or match["host"]
    try:
        inet_pton(AF_INET6 if match["six"] else AF_INET, host)
    except OSError:
        raise ValueError(
            f"{scheme}://{text}: {host!r} is no IP address, and names are not looked up, for the master must not wait; "
            "give the address, or have this machine's daemon pass the lines on"
        ) from None
    return host, port


def is_syslog(target: str) -> bool:
    """Whether a log's ``target`` means syslog."""
    return target.partition(":")[0] == NAME


def names_file(target: str | None) -> bool:
    """Whether a log's ``target`` is a file, and not a standard stream, syslog or nothing."""
    return target not in (None, "", "-") and not is_syslog(target)


class SyslogOutput(LogOutput):
    """Lines to ``target``. ``clock`` gives seconds.

    Raises OSError where no daemon listens there, unless it may be ``away`` for now: lines are lost until it is back.
    """

    def __init__(
        self, target: SyslogTarget, priorities: bool, clock: Callable[[], float] = monotonic, away: bool = False
    ) -> None:
        self._target = target
        self._priorities = priorities
        self._host = _host_name()
        self._socket: DatagramSocket | StreamSocket
        if target.stream and not isinstance(target.address, str):
            self._socket = StreamSocket(target.address, clock)
        else:
            self._socket = DatagramSocket(target.address, away)
        super().__init__(self._socket.fileno(), clock)

    @property
    def can_be_held(self) -> bool:
        """No sender holds a socket while it waits."""
        return False

    def descriptors(self) -> set[int]:
        """That of the socket, which keeps its number where it is connected anew."""
        return {self._socket.fileno()} - {-1}

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
        waited = reconnected = False
        while True:
            try:
                self._socket.send(datagram)
            except OSError as error:
                self.reason = os.strerror(error.errno or 0).lower()
                # It may only be connecting, also once it was connected anew.
                if error.errno == EAGAIN and self._target.stream and not waited:
                    waited = again = self._wait()
                elif error.errno in _GONE and not reconnected:
                    reconnected = again = self._reconnect()
                else:
                    return False
                if not again:
                    return False
            else:
                return True

    def _header(self, severity: int) -> bytes:
        if not isinstance(self._target.address, str):
            priority = self._target.facility * 8 + severity
            return f"<{priority}>1 {rfc3339(wall_time())} {self._host} forkserver {os.getpid()} - - ".encode()
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


def _host_name() -> str:
    """This machine's name, in what RFC 5424 allows."""
    name = os.uname().nodename
    return name if name and all("!" <= each <= "~" for each in name) and len(name) < 256 else "-"
