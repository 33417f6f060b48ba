"""Lines of the error log about what clients and proxies did, limited in rate.

A refused request is normal on a public port, so it is told at level info. Fields that were dropped because their sender
is not believed are told once per address: at level warning where the address is private, so that it is likely to be a
proxy that the settings do not name, else at info. Text that came from a client is escaped and cut. ``RateLimit`` bounds
the lines of each kind, so that no client can fill the log.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EMFILE, ENFILE
from math import inf
from typing import TYPE_CHECKING, Final

from forkserver.config.values.ip_allowlist import as_listed, is_public
from forkserver.config.values.numbers import readable_size
from forkserver.errors import ProtocolError
from forkserver.http1.headers import SCRIPT_NAME
from forkserver.linux import descriptor_limit
from forkserver.linux.common.counted import count_of
from forkserver.linux.syscalls import monotonic
from forkserver.logs.client_text import quoted
from forkserver.logs.rate_limit import RateLimit

if TYPE_CHECKING:
    from forkserver.logs.error_log import ErrorLog

_LINE_CHARS: Final = 200  # of a request line
_SENDER_CHARS: Final = 64  # of an address; a server class may make its own
_MEMORY: Final = "give the service more memory (MemoryMax=), or lower --worker-connections"
_RAISE: Final = {413: " (raise --max-body if the application takes such bodies, and the limit of the proxy in front)"}
_WAY_OUT: Final = {
    EMFILE: descriptor_limit.WAY_OUT,
    ENFILE: "raise the limit of the whole machine (sysctl fs.file-max), or end what holds so many files (lsof)",
}


class Notices:
    """Writes to ``log``; ``clock`` gives seconds."""

    def __init__(self, log: ErrorLog, clock: Callable[[], float] = monotonic) -> None:
        self._log = log
        self._refused = RateLimit(burst=10, seconds=2.0, pause=5.0, clock=clock)
        self._turned_away = RateLimit(burst=10, seconds=30.0, pause=inf, clock=clock)
        self._inner = RateLimit(burst=5, seconds=600.0, pause=inf, clock=clock)
        self._no_websocket = RateLimit(burst=5, seconds=600.0, pause=inf, clock=clock)
        self._short = RateLimit(burst=5, seconds=600.0, pause=600.0, clock=clock)
        self._readers = RateLimit(burst=1, seconds=60.0, pause=inf, clock=clock)
        self._waiting = RateLimit(burst=3, seconds=60.0, pause=inf, clock=clock)
        self._no_room = RateLimit(burst=1, seconds=60.0, pause=60.0, clock=clock)
        self._no_accept = RateLimit(burst=2, seconds=60.0, pause=10.0, clock=clock)
        self._outside = RateLimit(burst=10, seconds=2.0, pause=0.0, clock=clock)
        self._denied = RateLimit(burst=3, seconds=600.0, pause=inf, clock=clock)
        # Two, so that senders from the Internet cannot use up what an own proxy needs.
        self._public = RateLimit(burst=5, seconds=600.0, pause=inf, clock=clock)
        self._own = RateLimit(burst=20, seconds=60.0, pause=inf, clock=clock)

    def refused(self, client: str, error: ProtocolError, line: Callable[[], str], request_id: str) -> None:
        """A request of ``client`` was answered ``error``; ``line()`` gives its request line as far as it was read."""
        left_out = self._refused.admit(client)
        if left_out is None and not self._log.shows("debug"):
            return
        more = f"; {left_out} more before it {'was' if left_out == 1 else 'were'} not logged" if left_out else ""
        asked = f"{quoted(line(), _LINE_CHARS)} (request {request_id})"
        way_out = _RAISE.get(error.status, "")
        self._log.info(
            f"refused {error.status} to {_shown(client)}: {error.reason}{way_out}: {asked}{more}", request_id=request_id
        )

    def short_of(self, what: str, way_out: str, figures: Callable[[], str]) -> None:
        """A request that was not whole was closed to make room, or nothing could be; ``figures()``: what takes it."""
        left_out = self._short.admit(what)
        if left_out is not None:
            more = f"; {count_of(left_out, 'more time')} since this was last told" if left_out else ""
            self._log.warning(
                f"short of {what} ({figures()}); idle connections and the slowest requests are closed to make room"
                f"{more}; {way_out}, or let a proxy in front collect requests; see docs/workers.md"
            )

    def cannot_accept(self, error: OSError, seconds: float) -> None:
        """The kernel has no descriptor or memory for a connection; the next try is after so many ``seconds``."""
        left_out = self._no_accept.admit(str(error.errno))
        if left_out is not None:
            more = f"; {count_of(left_out, 'more time')} since this was last told" if left_out else ""
            way_out = _WAY_OUT.get(error.errno or 0, _MEMORY)
            self._log.warning(
                f"cannot accept: {error}; trying again in {seconds:g} s or when a connection closes{more}; {way_out}"
            )

    def accept_denied(self, error: OSError, seconds: float) -> None:
        """The kernel was told not to let this process accept; the next try is after so many ``seconds``."""
        if self._denied.admit(str(error.errno)) is not None:
            self._log.error(
                f"cannot accept: {error}: a system call filter or a security module denies accept4(2) to the workers; "
                f"allow it (SystemCallFilter=@system-service, the seccomp profile of the container, the profile of "
                f"AppArmor or SELinux); trying again every {seconds:g} s; told once"
            )

    def listener_shut_down(self, shown: str) -> None:
        """The application has ended the listener of that address, for all workers."""
        self._log.error(
            f"the listener {shown} was shut down, by the application or a program that it has started "
            "(shutdown(2)): no client can connect there; find what does it, then reload to listen there again"
        )

    def listener_closed(self, number: int, error: OSError) -> None:
        """The application has closed a listener's descriptor of that number, in its worker."""
        self._log.error(
            f"cannot accept: {error}: the application, or a library of its, has closed descriptor {number}, which is a "
            "listener's; find what closes numbers that are not its own (os.close, os.closerange); the worker is "
            "replaced"
        )

    def turned_away(self, client: str, why: str) -> None:
        """A connection of ``client`` was closed before a request; ``why`` is the reason and the way out."""
        if self._turned_away.admit(f"{client} {why}") is not None or self._log.shows("debug"):
            self._log.warning(f"turned away {_shown(client)}: {why}; more of these are told at --log-level debug only")

    def dropped(self, sender: str, keys: list[str]) -> None:
        """Fields of a sender that is not believed were dropped; ``keys`` as in the environ."""
        public = is_public(sender)
        if (self._public if public else self._own).admit(sender) is None:
            return
        fields = " and ".join(sorted(map(_field_name, keys)))
        listed = as_listed(sender)
        flags = f"set --forwarded-allow-ips {listed} or FORWARDED_ALLOW_IPS={listed}"
        (self._log.info if public else self._log.warning)(
            f"{fields} from {_shown(sender)} dropped: the sender is not in forwarded_allow_ips; "
            f"if it is your proxy, {flags if listed else 'name it there'}; told once per sender"
        )

    def cut_readers(self, count: int, rate: float, spooled: str, why: str) -> None:
        """``count`` clients were cut off that took at most ``rate`` bytes a second; ``spooled`` was in the spool."""
        if (left_out := self._told(self._readers)) is not None:
            answers = count_of(count, "answer")
            self._log.warning(
                f"no room in the spool: {why} ({spooled} spooled by this worker); cut off {answers} that clients took "
                f"at {readable_size(int(rate))} a second or slower; if they are no attack, raise max_spool{left_out}"
            )

    def cut_waiting(self, request: str, taken: str, rate: float, share: str) -> None:
        """The client of ``request`` was cut off: its call waited for it, and others for the thread."""
        if (left_out := self._told(self._waiting)) is not None:
            self._log.warning(
                f"{request}: cut off, for its client took {taken} at {readable_size(int(rate))} a second, no more can "
                f"be kept for it (one answer has {share} of the spool), and requests wait for its thread; "
                f"raise --threads, --workers or max_spool{left_out}"
            )

    def came_outside(self, thread: int, error: BaseException) -> None:
        """``error`` was raised in application ``thread`` when it served no request."""
        if (left_out := self._told(self._outside)) is not None:
            self._log.exception(
                f"an exception has come in application thread {thread} outside its requests, as of a time limit that a "
                f"request has left behind; have the request end its time limits (the thread goes on){left_out}",
                error,
            )

    def no_room(self, why: str) -> None:
        """Request bodies are answered 503, for ``why``."""
        if (left_out := self._told(self._no_room)) is not None:
            self._log.error(f"cannot keep a request body, answered 503: {why}; check spool_dir and max_spool{left_out}")

    @staticmethod
    def _told(limit: RateLimit) -> str | None:
        """What to add to a line that ``limit`` admits, None where it does not."""
        left_out = limit.admit("")
        return None if left_out is None else f"; {left_out} more since the last such line" if left_out else ""

    def no_websocket(self, line: str, why: str) -> None:
        """The application failed for want of the socket that a WebSocket needs; ``why`` has the way out, too."""
        if self._no_websocket.admit(why) is not None:
            self._log.warning(f"{quoted(line, _LINE_CHARS)}: no socket for WebSocket: {why}; told once")

    def took_inner(self, sender: str, client: str) -> None:
        """Every sender is believed, and of several addresses the last was taken, which is no public one."""
        if self._inner.admit(client) is not None:
            self._log.warning(
                f"a request from {_shown(sender)} names several addresses, and forwarded_allow_ips=* no proxy: "
                f"the last address, {_shown(client)}, is taken as the client, though it is a private one; "
                f"if it is your proxy, list it too: --forwarded-allow-ips '*,{client}'"
            )


def _shown(address: str) -> str:
    return address[:_SENDER_CHARS] or "a client of a Unix socket"


def _field_name(key: str) -> str:
    return "SCRIPT_NAME" if key == SCRIPT_NAME else key.removeprefix("HTTP_").replace("_", "-").title()
