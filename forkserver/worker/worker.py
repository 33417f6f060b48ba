"""A worker process from its fork to its exit.

It reports each step to the master (Hello, Loaded, Ready), loads the application where its template did not, waits for
the order to serve, and serves (serving.py). An error on the way is reported as LoadFailed, and its status becomes the
exit status.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import select
import signal
from typing import Final

from forkserver.ipc import messages
from forkserver.ipc.channel import Channel
from forkserver.linux import signals
from forkserver.linux.common.process_title import set_title
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.worker import common_orders, user_hooks
from forkserver.worker.development.file_reports import importing
from forkserver.worker.loading import loader, log_config, own_descriptors
from forkserver.worker.loading.loader import Code
from forkserver.worker.serving import Serving, WorkerConfig, WorkerOrders

_FROM_THE_MASTER: Final = frozenset({signals.LEAVE, signals.LEAVE_NOW})
_NOTED: Final = (signals.HANDLED | _FROM_THE_MASTER) - {signal.SIGUSR2, signal.SIGCHLD}  # SIGUSR2 is faulthandler's yet


class WorkerProcess:
    """The process itself, from its fork; it hands on to ``Serving``."""

    def __init__(self, worker_config: WorkerConfig, channel: Channel) -> None:
        self.worker_config = worker_config
        self.log = worker_config.log
        self.channel = channel

    def run(self) -> int:
        """The life of the worker; returns its exit status."""
        try:
            return self._live()
        except BaseException:
            # A fault, or a signal handler of the application's that raises. The interpreter may wait at its end for
            # threads of the application, without an end; so the master is told.
            self.channel.close()
            raise

    def _live(self) -> int:
        hook_worker = self.worker_config.worker()
        self.log.process = f"worker={hook_worker.number} gen={hook_worker.generation}"
        self.worker_config.access.identify(hook_worker.number, hook_worker.generation)
        self.log.on_lost = self.worker_config.access.on_lost = self.worker_config.row.lose_lines
        set_title(
            f"forkserver: worker {hook_worker.number} gen {hook_worker.generation} [{self.worker_config.settings.app}]"
        )
        for signum in (signal.SIGUSR2, signals.LAST_WORDS):
            faulthandler.register(signum, self.log.dump_fileno(), all_threads=True)
        atexit.register(signals.block)  # first, so that it runs last: after the exit callbacks of the application
        self.channel.send(messages.Hello())
        try:
            code = self._code()
        except Exception as error:
            return self._failed(error)
        if self.worker_config.code is None:
            generation = user_hooks.HookGeneration(hook_worker.generation, False, hook_worker.pid)
            user_hooks.tell_loaded(code.hooks, generation, self.log)
        hook_calls = user_hooks.HookCalls(code.hooks, hook_worker, self.worker_config.row, self.log)
        hook_calls.forked()
        # After the import: the application may set handlers of its own there.
        noted = signals.Signals(_NOTED)
        signals.outlive_clients()
        signals.unblock()
        self.channel.send(messages.Loaded())
        order = self._wait_for_listeners(noted)
        why, status = (order, 0) if isinstance(order, str) else self._serve(code, noted, order, hook_calls)
        # No ``finally``: a process that the application forked may leave through these frames.
        hook_calls.leaving(why, status)
        return status

    def _serve(
        self, code: Code, noted: signals.Signals, order: WorkerOrders, hook_calls: user_hooks.HookCalls
    ) -> tuple[str, int]:
        """Serve; why that has ended, and the exit status."""
        try:
            serving = Serving(self.worker_config, self.channel, noted, code, order, hook_calls)
            serving.check()
        except Exception as error:  # the classes may be the application's own
            return user_hooks.NOT_READY, self._failed(error)
        return serving.run()

    def _failed(self, error: Exception) -> int:
        report = loader.load_failed(error)
        self.channel.send(report)
        return report.exit_status

    def _code(self) -> Code:
        gc.enable()  # off since the template began
        if self.worker_config.code is not None:
            from forkserver.worker.fork_safety.exemptions import reseed_numpy  # loaded: the template has imported it

            reseed_numpy()
            log_config.reopen(self.log)
            return self.worker_config.code
        signals.rest()
        signals.unblock()
        with importing(self.worker_config.file_reporter):
            return own_descriptors.load(self.worker_config.settings, self.log, self.channel.descriptors())

    def _wait_for_listeners(self, noted: signals.Signals) -> WorkerOrders | str:
        """Wait for the order to serve; where there is to be no serving, why."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        poll.register(noted.fileno(), select.POLLIN)
        self.channel.setblocking(False)
        drain = False
        while True:
            poll.poll()
            told = _FROM_THE_MASTER.intersection(noted.take())
            try:
                arrival = self.channel.receive()
            except EOFError:
                return user_hooks.MASTER_GONE
            if told:  # the order to retire, which says why, may have come before it
                retire = arrival.message if arrival is not None else None
                return retire.why if isinstance(retire, messages.Retire) else user_hooks.STOP
            if arrival is None:
                continue
            match arrival.message:
                case messages.Serve() as order:
                    return _worker_orders(order, arrival.descriptors, drain)
                case messages.Retire(why=why):
                    return why
                case messages.Drain():
                    drain = True
                case messages.Drop() | messages.Maintain() | messages.ShowFailure():
                    continue  # no connection is open yet, and the order to serve says it again
                case _:
                    common_orders.obey_in_passing(arrival, self.log, self.worker_config.access, self.channel)


def _worker_orders(order: messages.Serve, descriptors: tuple[int, ...], drain: bool) -> WorkerOrders:
    of_master = [int(number) for number in order.numbers.split(",")]
    count = len(of_master)
    listeners = [PlainSocket(fileno=descriptor) for descriptor in descriptors[:count]]
    give_and_take = descriptors[count : count + 2]
    handoff = (give_and_take[0], give_and_take[1]) if len(give_and_take) == 2 else None
    return WorkerOrders(list(zip(of_master, listeners, strict=True)), handoff, drain, order.maintenance)
