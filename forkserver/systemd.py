"""What a service says to its manager and what it is given by it: sd_notify and socket activation, in plain stdlib.

It promises that the variables of both are gone from the environment once read, so that nothing we start takes itself
for the service. It refuses to know what the service is doing.

Source: sd_notify(3), sd_listen_fds(3), systemd.socket(5).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final

from forkserver.errors import ConfigError

FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
_LISTEN: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_NOTIFY: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


def listen_fds(environ: Mapping[str, str]) -> list[tuple[int, str]]:
    """The descriptors that systemd passed to this very process, each with its name (``FileDescriptorName=``).

    They are closed on exec from now on. Raises ConfigError where the variables make no sense.
    """
    given = dict(environ)
    forget(os.environ, _LISTEN)
    if given.get("LISTEN_PID") != str(os.getpid()):
        return []  # meant for another process: a parent of ours left its variables in the environment
    count = given.get("LISTEN_FDS", "")
    if not count.isdecimal():
        raise ConfigError(f"LISTEN_FDS={count}: not a number of descriptors; leave it to systemd to set it")
    names = given.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for place in range(int(count)):
        number = FIRST_DESCRIPTOR + place
        try:
            os.set_inheritable(number, False)
        except OSError as error:
            raise ConfigError(
                f"LISTEN_FDS={count}: descriptor {number} is not open ({error.strerror}); leave it to systemd to set it"
            ) from None
        found.append((number, names[place] if place < len(names) and names[place] else "unknown"))
    return found


def forget(environ: MutableMapping[str, str], names: tuple[str, ...]) -> None:
    """Take ``names`` out of ``environ``."""
    for name in names:
        environ.pop(name, None)


class Notifier:
    """Tells the service manager how the service stands; without one, says nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        forget(os.environ, _NOTIFY)
        # "@name" stands for an abstract name, which begins with NUL (unix(7)); other kinds (vsock) are not for us.
        self.address = "\0" + address[1:] if address.startswith("@") else address
        self.enabled = address.startswith(("/", "@"))

    def ready(self, status: str) -> None:
        """The service serves, after a start or after a reload, refused or not."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def reloading(self, status: str) -> None:
        """A reload begins. One datagram with the time: systemd waits for ever where they come apart."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS={_one_line(status)}")

    def stopping(self, status: str) -> None:
        """The service has begun to stop."""
        self._send(f"STOPPING=1\nSTATUS={_one_line(status)}")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={_one_line(status)}")

    def _send(self, message: str) -> None:
        if not self.enabled:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1)  # a manager that does not read must not hold up the service
                sender.sendto(message.encode(), self.address)
        except OSError:
            # The manager is being restarted, or gone, or we have no descriptor left. Serving goes on.
            return


def _one_line(text: str) -> str:
    """``text`` as one line: a line feed would begin another assignment."""
    return " ".join(text.split())
