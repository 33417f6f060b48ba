"""One worker from its fork to its exit: while not retired, handle requests.

It promises that the master hears of every step (Hello, Loaded, Ready), that end-of-file on the channel retires it, that
hooks are called at their moment, and that a process which the application forks holds nothing of ours. It refuses to
know what a request is: this is the one module where supervision meets the serving room.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import math
import os
import select
import signal
import socket
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from setproctitle import setproctitle

import forkserver
from forkserver.config.settings import Settings
from forkserver.errors import ConfigError, ForkserverError, LoadError, own_files_missing
from forkserver.ipc.channel import Arrival, Channel, close_all
from forkserver.ipc.messages import (
    AskedToLeave,
    Drain,
    Drop,
    Expire,
    Expiring,
    Hello,
    Loaded,
    LoadFailed,
    LogFiles,
    LogsAdopted,
    Maintain,
    MessageError,
    Ready,
    Retire,
    Serve,
    ShowStacks,
    Spent,
    Stacks,
)
from forkserver.ipc.scoreboard import Row, Scoreboard
from forkserver.linux import descriptor_limit, signals, syscalls
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.log_file import uncounted
from forkserver.worker import user_hooks
from forkserver.worker.application import resolve, resolve_class
from forkserver.worker.thread_stacks import thread_stacks

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

    from forkserver.tls.contexts import TlsContexts

_NOTED: Final = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signals.LEAVE,
    signals.LEAVE_NOW,
)
_FROM_THE_MASTER: Final = frozenset({signals.LEAVE, signals.LEAVE_NOW})
_AT_ONCE: Final = frozenset({signal.SIGINT, signal.SIGQUIT})  # where no master is left to decide
_SHOWN: Final = 5  # threads that hold an exit
_NAME: Final = 60  # characters of a thread's name, and of its function's
_NOTICE_SECONDS: Final = 1.0  # that threads may hold an exit without a word: those of pools end by themselves
_NOT_CALLED: Final = ("server_bind", "server_activate")


class Code(NamedTuple):
    """What serves: the application, the classes that the settings name, and the hooks."""

    app: Callable[..., Any]
    server_class: type[forkserver.WSGIServer]
    handler_class: type[BaseHTTPRequestHandler]
    hooks: user_hooks.UserHooks


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


def load(settings: Settings, log: ErrorLog) -> Code:
    """Import the application, the classes, the hooks, and with them the serving room.

    Raises ConfigError and LoadError.
    """
    from http.server import BaseHTTPRequestHandler  # late: the master carries no HTTP

    from forkserver.server.wsgi_server import prepare
    from forkserver.worker.fork_safety import monkey_patches

    if settings.app is None:
        raise ConfigError("no application given; name it as MODULE:APP, such as forkserver myapp:app")
    server_class = resolve_class(settings.server_class, forkserver.WSGIServer, "server_class")
    handler_class = resolve_class(settings.handler_class, BaseHTTPRequestHandler, "handler_class")
    for name in _NOT_CALLED:
        if getattr(server_class, name) is not getattr(forkserver.WSGIServer, name):
            log.warning(f"{settings.server_class}.{name} is not called here: the master has bound the listeners")
    prepare(settings, server_class, handler_class)
    code = Code(resolve(settings.app), server_class, handler_class, user_hooks.load(settings.hooks, log))
    monkey_patches.refuse(settings.app)
    return code


def open_serving_room() -> None:
    """Import what every worker needs, whatever the application: its memory is shared in any case."""
    import forkserver.server.wsgi_server  # noqa: F401


def load_failed(error: Exception) -> LoadFailed:
    """The report of ``error``: what we raise says all there is to say, anything else is a fault of ours."""
    if isinstance(error, LoadError):
        return LoadFailed(error.exit_status, str(error), error.traceback)
    if isinstance(error, ForkserverError):
        return LoadFailed(error.exit_status, str(error), "")
    if missing := own_files_missing(error):
        return LoadFailed(ForkserverError.exit_status, missing, "")
    return LoadFailed(ForkserverError.exit_status, f"cannot load: {error}", "".join(traceback.format_exception(error)))


def adopt_logs(
    order: LogFiles, descriptors: tuple[int, ...], log: ErrorLog, access: AccessLog, channel: Channel
) -> None:
    """Go on in the log files that the master has opened again, and tell it so."""
    left = list(descriptors)
    if order.error and left:
        log.adopt(left.pop(0))
    if order.access and left:
        access.adopt(left.pop(0))
    close_all(left)
    channel.send(LogsAdopted())


def main(worker_config: WorkerConfig, channel: Channel) -> int:
    """The life of a worker, from its fork; returns its exit status."""
    return WorkerProcess(worker_config, channel).run()


class WorkerProcess:
    """The process itself, until it serves."""

    def __init__(self, worker_config: WorkerConfig, channel: Channel) -> None:
        self.worker_config = worker_config
        self.log = worker_config.log
        self.channel = channel

    def run(self) -> int:
        who = self.worker_config.worker()
        self.log.process = f"worker={who.number} gen={who.generation}"
        self.log.on_lost = self.worker_config.access.on_lost = self.worker_config.row.lose_lines
        setproctitle(f"forkserver: worker {who.number} gen {who.generation} [{self.worker_config.settings.app}]")
        for signum in (signal.SIGUSR2, signals.LAST_WORDS):
            faulthandler.register(signum, self.log.dump_fileno(), all_threads=True)
        atexit.register(signals.block)  # first, so that it runs last: after the exit callbacks of the application
        self.channel.send(Hello())
        try:
            code = self._code()
        except Exception as error:
            return self._failed(error)
        hook_calls = user_hooks.HookCalls(code.hooks, who, self.worker_config.row, self.log)
        hook_calls.forked()
        # After the import: the application may set handlers of its own there.
        noted = signals.Signals(_NOTED)
        signals.unblock()
        self.channel.send(Loaded())
        given = self._wait_for_listeners(noted)
        status = 0 if given is None else self._serve(code, noted, given, hook_calls)
        # No ``finally``: a process that the application forked may leave through these frames.
        hook_calls.leaving()
        return status

    def _serve(self, code: Code, noted: signals.Signals, given: WorkerOrders, hook_calls: user_hooks.HookCalls) -> int:
        try:
            serving = Serving(self.worker_config, self.channel, noted, code, given)
            serving.check()
        except Exception as error:  # the classes may be the application's own
            return self._failed(error)
        return serving.run(hook_calls)

    def _failed(self, error: Exception) -> int:
        report = load_failed(error)
        self.channel.send(report)
        return report.exit_status

    def _code(self) -> Code:
        if self.worker_config.code is not None:
            from forkserver.worker.fork_safety.exemptions import reseed_numpy  # loaded: the template has imported it

            gc.enable()  # off since before the import
            reseed_numpy()
            return self.worker_config.code
        signals.rest()
        signals.unblock()
        return load(self.worker_config.settings, self.log)

    def _wait_for_listeners(self, noted: signals.Signals) -> WorkerOrders | None:
        """Wait for the order to serve; None where there is to be no serving."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        poll.register(noted.fileno(), select.POLLIN)
        self.channel.setblocking(False)
        drain = False
        while True:
            poll.poll()
            if _FROM_THE_MASTER.intersection(noted.take()):
                return None
            try:
                arrival = self.channel.receive()
            except EOFError:
                return None
            if arrival is None:
                continue
            match arrival.message:
                case Serve() as order:
                    return _given(order, arrival.descriptors, drain)
                case Retire():
                    return None
                case Drain():
                    drain = True
                case Drop() | Maintain():
                    continue  # nothing is held yet, and the order to serve says it again
                case _:
                    obey_in_passing(arrival, self.log, self.worker_config.access, self.channel)


def _given(order: Serve, descriptors: tuple[int, ...], drain: bool) -> WorkerOrders:
    of_master = [int(number) for number in order.numbers.split(",")]
    count = len(of_master)
    listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors[:count]]
    give_and_take = descriptors[count : count + 2]
    handoff = (give_and_take[0], give_and_take[1]) if len(give_and_take) == 2 else None
    return WorkerOrders(list(zip(of_master, listeners, strict=True)), handoff, drain, order.maintenance)


def obey_in_passing(arrival: Arrival, log: ErrorLog, access: AccessLog, channel: Channel) -> None:
    """Obey an order that means the same at any time."""
    if isinstance(arrival.message, LogFiles):
        adopt_logs(arrival.message, arrival.descriptors, log, access, channel)
        return
    log.error(f"cannot obey {arrival.message}")
    close_all(arrival.descriptors)


class Serving:
    """The worker while it serves."""

    def __init__(
        self,
        worker_config: WorkerConfig,
        channel: Channel,
        noted: signals.Signals,
        code: Code,
        given: WorkerOrders,
    ) -> None:
        self.worker_config = worker_config
        self.settings = worker_config.settings
        self.log = worker_config.log
        self.channel = channel
        self.noted = noted
        self.alone = False  # the master is gone
        self.leave_by = math.inf  # when the time to retire is over
        self.siblings = True  # who take connections over, as far as we have heard
        self._forgotten = False  # this is not the worker but a process that its application has forked
        # After the import: it, and what it has started, have the limit that they were given.
        self._soft_limit = descriptor_limit.raise_soft(self.settings.nofile, self.settings.worker_connections)
        self.httpd = self._server(code, given)
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

    def run(self, hook_calls: user_hooks.HookCalls) -> int:
        # From here on there are threads beside the main one, and faulthandler is not safe any more.
        faulthandler.unregister(signal.SIGUSR2)
        self.noted.note(signal.SIGUSR2)
        self.channel.send(Ready())
        hook_calls.ready()
        httpd = self.httpd
        httpd.open()
        while not httpd.retired or self._has_orders():
            httpd.handle_request()
        self._watch_threads()
        self.worker_config.access.finish()
        return 0

    def _has_orders(self) -> bool:
        """Whether the master has said something that was not heard yet.

        It may be that no sibling is left to take what was handed on a moment ago: the master says so to a worker that
        hands on before it has any sibling leave, so what is heard now is in time to take it back.
        """
        heard_the_end = self.alone or self._forgotten
        return not heard_the_end and syscalls.has_event(self.channel.fileno(), select.POLLIN)

    def _watch_threads(self) -> None:
        """Have threads of the application named that hold the exit for longer than a moment."""
        if _holding_threads():
            seconds = max(0.0, min(_NOTICE_SECONDS, self.leave_by - syscalls.clock()))
            naming = threading.Timer(seconds, self._name_threads)
            naming.daemon = True
            try:
                naming.start()
            except RuntimeError:  # no thread to be had: said too early rather than never
                self._name_threads()

    def _name_threads(self) -> None:
        if held := _holding_threads():
            self.log.warning(
                f"the exit waits for the application's threads: {held}; the worker is killed when "
                f"graceful_timeout ({self.settings.graceful_timeout:g} s) is over; make them daemons, or end them in "
                "the hook worker_exit"
            )

    def _server(self, code: Code, given: WorkerOrders) -> forkserver.WSGIServer:
        worker_config = self.worker_config
        httpd = code.server_class(_address(given.listeners[0][1]), code.handler_class, bind_and_activate=False)
        tls = worker_config.tls.open() if worker_config.tls is not None else None
        httpd.adopt(
            given.listeners,
            given.handoff,
            self.settings,
            self.log,
            worker_config.access,
            worker_config.row,
            worker_config.board,
            tls,
        )
        httpd.set_app(mounted(code.app, self.settings))
        httpd.on_spent = self._spent
        httpd.watch(self.channel.fileno(), self._hear)
        httpd.watch(self.noted.fileno(), self._heed)
        if given.drain:
            httpd.drain()
        if given.maintenance:
            httpd.maintain(True)
        return httpd

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
            case Retire(grace, handoff):
                self.leave_by = min(self.leave_by, syscalls.clock() + grace)
                self.siblings = self.siblings and handoff
                self.httpd.retire(grace, handoff)
            case Expire(thread, since):
                self._write_stacks()  # before the call is interrupted
                self.httpd.expire(thread, since)
                # Also where the call has just ended by itself: the master has our successor on its way, and retires us.
                self.channel.send(Expiring(thread, since))
            case Drain():
                self.httpd.drain()
            case Maintain(on):
                self.httpd.maintain(on)
            case ShowStacks(serial):
                self.channel.send(Stacks(serial, thread_stacks()))
            case Drop(number):
                self.httpd.drop(number)
                self.log.debug(f"has emptied and closed listener {number}")
            case _:
                obey_in_passing(arrival, self.log, self.worker_config.access, self.channel)

    def _spent(self, why: str) -> None:
        """We have served as much as we are to; when to be replaced is the master's decision."""
        if not self.channel.send(Spent(why)):
            self.log.warning(f"the master cannot be told of it: {why}")

    def _heed(self) -> None:
        """Signals: the master's own are orders. Any other may be for the whole group, so the master decides."""
        for signum in self.noted.take():
            if signum == signal.SIGUSR2:
                self._write_stacks()
            elif signum == signals.LEAVE:
                self.httpd.retire(self.settings.graceful_timeout, self.siblings)
            elif signum == signals.LEAVE_NOW or (self.alone and signum in _AT_ONCE):
                self.httpd.close_now()
            elif signum in signals.TO_LEAVE and not self.alone:
                self._asked_to_leave(signum)

    def _asked_to_leave(self, signum: int) -> None:
        if not self.channel.send(AskedToLeave(signum)):
            self.log.warning(f"{syscalls.signal_name(signum)} is not obeyed: the master, which decides, hears nothing")

    def _write_stacks(self) -> None:
        self.log.error("the stacks of its threads", details=thread_stacks())

    def _orphaned(self) -> None:
        """The master is gone: the next one must be able to bind, so the listeners go first."""
        self.alone = True
        self.httpd.retire(self.settings.graceful_timeout, False)  # our siblings do the same
        self.httpd.unwatch(self.channel.fileno())
        self.channel.close()
        self.log.warning("the master is gone; finishing what is held, then leaving")

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
            self.httpd.forget()


def _holding_threads() -> str:
    """The threads that the interpreter waits for at its exit, named; empty where there are none."""
    ours = (threading.main_thread(), threading.current_thread())
    found = [each for each in threading.enumerate() if not each.daemon and each not in ours]
    more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return ", ".join([*map(_thread, found[:_SHOWN]), *more])


def _thread(thread: threading.Thread) -> str:
    """A thread by its name and what it runs, which is the application's text: ``'poller' (mysite.poll)``."""
    runs = getattr(thread, "_target", None) or type(thread).run  # the stdlib has no public name for it
    place = f"{getattr(runs, '__module__', '')}.{getattr(runs, '__qualname__', type(runs).__qualname__)}"
    return f"{thread.name[:_NAME]!a} ({ascii(place[:_NAME])[1:-1]})"


def mounted(app: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    """``app`` below the path that ``settings``, or trusted proxies, name; ``app`` itself where neither does."""
    if settings.root_path is None and "script_name" not in settings.forwarded_fields:
        return app
    from forkserver.server.wsgi.script_name import ScriptName

    return ScriptName(app, settings.root_path)


def _address(listener: socket.socket) -> tuple[str, int]:
    """The address to construct the server with; a Unix socket's path, or nothing, with port 0."""
    address = listener.getsockname()
    return (address[0], address[1]) if isinstance(address, tuple) else (os.fsdecode(address), 0)
