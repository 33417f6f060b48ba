"""What a service says to its manager and what it is given by it: sd_notify, socket activation and the descriptor store.

The variables of both are removed from the environment once read, so that no program that the application starts takes
itself for the service.

Source: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3), systemd.socket(5).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Final

from forkserver.errors import ConfigError
from forkserver.linux import syscalls
from forkserver.linux.common.escaping import printable
from forkserver.linux.sockets.plain_socket import PlainSocket

FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
LISTEN: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
NOTIFY: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE")
STATUS_BYTES: Final = 2000  # of a status: systemd ignores a whole datagram of 4096 bytes or more (NOTIFY_BUFFER_MAX)
_CUT: Final = "..."
_PROBE: Final = "forkserver-probe"
_WAIT_SECONDS: Final = 1.0
BECOMING_SECONDS: Final = 60.0  # for a program that is run in place of this one until it pings


def listen_fds(environ: Mapping[str, str]) -> list[tuple[int, str]]:
    """The descriptors that systemd passed to this very process, each with its name (``FileDescriptorName=``).

    They are closed on exec from now on. Raises ConfigError where the variables make no sense.
    """
    variables = dict(environ)
    forget(os.environ, LISTEN)
    if variables.get("LISTEN_PID") != str(os.getpid()):
        return []  # meant for another process: a parent of ours left its variables in the environment
    count = variables.get("LISTEN_FDS", "")
    if not count.isdecimal():
        raise ConfigError(f"LISTEN_FDS={count}: not a number of descriptors; leave it to systemd to set it")
    names = variables.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for place in range(int(count)):
        number = FIRST_DESCRIPTOR + place
        try:
            passed = os.get_inheritable(number)  # what was opened by this process since is closed on exec
        except OSError:
            passed = False
        if not passed:
            raise ConfigError(f"LISTEN_FDS={count}: descriptor {number} is not open; leave it to systemd to set it")
        os.set_inheritable(number, False)
        found.append((number, names[place] if place < len(names) and names[place] else "unknown"))
    return found


def forget(environ: MutableMapping[str, str], names: tuple[str, ...]) -> None:
    """Take ``names`` out of ``environ``."""
    for name in names:
        environ.pop(name, None)


class Notifier:
    """Tells the service manager how the service stands; without one, says nothing.

    ``watchdog_seconds`` is how often it must hear from us, None where it does not ask for that.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog_seconds = _watchdog(environ)
        self._said = ""  # the last status
        forget(os.environ, NOTIFY)
        # "@name" stands for an abstract name, which begins with NUL (unix(7)); other kinds (vsock) are not for us.
        self.address = "\0" + address[1:] if address.startswith("@") else address
        self.enabled = address.startswith(("/", "@"))

    def ready(self, status: str) -> None:
        """The service serves, after a start or after a reload, refused or not."""
        self._send(f"READY=1\n{self._status(status)}")

    def reloading(self, status: str) -> None:
        """A reload begins. One datagram with the time: systemd waits for ever where they come apart."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}\n{self._status(status)}")

    def stopping(self, status: str, seconds: float = 0.0) -> None:
        """The service has begun to stop, and may take ``seconds`` for it, where that is more than it has anyway."""
        more = f"\n{_extension(seconds)}" if seconds else ""
        self._send(f"STOPPING=1\n{self._status(status)}{more}")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``; what was said last is not said again."""
        if self._said != status and not self._send(self._status(status), waits=False):
            self._said = ""  # nor has it been said now

    def extend(self, seconds: float) -> None:
        """The start or reload under way makes progress: it may take ``seconds`` from now, never less than before."""
        self._send(_extension(seconds), waits=False)

    def alive(self) -> None:
        """The watchdog's ping."""
        self._send("WATCHDOG=1", waits=False)

    def stretch_watchdog(self) -> None:
        """The next ping comes from another program, which has to load first: BECOMING_SECONDS for it, at least."""
        if self.watchdog_seconds is not None:
            self._send(_watchdog_time(max(self.watchdog_seconds, BECOMING_SECONDS)))

    def restore_watchdog(self) -> None:
        """From now on the manager must hear from us as often as it was told to; this is a ping, too."""
        if self.watchdog_seconds is not None:
            self._send(_watchdog_time(self.watchdog_seconds))

    def store(self, name: str, descriptor: int) -> None:
        """Have the manager keep a copy of ``descriptor`` for the next start, under ``name`` (see ``is_storable``)."""
        # FDPOLL=0: not thrown away when it hangs up, which a listener does not mean.
        self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", [descriptor])

    def unstore(self, name: str) -> None:
        """Have the manager close what it keeps under ``name``."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def has_room(self, seconds: float = 0.5) -> bool:
        """Whether the manager keeps descriptors, and one more than it has by now; asked within ``seconds``.

        What it does not keep it closes: it is given the end of a pipe, and then one of another by BARRIER=1, which it
        closes when it has dealt with all that came before.
        """
        if not self.enabled:
            return False
        ends: list[int] = []
        try:
            ends += os.pipe()
            ends += os.pipe()
            kept, probe, passed, barrier = ends
            self.store(_PROBE, probe)
            sent = self._send("BARRIER=1", [barrier])
            for number in (probe, barrier):
                os.close(number)
                ends.remove(number)
            # A pipe tells its end in any case, without an event to ask for.
            found = sent and syscalls.has_event(passed, 0, seconds) and not syscalls.has_event(kept, 0)
            self.unstore(_PROBE)
        except OSError:  # we have no descriptor left to ask with
            return False
        finally:
            for number in ends:
                os.close(number)
        return found

    def _status(self, status: str) -> str:
        self._said = status
        return f"STATUS={_one_line(status)}"

    def _send(self, message: str, descriptors: Iterable[int] = (), waits: bool = True) -> bool:
        """Send one datagram, and say whether it went. What may be lost does not wait for a manager that is slow."""
        if not self.enabled:
            return False
        data, beside = [message.encode("utf-8", "backslashreplace")], syscalls.control_messages(descriptors)
        try:
            with PlainSocket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_WAIT_SECONDS if waits else 0)  # it must not hold up the service
                sender.sendmsg(data, beside, 0, self.address)
        except OSError:
            # The manager is being restarted, or gone, or we have no descriptor left. Serving goes on.
            return False
        return True


def is_storable(name: str) -> bool:
    """Whether the manager takes ``name`` for a descriptor: up to 255 ASCII characters that print, without ``:``."""
    return 0 < len(name) <= 255 and name.isascii() and name.isprintable() and ":" not in name


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """The seconds within which the manager wants to hear from this very process."""
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None  # a parent's, who has left its variables in the environment
    if not (microseconds.isascii() and microseconds.isdigit() and 0 < int(microseconds) < 2**63):
        return None
    return int(microseconds) / 1e6


def _extension(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"


def _watchdog_time(seconds: float) -> str:
    return f"WATCHDOG_USEC={round(seconds * 1e6)}"  # which begins anew with this datagram


def _one_line(text: str) -> str:
    """``text`` as one line: a line feed would begin another assignment, and a terminal will show it.

    A longer one is cut. A READY=1 beside it would be lost with it, and a reload would not end.
    """
    line = printable(" ".join(text.split()))
    encoded = line.encode("utf-8", "backslashreplace")
    if len(encoded) <= STATUS_BYTES:
        return line
    return encoded[: STATUS_BYTES - len(_CUT)].decode("utf-8", "ignore") + _CUT
