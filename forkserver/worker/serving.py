"""A worker while it serves: its server, and what orders and signals do to it.

The server's event loop watches the channel to the master and the descriptor of the noted signals; each order becomes a
call of the server. The end of the channel means that the master is gone: the worker finishes what it has and exits. A
process that the application forks keeps nothing of this (``_forget``).
"""

from __future__ import annotations

import faulthandler
import math
import os
import select
import signal
import socket
import traceback
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from forkserver.config.settings import Settings
from forkserver.errors import PACKAGE, LoadError
from forkserver.ipc import messages
from forkserver.ipc.channel import Arrival, Channel
from forkserver.ipc.messages import MessageError
from forkserver.ipc.scoreboard import Row, Scoreboard
from forkserver.linux import descriptor_limit, signals, syscalls
from forkserver.linux.common.records import NamedTuple
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_format import RequestFacts
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.log_file import uncounted
from forkserver.worker import common_orders, remaining_threads, user_hooks
from forkserver.worker.development.file_reports import FileReporter
from forkserver.worker.loading.loader import Code, mounted
from forkserver.worker.stacks.thread_stacks import call_stack, thread_stacks

if TYPE_CHECKING:
    from forkserver.tls.contexts import TlsContexts
    from forkserver.worker.development.debugger_watch import DebuggerWatch
    from forkserver.worker.development.error_page import ErrorPage
    from forkserver.worker.stacks.profiles import Profiles


_AT_ONCE: Final = frozenset({signal.SIGINT, signal.SIGQUIT})  # where no master is left to decide


class WorkerConfig(NamedTuple):
    """What a worker has from its template; ``code`` is None where it must import the application itself."""

    settings: Settings
    generation: int
    slot: int
    row: Row
    board: Scoreboard
    log: ErrorLog
    access: AccessLog
    code: Code | None
    tls: TlsContexts | None = None
    file_reporter: FileReporter | None = None

    def worker(self) -> user_hooks.HookWorker:
        """Who this process is, as a person counts."""
        return user_hooks.HookWorker(self.slot + 1, self.generation, os.getpid())


class WorkerOrders(NamedTuple):
    """What comes with the order to serve: listeners with their numbers, and the two ends of the hand-off queue.

    ``drain`` says that a stop was announced already, ``maintenance`` that the application is not to be called.
    """

    listeners: list[tuple[int, socket.socket]]
    handoff: tuple[int, int] | None
    drain: bool
    maintenance: bool


class Serving:
    """The worker while it serves."""

    def __init__(
        self,
        worker_config: WorkerConfig,
        channel: Channel,
        noted: signals.Signals,
        code: Code,
        order: WorkerOrders,
        hook_calls: user_hooks.HookCalls,
    ) -> None:
        self.worker_config = worker_config
        self.settings = worker_config.settings
        self.log = worker_config.log
        self.channel = channel
        self.noted = noted
        self.hook_calls = hook_calls
        self.alone = False  # the master is gone
        self.leaves_for = ""  # why it leaves, in a word or two
        self._error_page: ErrorPage | None = None
        self._debugger: DebuggerWatch | None = None
        self._retire_later: messages.Retire | None = None  # when the debugger is no longer in use
        self.leave_by = math.inf  # when the time to retire is over
        self.siblings = True  # who take connections over, as far as we have heard
        self._forgotten = False  # this is not the worker but a process that its application has forked
        self._profiles: Profiles | None = None  # once there was one
        # After the import: it, and what it has started, have the limit that they were order.
        self._soft_limit = descriptor_limit.raise_soft(self.settings.nofile, self.settings.worker_connections)
        self.httpd = self._server(code, order)
        os.register_at_fork(
            before=self.httpd.before_fork,
            after_in_parent=self.httpd.after_fork,
            after_in_child=self._forget,
        )

    def check(self) -> None:
        """Ask the application for ``ready_path``, where there is one. Raises LoadError where the answer is not good."""
        path = self.settings.ready_path
        if path is None:
            return
        try:
            status = self.httpd.check(path)
        except Exception as error:
            details = "".join(traceback.format_exception(error))
            raise LoadError(f"ready_path {path!r} was not answered: {error}", details) from None
        if not 200 <= status < 400:
            raise LoadError(
                f"ready_path {path!r} was answered with status {status}, not 2xx or 3xx; "
                "fix what the application checks there, or name another path"
            )

    def run(self) -> tuple[str, int]:
        """Serve until it is over: why that is, in a word or two, and the exit status."""
        # From here on there are threads beside the main one, and faulthandler is not safe any more.
        faulthandler.unregister(signal.SIGUSR2)
        self.noted.note(signal.SIGUSR2)
        self.channel.send(messages.Ready())
        self.hook_calls.ready()
        httpd = self.httpd
        httpd.open()
        while not httpd.retired or self._has_orders():
            try:
                httpd.handle_request()
            except Exception as error:
                self._outlive(error)
            if not self._forgotten:
                self._look_between_turns()
        remaining_threads.tell_of(self._name_threads, self.leave_by - syscalls.clock())
        self.worker_config.access.finish()
        return self.leaves_for, 0

    def _look_between_turns(self) -> None:
        """In development: tell of modules that a request has imported, and that a debugger is no longer in use."""
        if self.worker_config.file_reporter is not None:
            self.worker_config.file_reporter.look()
        if self._debugger is not None and self._debugger.look():
            self.noted.note(signal.SIGINT)  # pdb leaves a handler of its own
            self._debugger.end()
            if (order := self._retire_later) is not None:
                self._retire_later = None
                self._retire(order._replace(grace=min(order.grace, self.settings.graceful_timeout)))

    def _outlive(self, error: Exception) -> None:
        """Go on after what a signal handler of the application's has raised while the loop slept; raise all else."""
        if not _raised_in_sleep(error):
            raise error
        self.log.exception(
            "a signal handler of the application's raised while nothing was called, as of an alarm that a request "
            "has left behind; have the request cancel it (signal.alarm(0))",
            error,
        )

    def _has_orders(self) -> bool:
        """Whether the master has said something that was not heard yet.

        It may be that no sibling is left to take what was handed on a moment ago: the master says so to a worker that
        hands on before it has any sibling leave, so what is heard now is in time to take it back.
        """
        heard_the_end = self.alone or self._forgotten
        return not heard_the_end and syscalls.has_event(self.channel.fileno(), select.POLLIN)

    def _name_threads(self, names: str) -> None:
        self.log.warning(
            f"the exit waits for the application's threads: {names}; the worker is killed when "
            f"graceful_timeout ({self.settings.graceful_timeout:g} s) is over; make them daemons, or end them in "
            "the hook worker_exit"
        )

    def _server(self, code: Code, order: WorkerOrders) -> Any:
        worker_config = self.worker_config
        httpd = code.server_class(_address(order.listeners[0][1]), code.handler_class, bind_and_activate=False)
        tls = worker_config.tls.open() if worker_config.tls is not None else None
        httpd.adopt(
            order.listeners,
            order.handoff,
            self.settings,
            self.log,
            worker_config.access,
            worker_config.row,
            worker_config.board,
            tls,
        )
        httpd.set_app(self._with_error_page(mounted(code.app, self.settings), order))
        httpd.on_due_for_recycling = self._due_for_recycling
        self._watch_debugger(httpd)
        httpd.watch(self.channel.fileno(), self._hear)
        httpd.watch(self.noted.fileno(), self._heed)
        if order.drain:
            httpd.drain()
        if order.maintenance:
            httpd.maintain(True)
        return httpd

    def _with_error_page(self, app: Any, order: WorkerOrders) -> Any:
        settings = self.settings
        if settings.error_page == "off":
            return app
        from forkserver.worker.development import error_page  # late: most services never show it

        local = settings.proxy_protocol == "off" and error_page.all_loopback(each for _, each in order.listeners)
        self._error_page = error_page.ErrorPage(app, local, self.worker_config.generation, self._application_raised)
        return self._error_page

    def _application_raised(self, message: str, error: Exception) -> None:
        self.log.exception(message, error)
        if self.worker_config.file_reporter is not None:
            self.worker_config.file_reporter.raised(error)

    def _watch_debugger(self, httpd: Any) -> None:
        if self.settings.debugger == "off":
            return
        from forkserver.server.context import context_of  # late: most services have no debugger
        from forkserver.worker.development.debugger_watch import DebuggerWatch

        deadline = context_of(httpd).request_deadline
        self._debugger = DebuggerWatch(self.worker_config.row, deadline, self._tell_of_debugger)
        httpd.watch(self._debugger.fileno(), self._debugger.hear)

    def _tell_of_debugger(self, on: bool) -> None:
        self.channel.send(messages.InDebugger(on))

    def _show_failure(self, order: messages.ShowFailure) -> None:
        from forkserver.worker.development.error_page import CodeFailure

        if self._error_page is not None:
            shown = CodeFailure(order.reason, order.traceback, order.loaded) if order.reason else None
            self._error_page.failure = shown

    # Called by the loop, in whichever thread turns it, never two at a time

    def _hear(self) -> None:
        """Orders of the master; its end retires us."""
        try:
            while arrival := self.channel.receive():
                self._obey(arrival)
        except MessageError as error:
            self.log.error(f"from the master: {error}")
        except EOFError:
            self._orphaned()

    def _obey(self, arrival: Arrival) -> None:
        match arrival.message:
            case messages.Retire():
                self._retire(arrival.message)
            case messages.Expire(thread, since):
                self.leaves_for = self.leaves_for or user_hooks.TIMEOUT
                self._write_stacks()  # before the call is interrupted
                self._tell_timeout(thread, since)
                self.httpd.expire(thread, since)
                # Also where the call has just ended by itself: the master has a new worker on its way, and retires us.
                self.channel.send(messages.Expiring(thread, since))
            case messages.Drain():
                self.httpd.drain()
            case messages.Maintain(on):
                self.httpd.maintain(on)
            case messages.ShowStacks(serial):
                self.channel.send(messages.Stacks(serial, thread_stacks()))
            case messages.ShowFailure():
                self._show_failure(arrival.message)
            case messages.ShowCall(thread, since):
                self._show_call(thread, since)
            case messages.BeginProfile() as order:
                self._begin_profile(order, arrival.descriptors)
            case messages.Drop(number):
                self.httpd.drop(number)
                self.log.debug(f"has emptied and closed listener {number}")
            case _:
                common_orders.obey_in_passing(arrival, self.log, self.worker_config.access, self.channel)

    def _tell_timeout(self, thread: int, since: int) -> None:
        """Have request_timeout called for a request that lasts too long; hooks have no thread of the application's."""
        if not self.hook_calls.wants_timeouts:
            return
        client, ident = self.httpd.call_of(thread)
        stack, call = call_stack(ident), self.worker_config.row.busy(thread)
        if stack is None or call is None or call.since != since:
            return
        seconds = call.seconds(syscalls.clock())
        self.hook_calls.timed_out(user_hooks.HookRequest(call.line, call.request_id, client, seconds, stack.text))

    def _show_call(self, thread: int, since: int) -> None:
        """Log where a slow call is, unless it is over; it may be that this runs beside it, and that it goes on."""
        client, ident = self.httpd.call_of(thread)
        stack, call = call_stack(ident), self.worker_config.row.busy(thread)
        if stack is None or call is None or call.since != since:
            return
        now = syscalls.clock()
        seconds = call.seconds(now)
        age = f"{seconds:.1f} s so far"
        if call.progress:
            age += f", {call.seconds_without_progress(now):.1f} s without output"
        told = f"slow request: {call.told(age)}{f', client {client}' if client else ''}; where it stands:"
        self.log.warning(told, stack.text, RequestFacts(call.line, call.request_id, client, seconds))
        self.channel.send(messages.CallShown(thread, since, client, stack.place))

    def _retire(self, order: messages.Retire) -> None:
        if self._debugger is not None and self._debugger.on:
            self._retire_later = order
            return
        self.leaves_for = self.leaves_for or order.why
        self.leave_by = min(self.leave_by, syscalls.clock() + order.grace)
        self.siblings = self.siblings and order.handoff
        self.httpd.retire(order.grace, order.handoff)

    def _begin_profile(self, order: messages.BeginProfile, descriptors: tuple[int, ...]) -> None:
        if self._profiles is None:
            from forkserver.worker.stacks.profiles import Profiles  # late: the master imports this module

            self._profiles = Profiles(self.httpd, self.worker_config.row, Serving.run.__code__, self.log)
        self._profiles.begin(order, descriptors)

    def _due_for_recycling(self, why: str) -> None:
        """We have served as much as we are to; when to be replaced is the master's decision."""
        if not self.channel.send(messages.RecyclingDue(why)):
            self.log.warning(f"the master cannot be told of it: {why}")

    def _heed(self) -> None:
        """Signals: the master's own are orders. Any other may be for the whole group, so the master decides."""
        for signum in self.noted.take():
            if signum == signal.SIGUSR2:
                self._write_stacks()
            elif signum == signals.LEAVE:
                self.httpd.retire(self.settings.graceful_timeout, self.siblings)
            elif signum == signals.LEAVE_NOW or (self.alone and signum in _AT_ONCE):
                if self._debugger is not None and self._debugger.on:
                    os._exit(0)  # its call ends at the next word that is typed only
                self.leaves_for = self.leaves_for or user_hooks.STOP
                self.httpd.close_now()
            elif signum not in signals.TO_LEAVE or self.alone:
                continue
            elif not self.channel.send(messages.AskedToLeave(signum)):
                name = syscalls.signal_name(signum)
                self.log.warning(f"{name} is not obeyed: the master, which decides, hears nothing")

    def _write_stacks(self) -> None:
        self.log.error("the stacks of its threads", details=thread_stacks())

    def _orphaned(self) -> None:
        """The master is gone: the next one must be able to bind, so the listeners go first."""
        self.alone = True
        self.leaves_for = self.leaves_for or user_hooks.MASTER_GONE
        self.httpd.retire(self.settings.graceful_timeout, False)  # our siblings do the same
        self.httpd.unwatch(self.channel.fileno())
        self.channel.close()
        self.log.warning("the master is gone; finishing open requests, then leaving")

    def _forget(self) -> None:
        """In a process that the application has forked: it is no worker, so nothing of ours may stay open in it.

        What this process forks itself comes here too, and has nothing of ours any more: descriptors that it has under
        the same numbers, and its handlers of signals, are its own.
        """
        self.httpd.after_fork()
        if self._forgotten:
            return
        self._forgotten = True
        self.log.on_lost = self.worker_config.access.on_lost = uncounted  # the row is the worker's
        with ExitStack() as others:  # whatever one of them raises
            for give_back in (signals.default, self.noted.close, self.channel.close):
                others.callback(give_back)
            others.callback(descriptor_limit.restore, self._soft_limit)
            if self._debugger is not None:
                others.callback(self._debugger.forget)
            if self._profiles is not None:
                others.callback(self._profiles.forget)
            self.httpd.forget()


def _raised_in_sleep(error: Exception) -> bool:
    """Whether code that is not ours has raised ``error``, called by the loop where it sleeps: nothing is half done."""
    from forkserver.server.loop.event_loop import EventLoop  # late: the master imports this module

    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [code for code in codes if code.co_filename.startswith(PACKAGE + os.sep)]
    return codes[-1] is not ours[-1] and ours[-1].co_qualname == EventLoop._wait.__qualname__


def _address(listener: socket.socket) -> tuple[str, int]:
    """The address to construct the server with; a Unix socket's path, or nothing, with port 0."""
    address = listener.getsockname()
    return (address[0], address[1]) if isinstance(address, tuple) else (os.fsdecode(address), 0)
