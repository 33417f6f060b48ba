"""The terminal that the program was started at: what the application gets of it, and what its closing means.

Templates and workers have sessions of their own, so the terminal is not theirs: an application that runs as another
user cannot type into root's terminal (TIOCSTI), and signals of the terminal reach the master alone. The master, which
stays in the terminal's session, gets a SIGHUP when the terminal closes: from the kernel, or from the shell that passes
it on to its jobs. Both come after the kernel has taken the terminal away from the session, which tells them apart from
a SIGHUP that asks for a reload.

Source: credentials(7), setsid(2), tty(4), tty_ioctl(4), signal(7); "SIGHUP" in the manual of bash.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

from forkserver.linux.early_signals import has_terminal
from forkserver.linux.files import standard_streams
from forkserver.linux.signals import Received


class Terminal:
    """The controlling terminal, which was ``there`` at the start or not; ``present`` is false under nohup, too."""

    def __init__(self, there: bool) -> None:
        self.present = there and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        self._started_by = {os.getsid(0), os.getppid()}
        self._attributes: list[Any] | None = None

    def save(self) -> None:
        """Note how the terminal is set, before a debugger sets it otherwise for editing a line."""
        if self.present and os.isatty(0):
            import termios  # late: few services have a debugger

            self._attributes = termios.tcgetattr(0)

    def restore(self) -> None:
        """Set the terminal as it was saved: the debugger that has set it otherwise was ended."""
        if self._attributes is not None:
            import termios

            with suppress(termios.error):  # it has gone
                termios.tcsetattr(0, termios.TCSADRAIN, self._attributes)

    def closed(self, received: Received) -> bool:
        """Whether ``received``, a SIGHUP, comes from the terminal's closing and does not ask for a reload."""
        if not self.present or received.signum is not signal.SIGHUP:
            return False
        # A shell that ends passes it on; anyone else asks for a reload, though the terminal may have gone long before.
        return received.from_kernel or (received.pid in self._started_by and not has_terminal())


def leave(*, another_user: bool, debugger: bool = False) -> bool:
    """Put this process, which is about to run the application, into a session of its own, without a terminal.

    For a ``debugger`` it stays in the session and the group of the program, where those are in the foreground. Returns
    whether it has left.

    Standard input becomes /dev/null. Where the application runs as the user of the terminal, and the program in its
    foreground, it stays as it is, for debuggers; nothing of it stays readable for ``another_user``.
    Raises OSError, and ForkserverError where there is no /dev/null.
    """
    own = not another_user and _is_own_terminal()
    if own and debugger:
        return False
    if not own:
        standard_streams.open_null(0)
    if another_user:
        for number in (1, 2):
            if os.isatty(number):
                _reopen_for_writing(number)
    os.setsid()
    return True


def _is_own_terminal() -> bool:
    """Whether standard input is a terminal of our user's, with our process group in its foreground."""
    try:
        return os.fstat(0).st_uid == os.geteuid() and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # no terminal, or not the one of our session: tcgetpgrp(3)
        return False


def _reopen_for_writing(number: int) -> None:
    """Terminals are commonly inherited open for reading, too."""
    with suppress(OSError):  # one of another mount namespace, such as a container's console: it stays as it is
        opened = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        os.dup2(opened, number)
        os.close(opened)
