"""What a master has of the system that it runs on; a test gives it another."""

from __future__ import annotations

from collections.abc import Callable

from forkserver.linux import signals, syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.signals import BlockedSignals
from forkserver.linux.systemd import Notifier
from forkserver.linux.terminal import Terminal
from forkserver.master.processes.children import Children


class System(NamedTuple):
    """``spawn`` forks a child that goes on with a function, and ``clock`` is the time in seconds (CLOCK_MONOTONIC)."""

    signals: BlockedSignals
    terminal: Terminal
    notifier: Notifier
    children: Children
    spawn: Callable[[signals.Main], int] = signals.spawn
    clock: Callable[[], float] = syscalls.clock
