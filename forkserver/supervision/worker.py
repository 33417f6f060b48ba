"""One worker from its fork to its exit: while not retired, handle requests.

It promises that the master hears of every step (Hello, Loaded, Ready), that end-of-file on the channel retires it, and
that a process which the application forks holds nothing of ours. It refuses to know what a request is: this is the one
module where supervision meets the serving room.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import select
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from setproctitle import setproctitle

import forkserver
from forkserver.application import resolve, resolve_class
from forkserver.errors import ConfigError, ForkserverError, LoadError
from forkserver.logs import AccessLog, ErrorLog
from forkserver.scoreboard import Row
from forkserver.settings import Settings
from forkserver.supervision import signals
from forkserver.supervision.messages import (
    Arrival,
    Channel,
    Hello,
    Loaded,
    LoadFailed,
    LogFiles,
    LogsAdopted,
    MessageError,
    Ready,
    Retire,
    Serve,
    close_all,
)

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

_NOTED: Final = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
)
_TO_LEAVE: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_NOT_CALLED: Final = ("server_bind", "server_activate")


@dataclass(frozen=True)
class Code:
    """What serves: the application, and the classes that the settings name."""

    app: Callable[..., Any]
    server_class: type[forkserver.WSGIServer]
    handler_class: type[BaseHTTPRequestHandler]


@dataclass(frozen=True)
class Birth:
    """What a worker has from its template; ``code`` is None where it must import the application itself."""

    settings: Settings
    generation: int
    slot: int
    row: Row
    log: ErrorLog
    access: AccessLog
    code: Code | None


def load(settings: Settings, log: ErrorLog) -> Code:
    """Import the application, the classes, and with them the serving room. Raises ConfigError and LoadError."""
    from http.server import BaseHTTPRequestHandler  # late: the master carries no HTTP

    if settings.app is None:
        raise ConfigError("no application given; name it as MODULE:APP, such as forkserver myapp:app")
    server_class = resolve_class(settings.server_class, forkserver.WSGIServer, "server_class")
    handler_class = resolve_class(settings.handler_class, BaseHTTPRequestHandler, "handler_class")
    for name in _NOT_CALLED:
        if getattr(server_class, name) is not getattr(forkserver.WSGIServer, name):
            log.warning(f"{settings.server_class}.{name} is not called here: the master has bound the listeners")
    return Code(resolve(settings.app), server_class, handler_class)


def open_serving_room() -> None:
    """Import what every worker needs, whatever the application: its memory is shared in any case."""
    import forkserver.serving.server  # noqa: F401


def load_failed(error: Exception) -> LoadFailed:
    """The report of ``error``: what we raise says all there is to say, anything else is a fault of ours."""
    if isinstance(error, LoadError):
        return LoadFailed(error.exit_status, str(error), error.traceback)
    if isinstance(error, ForkserverError):
        return LoadFailed(error.exit_status, str(error), "")
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


def main(birth: Birth, channel: Channel) -> int:
    """The life of a worker, from its fork; returns its exit status."""
    return Worker(birth, channel).run()


class Worker:
    """The process itself, until it serves."""

    def __init__(self, birth: Birth, channel: Channel) -> None:
        self.birth = birth
        self.log = birth.log
        self.channel = channel

    def run(self) -> int:
        number, generation = self.birth.slot + 1, self.birth.generation
        self.log.who = f"worker={number} gen={generation}"
        setproctitle(f"forkserver: worker {number} gen {generation} [{self.birth.settings.app}]")
        faulthandler.register(signal.SIGUSR2, self.log.fileno(), all_threads=True)
        self.channel.send(Hello())
        try:
            code = self._code()
        except Exception as error:
            return self._failed(error)
        # After the import: the application may set handlers of its own there.
        noted = signals.Signals(_NOTED)
        signals.unblock()
        self.channel.send(Loaded())
        given = self._wait_for_listeners(noted)
        if given is None:
            return 0
        try:
            serving = Serving(self.birth, self.channel, noted, code, *given)
        except Exception as error:  # the classes may be the application's own
            return self._failed(error)
        return serving.run()

    def _failed(self, error: Exception) -> int:
        report = load_failed(error)
        self.channel.send(report)
        return report.exit_status

    def _code(self) -> Code:
        if self.birth.code is not None:
            gc.enable()  # off since before the import
            return self.birth.code
        signals.rest()
        signals.unblock()
        return load(self.birth.settings, self.log)

    def _wait_for_listeners(self, noted: signals.Signals) -> tuple[Serve, list[socket.socket]] | None:
        """Wait for the order to serve; None where there is to be no serving."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        poll.register(noted.fileno(), select.POLLIN)
        self.channel.setblocking(False)
        while True:
            poll.poll()
            if _TO_LEAVE.intersection(noted.take()):
                return None
            try:
                arrival = self.channel.receive()
            except EOFError:
                return None
            if arrival is None:
                continue
            if isinstance(arrival.message, Serve):
                return arrival.message, [socket.socket(fileno=number) for number in arrival.descriptors]
            if isinstance(arrival.message, Retire):
                return None
            obey_in_passing(arrival, self.log, self.birth.access, self.channel)


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
        birth: Birth,
        channel: Channel,
        noted: signals.Signals,
        code: Code,
        order: Serve,
        listeners: list[socket.socket],
    ) -> None:
        self.birth = birth
        self.settings = birth.settings
        self.log = birth.log
        self.channel = channel
        self.noted = noted
        self.httpd = self._server(code, order, listeners)

    def run(self) -> int:
        os.register_at_fork(after_in_child=self._forget)
        self.channel.send(Ready())
        httpd = self.httpd
        while not httpd.retired:
            httpd.handle_request()
        self.birth.access.flush()
        return 0

    def _server(self, code: Code, order: Serve, listeners: list[socket.socket]) -> forkserver.WSGIServer:
        httpd = code.server_class(_address(listeners[0]), code.handler_class, bind_and_activate=False)
        httpd.adopt(listeners, self.settings, self.log, self.birth.access, self.birth.row, order.siblings)
        httpd.set_app(code.app)
        httpd.watch(self.channel.fileno(), self._hear)
        httpd.watch(self.noted.fileno(), self._heed)
        return httpd

    def _hear(self) -> None:
        """Orders of the master; its end retires us."""
        try:
            while arrival := self.channel.receive():
                if isinstance(arrival.message, Retire):
                    self.httpd.retire(arrival.message.grace)
                else:
                    obey_in_passing(arrival, self.log, self.birth.access, self.channel)
        except MessageError as error:
            self.log.error(f"from the master: {error}")
        except EOFError:
            self._orphaned()

    def _heed(self) -> None:
        """Signals: those for the master do nothing here."""
        for signum in self.noted.take():
            if signum == signal.SIGTERM:
                self.httpd.retire(self.settings.graceful_timeout)
            elif signum in _TO_LEAVE:
                self.httpd.close_now()

    def _orphaned(self) -> None:
        """The master is gone: the next one must be able to bind, so the listeners go first."""
        self.httpd.retire(self.settings.graceful_timeout)
        self.httpd.unwatch(self.channel.fileno())
        self.channel.close()
        self.log.warning("the master is gone; finishing what is held, then leaving")

    def _forget(self) -> None:
        """In a process that the application has forked: it is no worker, so nothing of ours may stay open in it."""
        self.httpd.forget()
        self.channel.close()
        self.noted.close()
        signals.default()


def _address(listener: socket.socket) -> tuple[str, int]:
    """The address to construct the server with; a Unix socket's path, or nothing, with port 0."""
    address = listener.getsockname()
    return (address[0], address[1]) if isinstance(address, tuple) else (os.fsdecode(address), 0)
