"""What a signal to the master asks for: reload, stop, more or fewer workers, new log files, an upgrade.

Signals stay blocked and are read one by one (signalfd(2)), so each is obeyed between two turns of the master's loop.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable

from forkserver.linux import signals
from forkserver.linux.terminal import Terminal
from forkserver.master.actions import Actions
from forkserver.master.model.rollout import Rollout
from forkserver.master.processes.worker_table import WorkerTable
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.shutdown import Shutdown


class SignalHandlers:
    """``reopen_logs`` and ``upgrade`` obey USR1 and USR2."""

    def __init__(
        self,
        terminal: Terminal,
        rollout: Rollout,
        table: WorkerTable,
        reporter: Reporter,
        actions: Actions,
        shutdown: Shutdown,
        reopen_logs: Iterable[Callable[[], None]],
        upgrade: Callable[[], None],
    ) -> None:
        self._terminal = terminal
        self._rollout = rollout
        self._table = table
        self._reporter = reporter
        self._actions = actions
        self._shutdown = shutdown
        self._reopen_logs = tuple(reopen_logs)
        self._upgrade = upgrade

    def obey(self, received: signals.Received, now: float) -> None:
        """Do what ``received`` asks for."""
        if received.from_kernel and received.signum in signals.OF_A_TERMINAL:
            self._actions.pass_on(received.signum)
        match received.signum:
            case signal.SIGHUP if self._terminal.closed(received):
                if not self._rollout.fleet.departing:  # the shell and the kernel say it, one after the other
                    self._shutdown.ask(f"{received}, the terminal has closed", now, wait=False)
            case signal.SIGHUP:
                self._reporter.asked_to_reload(str(received))
                self._rollout.want_reload()
            case signal.SIGTERM:
                self._shutdown.ask(str(received), now, received.signum.name)
            case signal.SIGINT:
                self._shutdown.ask(str(received), now, received.signum.name, wait=False)
            case signal.SIGQUIT:
                self._shutdown.quickly(str(received), now)
            case signal.SIGTTIN if self._rollout.fleet.wanted >= self._table.most_workers:
                self._reporter.not_resized(str(received), self._table.most_workers)
            case signal.SIGTTIN | signal.SIGTTOU:
                self._actions.resize(1 if received.signum is signal.SIGTTIN else -1)
            case signal.SIGUSR1:
                for reopen in self._reopen_logs:
                    reopen()
            case signal.SIGUSR2:
                self._upgrade()
