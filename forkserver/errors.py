"""Every error forkserver raises, with the HTTP or exit status it means.

The message of each can be shown to a person as it is: it has the value, the reason and the way out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

PACKAGE: Final = os.path.dirname(os.path.abspath(__file__))  # the folder forkserver/


class ForkserverError(Exception):
    """Something forkserver cannot do; ``exit_status`` is what the program ends with."""

    exit_status = 1  # the system's fault


class ConfigError(ForkserverError):
    """The user's mistake: a setting, a flag, a file or an application name that cannot be meant."""

    exit_status = 2


def combined(mistakes: Sequence[str]) -> str:
    """Several messages as one line, numbered; one message as it is."""
    if len(mistakes) == 1:
        return mistakes[0]
    numbered = "; ".join(f"({number}) {message}" for number, message in enumerate(mistakes, 1))
    return f"{len(mistakes)} mistakes: {numbered}"


class LoadError(ForkserverError):
    """The application's own code failed while it was imported; ``traceback`` is its text."""

    exit_status = 3

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class BindError(ForkserverError, OSError):
    """An address that cannot be listened on. It is an OSError too, as ``make_server`` promises; ``errno`` is kept."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno
        self.strerror = os.strerror(errno) if errno and errno > 0 else message  # resolvers count below zero

    def __str__(self) -> str:
        return str(self.args[0])


class UnfitSocketError(BindError, ConfigError):
    """A descriptor was passed that is no listening socket which HTTP is spoken on."""


class ProtocolError(ForkserverError):
    """The client's fault: bytes that are not HTTP, or not HTTP we accept. ``status`` is what it is answered.

    ``fields`` are those of a head that was understood, where it is what the head asks for that is refused.
    """

    def __init__(self, status: int, reason: str, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.fields = fields


class AppError(ForkserverError):
    """The application's fault: it broke PEP 3333. The client gets 500, the log gets the reason."""


class RequestTimeout(BaseException):  # as KeyboardInterrupt: no error, an end
    """Raised in the application's call when it has lasted longer than ``timeout``; the client is answered 504.

    No Exception: ``except Exception`` in the application is not meant to go on. What it catches itself it should raise
    again; its worker serves nothing more in either case.
    """


def own_files_missing(error: BaseException) -> str:
    """What to do where a module of forkserver's cannot be imported any more; empty for any other ``error``."""
    if not isinstance(error, ImportError) or (error.name or "").partition(".")[0] != "forkserver":
        return ""
    return (
        f"forkserver's own files in {os.path.dirname(PACKAGE)} were removed or replaced since it was "
        f"started ({error.msg}); install it there again, and upgrade (USR2) or restart"
    )
