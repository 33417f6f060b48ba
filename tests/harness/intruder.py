"""Another user of the machine: a process that swaps names in its own folder while root works there."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

INTRUDER = pwd.getpwnam("nobody")


def give(*paths: Path) -> None:
    """Make the intruder the owner of files and folders; of a link itself, not of what it leads to."""
    for path in paths:
        os.chown(path, INTRUDER.pw_uid, INTRUDER.pw_gid, follow_symlinks=False)


@contextmanager
def swapping(folder: Path, *names: str) -> Iterator[None]:
    """Have the intruder rename in ``folder``, each of ``names`` in turn to the first of them, until the end."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _forever(lambda: _swap(names), folder, writing)
    os.close(writing)
    try:
        assert os.read(reading, 1) == b"!", "the intruder has not begun"
        yield
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _swap(names: tuple[str, ...]) -> None:
    target = names[0]
    for name in names[1:]:
        with suppress(OSError):  # root is at work there, too
            os.rename(target, ".kept")
            os.rename(name, target)
            os.rename(target, name)
            os.rename(".kept", target)


def _forever(act: Callable[[], None], folder: Path, writing: int) -> None:
    try:
        os.setgroups([INTRUDER.pw_gid])
        os.setgid(INTRUDER.pw_gid)
        os.setuid(INTRUDER.pw_uid)
        os.chdir(folder)
        act()
        os.write(writing, b"!")
        while True:
            act()
    finally:
        os._exit(1)
