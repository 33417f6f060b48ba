"""The file that holds the master's process id while it runs.

It promises that the file is there whole or not at all, that a running master's is never taken away from it, and that
only our own is removed. It refuses to be more than a hint to programs that want to send a signal.
"""

from __future__ import annotations

import os

from forkserver.errors import ConfigError, ForkserverError


class PidFile:
    """The pid file at ``path``; ``held`` says that we have written it before.

    Raises ConfigError where another server has it, and ForkserverError where it cannot be written.
    """

    def __init__(self, path: str, held: bool = False) -> None:
        self.path = os.path.abspath(path)
        if held:
            return
        holder = _holder(self.path)
        if holder is not None:
            raise ConfigError(
                f"pidfile {path!r}: forkserver runs already as pid {holder}; stop it, or name another file"
            )
        try:
            self._write()
        except OSError as error:
            raise ForkserverError(
                f"pidfile {path!r}: cannot be written: {(error.strerror or '').lower()}; mend that or name another file"
            ) from None

    def _write(self) -> None:
        """Beside it and then over it, so that no reader finds half a number."""
        beside = f"{self.path}.{os.getpid()}"
        number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with open(number, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        os.replace(beside, self.path)

    def remove(self) -> None:
        """Remove the file, if it is still ours."""
        if _read(self.path) != os.getpid():
            return
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return


def _read(path: str) -> int | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(32).strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _holder(path: str) -> int | None:
    """The pid in the file, where a forkserver other than ourselves has it: pids come again, in containers always."""
    pid = _read(path)
    if pid is None or pid == os.getpid():
        return None
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return pid if b"forkserver" in file.read() else None
    except OSError:
        return None
