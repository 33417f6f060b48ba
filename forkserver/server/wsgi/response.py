"""One WSGI response: what ``start_response`` was told, how far the body is, and the walk over the iterable.

The head goes out with the first block that is not empty; until then the application may change its mind. Each block is
sent before the next is asked for, and the application's code runs without the loop lock. How the client learns the
body's end is decided once, when the head is made.

Source: PEP 3333 "The start_response() Callable" and "Buffering and Streaming", RFC 9112 section 6.3, RFC 8297.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Final

from forkserver.errors import AppError
from forkserver.http1 import response as wire
from forkserver.linux.common.counted import count_of
from forkserver.linux.syscalls import monotonic, wall_time
from forkserver.server.threads.request_deadline import RENEWAL_SECONDS
from forkserver.server.wsgi.file_wrapper import FileWrapper
from forkserver.server.wsgi.response_sink import ClientGoneError, Sink

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_END: Final = object()
_reported: set[str] = set()  # connection fields that were dropped and reported; as few as their names


class Response:
    """The answer to a request of ``method``; ``persistent`` says whether the connection goes on after it."""

    __slots__ = (
        "chunked", "clock", "cut", "detached", "gone", "head_sent", "headers", "http11", "id_line", "known", "method",
        "muted", "persistent", "remaining", "sent", "sink", "status",
    )  # fmt: skip

    def __init__(self, sink: Sink, clock: wire.Clock, method: str, http11: bool, persistent: bool) -> None:
        self.sink = sink
        self.clock = clock
        self.method = method
        self.http11 = http11
        self.persistent = persistent
        self.headers: wire.CheckedHeaders | None = None  # None until start_response was called
        self.head_sent = False
        self.known: int | None = None  # length of the whole body, where the iterable tells
        self.remaining: int | None = None  # body bytes still to come, None: open-ended
        self.chunked = False
        self.cut = False  # more was yielded than Content-Length says
        self.muted = False  # the answer carries no body whatever is yielded
        self.sent = 0  # body bytes, for the access log
        self.gone = False  # it was answered without the application
        self.detached = False  # the application has the connection itself
        self.status = 500  # that went out; until then, what is to go out in place of the application's answer
        self.id_line = ""  # the header field that tells the request's id, unless the application has set that

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """PEP 3333's start_response: takes a status like ``"200 OK"`` and a list of header tuples, gives ``write``.

        Raises AppError for what cannot be sent and for a second call without ``exc_info``; raises ``exc_info`` itself
        when the head has gone out already.
        """
        if exc_info:
            try:
                if self.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through the traceback's frames
            self.headers = None
        elif self.headers is not None:
            raise AppError("start_response was called a second time without exc_info")
        self.headers = wire.check(status, headers)
        return self.write

    def early_hints(self, headers: list[tuple[str, str]]) -> None:
        """Send ``headers`` at once in an interim answer, 103. Raises AppError. Source: RFC 8297."""
        if self.gone:
            raise ClientGoneError
        if self.head_sent:
            raise AppError("early hints after the answer has begun")
        self.sink.loop_lock.borrow(self.sink.send, wire.early_hints(headers))

    def head(self, known: int | None = None) -> bytes:
        """The head as bytes, once; ``known`` is the length of a body that is there as a whole."""
        headers = self.headers
        if self.gone:
            raise ClientGoneError
        if headers is None:
            raise AppError("the application did not call start_response before its body")
        self.head_sent = True
        self.status = headers.code
        if headers.close:
            self.persistent = False
        if headers.dropped:
            self._report_dropped(headers.dropped)
        # How the client is to know the body's end (RFC 9112 section 6.3).
        length = known if headers.length is None else headers.length
        if length is None or self.method == "HEAD" or headers.code in wire.BODILESS:
            framing = self._frame(headers, known)
        else:
            self.remaining = length
            framing = f"Content-Length: {length}\r\n"
        if self.id_line and not headers.has_field(self.id_line.partition(":")[0]):
            framing = self.id_line + framing
        return wire.serialize(headers, self.clock, wall_time(), framing, self.persistent, self.http11)

    def _report_dropped(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in _reported:  # once in a process: an application that sets one sets it in every answer
                _reported.add(name)
                self.sink.report(f"dropped {name}: fields of the connection are not the application's to set")

    def _frame(self, headers: wire.CheckedHeaders, known: int | None) -> str:
        """Frame a body that the client does not get, or that has no length; the line that says so, if any."""
        if self.method == "HEAD" or headers.code in wire.BODILESS:
            self.muted = True
            self.remaining = 0
            length = headers.length
            if length is None and self.method == "HEAD":
                length = known or None
            return "" if length is None or headers.code == 204 else f"Content-Length: {length}\r\n"
        if self.http11:
            self.chunked = True
            return "Transfer-Encoding: chunked\r\n"
        self.persistent = False  # HTTP/1.0: the end of the body is the end of the connection
        self.sink.delimit_by_close()
        return ""

    def send_result(self, result: Iterable[bytes]) -> None:
        """Send what the application returned, to its end."""
        if isinstance(result, (list, tuple)):
            self._send_all(result)
        elif not (isinstance(result, FileWrapper) and not self.head_sent and self._send_file(result)):
            self._send_each(self._iterator_of(result))
        self._end()

    def send_rest(self, iterator: Any, *first: object) -> None:
        """Send what ``iterator`` has yielded, if anything, and what it yields yet, to its end."""
        self._send_each(iterator, *first)
        self._end()

    def _end(self) -> None:
        if self.remaining or self.chunked or not self.head_sent:
            self._finish()

    def _send_all(self, blocks: list[bytes] | tuple[bytes, ...]) -> None:
        """Send blocks that are all there; what is wrong with one is known before anything is sent."""
        known = 0
        for data in blocks:
            known += len(data if type(data) is bytes else _exact(data))
        self.known = known
        for data in blocks:
            if data and not self.muted:  # of an answer to HEAD, a 204 or a 304 the client gets the head alone
                if self.sent:
                    self.sink.renew()
                self.put(data)

    def _iterator_of(self, result: Iterable[bytes]) -> Any:
        try:
            return self.sink.loop_lock.lend(iter, result)
        except TypeError:
            raise AppError(f"the application returned {type(result).__name__}, not an iterable of bytes") from None

    def _send_each(self, iterator: Any, *first: Any) -> None:
        """Send what was yielded ``first``, and what ``iterator`` yields, each block before the next is asked for."""
        lend = self.sink.loop_lock.lend
        renew_at = 0.0
        data = first[0] if first else lend(next, iterator, _END)
        while data is not _END:
            if data or not isinstance(data, bytes):
                self.put(data)
                if self.muted:
                    given_up = [iterator]
                    del iterator  # a generator runs to its end where it is given up: the application's code, too
                    lend(given_up.clear)
                    return
                now = monotonic()
                if now >= renew_at:
                    renew_at = now + RENEWAL_SECONDS
                    self.sink.renew()
            data = lend(next, iterator, _END)

    def write(self, data: bytes) -> None:
        """The application's ``write``: send a block of the body at once (PEP 3333 "Buffering and Streaming")."""
        self.sink.loop_lock.borrow(self.put, data)

    def put(self, data: bytes) -> None:
        """Send a block of the body, behind the head if that has not gone out."""
        if type(data) is not bytes:
            data = _exact(data)
        head = b"" if self.head_sent else self.head(self.known)
        size = len(data)
        if self.chunked:
            if data:
                head += b"%x\r\n%b\r\n" % (size, data)
            data = b""
        elif self.remaining is not None:
            if size > self.remaining:
                data = self._cut_off(data)
                size = len(data)
            self.remaining -= size
        if head or data:
            self.sent += size
            try:
                self.sink.send(head, data)
            except ClientGoneError as gone:
                self._discount(gone, size)
                raise

    def _cut_off(self, data: bytes) -> bytes:
        """What of ``data`` the client may still get."""
        if not (self.muted or self.cut):
            self.cut = True
            self.sink.report("the body is longer than its Content-Length; the rest is cut")
        return data[: self.remaining]

    def _discount(self, gone: ClientGoneError, size: int) -> None:
        """Of the ``size`` bytes of the body that were sent last, the log counts those that were sent or kept."""
        self.sent -= min(size, gone.unsent)

    def give_up(self, status: int) -> None:
        """``status`` was answered without the application: whatever it says from now on reaches no client."""
        self.status = status
        self.gone = True

    def detach(self) -> None:
        """The application answers on the connection itself, as WebSocket: nothing it returns is sent."""
        self.detached = True
        self.persistent = False
        self.give_up(101)

    def _finish(self) -> None:
        """End the body. What is missing of the announced length ends the connection too."""
        if not self.head_sent:
            self.sink.send(self.head(0))
        elif self.chunked:
            self.sink.send(b"0\r\n\r\n")
            self.chunked, self.remaining = False, 0  # a write() that comes late must not reach the next answer
        if self.remaining and not self.muted:
            self.sink.report(f"the body is {count_of(self.remaining, 'byte')} shorter than its Content-Length")
            self.persistent = False

    def _send_file(self, wrapper: FileWrapper) -> bool:
        span = wrapper.span()
        if span is None or self.headers is None or self.gone:
            return False
        file, offset, size = span
        head = self.head(size)
        count = 0 if self.muted else min(size, self.remaining or 0)
        # From here on the sink closes the file, when it is sent: nothing else may call it, a class's own neither.
        close, wrapper.close = getattr(wrapper, "close", _nothing), _nothing
        close = partial(close_result, close, self.sink)
        self.sent += count
        try:
            self.sink.send_file(head, file, offset, count, close)
        except ClientGoneError as gone:
            self._discount(gone, count)
            raise
        if self.remaining is not None:
            self.remaining -= count
        return True


def _exact(data: object) -> bytes:
    """A block of the body as bytes exactly: a subclass may have a length of its own. Raises AppError for others."""
    if not isinstance(data, bytes):
        raise AppError(f"the application yielded {type(data).__name__}, not bytes")
    return bytes(memoryview(data))


def _nothing() -> None:
    """The close of a file that has none."""


def close_result(close: Callable[[], object], sink: Sink) -> None:
    """Call ``close`` of what the application returned; what it raises is reported."""
    try:
        close()
    except BaseException as error:
        end_script(sink, error)
        sink.report("the iterable's close() raised", error)


def end_script(sink: Sink, error: BaseException) -> None:
    """Let Ctrl-C end a script. A worker hears of SIGINT otherwise: there the application has raised it itself."""
    if isinstance(error, KeyboardInterrupt) and not sink.worker:
        raise error
