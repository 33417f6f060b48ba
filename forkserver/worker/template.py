"""One generation's parent: it imports the application once and forks workers on order.

The master never runs code of the application: the template imports it, and its workers share the memory of that import.
The master orders each fork over the channel. A worker is forked twice (worker_forks.py), which makes it the master's
child. Once the master is gone, the template ends the workers that have not left within the grace.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

from forkserver.config.invocation import Environment
from forkserver.config.settings import SURPLUS, Settings
from forkserver.errors import ForkserverError
from forkserver.ipc import messages
from forkserver.ipc.channel import CHILD_DESCRIPTORS, Arrival, Channel, ChildEnd, close_all
from forkserver.ipc.scoreboard import Scoreboard
from forkserver.linux import descriptor_limit, signals, syscalls, terminal
from forkserver.linux.common.process_title import set_title
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.descriptor_limit import Headroom
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets.listening_socket import SYN_SECONDS, ListeningSocket
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.worker import common_orders, user_hooks
from forkserver.worker.development.file_reports import FileReporter, importing
from forkserver.worker.fork_safety.sharing_advice import UNSEEN
from forkserver.worker.forking.worker_forks import WorkerForks, flush
from forkserver.worker.forking.worker_pidfds import WorkerPidfds
from forkserver.worker.loading import late_modules, loader, own_descriptors, warm_up
from forkserver.worker.loading.application import enter, set_environment
from forkserver.worker.loading.release_paths import enter_search_path, pin_packages, search_path_without
from forkserver.worker.serving import WorkerConfig
from forkserver.worker.worker import WorkerProcess

if TYPE_CHECKING:
    from forkserver.tls.contexts import TlsContexts

OOM_MORE = 100  # template and workers die before the master, which can replace them
OOM_WHILE_LOADING = syscalls.OOM_SCORE_MAX  # a generation that is loaded beside one that serves dies before that


class TemplateConfig(NamedTuple):
    """What the master gives a template at its fork. ``leave_behind`` closes what is the master's own.

    ``oom_more`` is what it adds to its oom_score_adj. ``directory`` is the one to enter, by its path; ``started_in`` is
    where the first start was, all links followed; ``environment`` is where packages come from. ``soft_limit`` is that
    of open files, which the master may have raised for itself; ``file_reporter`` tells which files are read.
    """

    settings: Settings
    generation: int
    shares: bool
    oom_more: int
    directory: str
    started_in: str
    environment: Environment
    soft_limit: int
    credentials: Credentials
    log: ErrorLog
    access: AccessLog
    board: Scoreboard
    tls: TlsContexts | None
    leave_behind: Callable[[], None]
    file_reporter: FileReporter | None = None


_TOGETHER: Final = 8  # workers that are forked at once


def title(generation: int) -> str:
    """How the title of a template, and of what it forks before that has a title of its own, begins."""
    return f"forkserver: template gen {generation} ["


def _orders_worker(arrival: Arrival) -> bool:
    return isinstance(arrival.message, messages.Spawn) and len(arrival.descriptors) == CHILD_DESCRIPTORS


def main(template_config: TemplateConfig, end: ChildEnd, master: int) -> int:
    """The life of a template, from its fork; ``master`` is the pid of its parent."""
    _come_first_for_oom(template_config)  # before it takes any memory: that may be the last there is
    template_config.leave_behind()
    descriptor_limit.restore(template_config.soft_limit)
    return TemplateProcess(template_config._replace(leave_behind=lambda: None), end.take(), master).run()


def _come_first_for_oom(template_config: TemplateConfig) -> None:
    try:
        syscalls.prefer_for_oom(template_config.oom_more)
    except OSError as error:  # a sandbox without a writable /proc; it only says which process dies first
        template_config.log.debug(
            f"oom_score_adj of template gen={template_config.generation} cannot be raised: {error}"
        )


class TemplateProcess:
    """The process itself. Its workers run on a stack of their own, by ``signals.ChildEntry``."""

    def __init__(self, template_config: TemplateConfig, channel: Channel, master: int) -> None:
        self.template_config = template_config
        self.settings = template_config.settings
        self.log = template_config.log
        self.channel = channel
        self.master = master
        self.pid = os.getpid()
        self.code: loader.Code | None = None
        self.begun = syscalls.clock()  # boot_timeout counts from here
        self.guarded: list[ListeningSocket] = []
        self.log.process = f"template gen={template_config.generation}"
        self.pidfds = WorkerPidfds()
        self.forks = WorkerForks(self.log, channel, self.pidfds, self._worker, self._leave_behind)

    def run(self) -> int:
        set_title(f"{title(self.template_config.generation)}{self.settings.app}]")
        self.log.part()  # before the import: the application can clear O_NONBLOCK of all that this process has
        if self.settings.capture_output == "on":
            self.log.capture()
        faulthandler.register(signal.SIGUSR2, self.log.dump_fileno(), all_threads=True)
        faulthandler.enable(self.log.dump_fileno())
        signals.forget_parent()
        signals.rest()
        signals.unblock()
        os.register_at_fork(after_in_child=self.forks.forked)  # before the import: hooks run in their order
        try:
            self._load()
        except Exception as error:
            report = loader.load_failed(error)
            self.channel.send(report)
            self._leave(report.exit_status)
        signals.rest()  # again: the application may have set its own while it was imported
        syscalls.die_with_parent(0)
        syscalls.adopt_orphans(False)  # or workers would be this process's children, and not the master's
        self.forks.take_headroom(Headroom.beside(SURPLUS * self.settings.most_workers, self.settings.nofile))
        self.channel.send(messages.Loaded())
        while self._turn():
            continue
        self._leave(0)

    # From the fork to Loaded

    def _load(self) -> None:
        """Take the rights and enter the directory of the application, and import it, if it is to be shared."""
        gc.disable()  # a collection would find nothing in imports, and touch pages that the workers are to share
        pin_packages(self.template_config.environment)
        set_environment(self.settings, self.template_config.directory)
        # By our own rights, for the application's user may not be able to read what we are made of; so not from the
        # folder that -m and -c search first either.
        with search_path_without(self.template_config.started_in):
            loader.preload_modules(self.settings, shared=self.template_config.shares)
            if self.template_config.credentials.changes:
                late_modules.load_for_application()
            if not self.template_config.shares and self.settings.reload_on_change == "off":
                late_modules.load_for_many()  # else the master has, once it serves (late_modules.py)
        self._take_rights()
        # An import hears no channel, so until it is over the kernel must end us where the master ends. After the
        # rights: changing them clears it. The master may have ended before, see prctl(2).
        syscalls.die_with_parent(signal.SIGKILL)
        if os.getppid() != self.master:
            self._leave(1)
        self._enter()
        if self.template_config.shares:
            gc.freeze()  # what the application makes is found among what is not frozen (process_snapshot.py)
            self._import()
        gc.freeze()  # also without the application: a collection in a worker leaves alone what all of them share

    def _take_rights(self) -> None:
        try:
            changes = self.template_config.credentials.changes
            self.forks.apart = terminal.leave(another_user=changes, debugger=self.settings.debugger == "on")
            self.template_config.credentials.take()
        except OSError as error:
            account = f"user {self.settings.user}, group {self.settings.group}"
            raise ForkserverError(
                f"cannot become {account}: {error.strerror}; start as root or leave them out"
            ) from None

    def _enter(self) -> None:
        # By its path, not by where it led when we started: a link may have been switched to a new release. Only what
        # takes the place of a template that died is given where it led then (release_paths.py).
        try:
            os.chdir(self.template_config.directory)
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            way_out = "put it back" if gone else "let the application's user read it"
            raise ForkserverError(
                f"cannot enter {self.template_config.directory}: {error.strerror}; {way_out}"
            ) from None
        read = not sys.flags.ignore_environment  # not by an isolated interpreter (-I, -E)
        enter_search_path(self.template_config.started_in, os.environ.get("PYTHONPATH", "") if read else "")
        enter(self.settings, self.template_config.directory)

    def _import(self) -> None:
        from forkserver.worker.fork_safety import verdict  # late: the master never needs it

        try:
            imported = verdict.Import()
        except OSError as error:
            self._import_unseen(error)
            return
        with imported.watched():
            self.code = self._load_code()
        self._tell_loaded(self.code)  # what it leaves behind is judged with the import
        if findings := imported.findings():
            left = verdict.words(findings)
            if self.settings.preload == "auto":
                imported.give_up()
                self.channel.send(messages.Unshareable(left))
                self._leave(0)
            self.log.warning(f"the import is shared (preload=on) although it left what processes cannot share: {left}")
        path = self.settings.warm_path
        seconds = max(0.0, self.settings.boot_timeout - (syscalls.clock() - self.begun)) / 2
        if path and (reason := warm_up.warm(self.code, self.settings, self.log, path, seconds)):
            self.log.warning(f"warm_path {path!r}: {reason}; workers are forked without it")

    def _import_unseen(self, error: OSError) -> None:
        """Without /proc nothing tells what the import leaves behind: it is shared only where that is ordered."""
        unseen = f"{error.filename} cannot be read ({error.strerror}), so {UNSEEN}"
        if self.settings.preload == "auto":
            self.channel.send(messages.Unshareable(unseen))
            self._leave(0)
        self.log.warning(f"the import is shared (preload=on) unseen: {unseen}")
        self.code = self._load_code()
        self._tell_loaded(self.code)

    def _tell_loaded(self, code: loader.Code) -> None:
        generation = user_hooks.HookGeneration(self.template_config.generation, True, os.getpid())
        user_hooks.tell_loaded(code.hooks, generation, self.log)

    def _load_code(self) -> loader.Code:
        with importing(self.template_config.file_reporter):
            return own_descriptors.load(self.settings, self.log, self.channel.descriptors())

    def _leave(self, status: int) -> NoReturn:
        """End without the application's exit handlers: they are for the processes that have served."""
        flush()
        os._exit(status)

    # Forking on order

    def _turn(self) -> bool:
        """Wait for an order or the end of a worker; False once there is no reason to live on."""
        poll = select.poll()
        for number in (self.channel.fileno(), *self.pidfds.numbers):
            poll.register(number, select.POLLIN)
        ready = {number for number, _ in poll.poll()}
        self.pidfds.forget_ended(ready)
        if self.channel.fileno() not in ready:
            return True
        try:
            spawns, other = self._receive()
        except EOFError:
            self._outlive_workers()
            return False
        if spawns:
            self.forks.fork(spawns)
        return other is None or self._obey(other)

    def _receive(self) -> tuple[list[Arrival], Arrival | None]:
        """Workers that are ordered, one or a few at once, and an order of another kind, or None.

        Raises EOFError where the master is gone.
        """
        spawns: list[Arrival] = []
        try:
            while (arrival := self.channel.receive()) is not None and _orders_worker(arrival):
                spawns.append(arrival)
                if len(spawns) == _TOGETHER or not syscalls.has_event(self.channel.fileno(), select.POLLIN):
                    return spawns, None
        except EOFError:
            for each in spawns:
                close_all(each.descriptors)
            raise
        return spawns, arrival

    def _obey(self, arrival: Arrival) -> bool:
        order, descriptors = arrival
        if isinstance(order, messages.LogFiles):
            common_orders.adopt_logs(order, descriptors, self.log, self.template_config.access, self.channel)
        elif isinstance(order, messages.Guard):
            self._guard(descriptors)
        elif isinstance(order, messages.Retire):
            return False
        else:
            self.log.error(f"cannot obey {order} with {len(descriptors)} descriptors")
            close_all(descriptors)
        return True

    def _guard(self, descriptors: tuple[int, ...]) -> None:
        for listener in self.guarded:
            listener.close()
        self.guarded = [ListeningSocket(PlainSocket(fileno=number), own=True) for number in descriptors]

    def _leave_behind(self) -> None:
        """In the process between: close what is the template's own."""
        self.channel.close()
        self._guard(())

    def _worker(self, order: messages.Spawn, channel: Channel) -> int:
        """The worker, on its own."""
        worker_config = WorkerConfig(
            settings=self.settings,
            generation=order.generation,
            slot=order.slot,
            row=self.template_config.board[order.row],
            board=self.template_config.board,
            log=self.log,
            access=self.template_config.access,
            tls=self.template_config.tls,
            code=self.code,
            file_reporter=self.template_config.file_reporter,
        )
        return WorkerProcess(worker_config, channel).run()

    # Without a master

    def _outlive_workers(self) -> None:
        """The master is gone. Workers see that themselves and finish; one that has not within the grace is killed."""
        self.channel.close()
        for listener in self.guarded:
            listener.refuse_arrivals()
        self.pidfds.wait(SYN_SECONDS)  # meanwhile those that are not in a call empty the queues
        for listener in self.guarded:
            listener.end_everywhere()
        self.pidfds.wait(self.settings.graceful_timeout - SYN_SECONDS)
        if killed := self.pidfds.kill():
            count = "1 worker" if killed == 1 else f"{killed} workers"
            seconds = self.settings.graceful_timeout
            self.log.error(
                f"the master is gone: killed {count} that had not left within graceful_timeout ({seconds:g} s)"
            )
