"""PEP 3333: start_response, and the walk over the application's iterable.

It promises that the application meets the protocol to the letter and that its mistakes cost one answer, never the
worker. It refuses to know sockets: bytes go to a sink, which sends, keeps or waits as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from io import BufferedRandom, BufferedReader, FileIO
from os import fstat
from stat import S_ISREG
from time import monotonic, time
from types import TracebackType
from typing import IO, Any, Final, Protocol
from wsgiref.util import FileWrapper as _FileWrapper

from forkserver.errors import AppError, RequestTimeout
from forkserver.http1 import response as wire
from forkserver.server.threads.loop_lock import LoopLock
from forkserver.server.threads.request_deadline import RENEWAL_SECONDS

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
App = Callable[[dict[str, Any], Callable[..., Callable[[bytes], object]]], Iterable[bytes]]

_END: Final = object()
_told: set[str] = set()  # connection fields that were dropped and reported; as few as their names


class ClientGoneError(Exception):
    """The client closed the connection, or took nothing for too long, before the answer was through.

    ``unsent`` is how many bytes of what was to be sent just now were neither sent nor kept.
    """

    def __init__(self, unsent: int = 0) -> None:
        super().__init__()
        self.unsent = unsent


class Sink(Protocol):
    """Where a response goes. Its ``loop_lock`` is held whenever one of its methods is called."""

    @property
    def loop_lock(self) -> LoopLock:
        """Given up around the application's code."""

    @property
    def worker(self) -> bool:
        """Whether this is one process of several under a master."""

    def send(self, data: bytes, body: bytes = b"") -> None:
        """Take ``data`` and ``body``, all of both. Raises ClientGoneError."""

    def send_file(self, head: bytes, file: IO[bytes], offset: int, count: int, close: Callable[[], object]) -> None:
        """Take ``head`` and ``count`` bytes of ``file``; ``close`` is called when they are sent, or cannot be."""

    def report(self, message: str, error: BaseException | None = None) -> None:
        """Tell the operator of the application's fault."""

    def fail(self, status: int) -> int:
        """Answer ``status`` in place of a response of which nothing was sent; gives the bytes of the body.

        Raises ClientGoneError.
        """

    def renew(self) -> None:
        """The application has yielded something: its deadline counts from now, or up to RENEWAL_SECONDS later."""

    def abort(self) -> None:
        """Cut the connection so that the client can tell that the answer is not whole."""


class FileWrapper(_FileWrapper):
    """``wsgi.file_wrapper``: an iterable over a file, which a regular file's bytes need not pass through.

    Takes a file-like object and a block size in bytes. Source: PEP 3333 "Optional Platform-Specific File Handling".
    """

    def span(self) -> tuple[IO[bytes], int, int] | None:
        """``(file, offset, bytes to its end)`` of a regular file, None for anything else.

        The file is the io object that ``read`` reads, whatever ``fileno`` of a wrapper around it says.
        """
        file = _plain(self.filelike)
        if file is None:
            return None
        try:
            stat = fstat(file.fileno())
            offset = file.tell()
        except (AttributeError, OSError, ValueError):
            return None
        # A size of 0 may be a lie (/proc): such a file is read to its end instead.
        return (file, offset, max(0, stat.st_size - offset)) if S_ISREG(stat.st_mode) and stat.st_size else None


def _plain(file: object) -> IO[bytes] | None:
    """The file that ``file`` reads, where that gives what its descriptor holds: a gzip file gives other bytes."""
    read = getattr(file, "read", None)
    read = getattr(read, "__wrapped__", read)  # tempfile's named files lend the method of the file they hold
    owner = getattr(read, "__self__", None)
    plain = type(owner) in (FileIO, BufferedReader, BufferedRandom) and type(getattr(owner, "raw", owner)) is FileIO
    return owner if plain else None


class Response(wire.Fields):
    """One answer: what ``start_response`` was told, and how far the body is."""

    __slots__ = (
        "chunked", "clock", "cut", "detached", "failure", "gone", "head_sent", "http11", "known", "method", "muted",
        "persistent", "remaining", "sent", "sink",
    )  # fmt: skip

    def __init__(self, sink: Sink, clock: wire.Clock, method: str, http11: bool, persistent: bool) -> None:
        # As Fields does it, without the price of a call.
        self.code = 0
        self.text = ""
        self.plain = True
        self.date = self.server = self.close = False
        self.dropped = ()
        self.length = None
        self.sink = sink
        self.clock = clock
        self.method = method
        self.http11 = http11
        self.persistent = persistent  # whether the connection goes on after this answer
        self.head_sent = False
        self.known: int | None = None  # length of the whole body, where the iterable tells
        self.remaining: int | None = None  # body bytes still to come, None: open-ended
        self.chunked = False
        self.cut = False  # more was yielded than Content-Length says
        self.muted = False  # the answer carries no body whatever is yielded
        self.sent = 0  # body bytes, for the access log
        self.gone = False  # it was answered without the application
        self.detached = False  # the application has the connection itself
        self.failure = 500  # the status where nothing of the application's answer went out

    @property
    def status(self) -> int:
        """The status code that went out."""
        return self.code if self.head_sent else self.failure

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
            self.clear()
        elif self.code:
            raise AppError("start_response was called a second time without exc_info")
        try:
            wire.check(self, status, headers)
        except AppError:
            self.clear()  # the application may catch it and try again
            raise
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
        if self.gone:
            raise ClientGoneError
        if not self.code:
            raise AppError("the application did not call start_response before its body")
        self.head_sent = True
        clock, now = self.clock, time()
        lines = clock.both if clock.until - 1 <= now < clock.until else clock.at(now)
        if not self.plain:
            lines = clock.rest(self)
            self._heed()
        framing = self._frame(known)
        if not (self.persistent and self.http11):
            framing += wire.connection_line(self.persistent, self.http11)
        return f"{self.text}{lines}{framing}\r\n".encode("latin-1")

    def _heed(self) -> None:
        if self.close:
            self.persistent = False
        for name in self.dropped:
            if name not in _told:  # once in a process: an application that sets one sets it in every answer
                _told.add(name)
                self.sink.report(f"dropped {name}: fields of the connection are not the application's to set")

    def _frame(self, known: int | None) -> str:
        """Decide how the client is to know the body's end (RFC 9112 section 6.3); the line that says it."""
        length = self.length
        if self.method == "HEAD" or self.code in wire.BODILESS:
            self.muted = True
            self.remaining = 0
            if length is None and known and self.method == "HEAD":
                length = known
            return "" if length is None or self.code == 204 else f"Content-Length: {length}\r\n"
        if length is None:
            length = known
        if length is not None:
            self.remaining = length
            return f"Content-Length: {length}\r\n"
        if self.http11:
            self.chunked = True
            return "Transfer-Encoding: chunked\r\n"
        self.persistent = False  # HTTP/1.0: the end of the body is the end of the connection
        return ""

    def send_result(self, result: Iterable[bytes]) -> None:
        """Send what the application returned, to its end."""
        if isinstance(result, (list, tuple)):
            self.known = _length(result)
            for data in result:
                if data:
                    self.put(data)
                    if self.muted:
                        break  # HEAD, 204, 304: nothing that follows can reach the client
                    self.sink.renew()
        elif isinstance(result, FileWrapper) and not self.head_sent and self._send_file(result):
            return
        else:
            self._send_each(result)
        self.finish()

    def _send_each(self, result: Iterable[bytes]) -> None:
        """Send what ``result`` yields, each block before the next is asked for.

        One long function, for it runs once a block: its steps as functions cost a stream of small blocks a third more
        (CPython 3.11).
        """
        sink = self.sink
        loop_lock = sink.loop_lock
        try:
            iterator: Any = loop_lock.lend(iter, result)
        except TypeError:
            raise AppError(f"the application returned {type(result).__name__}, not an iterable of bytes") from None
        acquire, release, send = loop_lock.acquire, loop_lock.release, sink.send
        data: Any
        renew_at = 0.0
        while True:
            try:  # as LoopLock.lend does it
                release()
                loop_lock.outside = True
                data = next(iterator, _END)
            finally:
                loop_lock.outside = False
                acquire()
            if data is _END:
                return
            if not data and isinstance(data, bytes):
                continue
            if self.chunked and type(data) is bytes:  # as ``_put`` does it
                size = len(data)
                self.sent += size
                try:
                    send(b"%x\r\n%b\r\n" % (size, data))
                except ClientGoneError as gone:
                    self._forgo(gone, size)
                    raise
            else:
                if type(data) is not bytes:
                    data = _exact(data)
                self._put(b"" if self.head_sent else self.head(), data)
                if self.muted:
                    return  # as in ``send_result``
            now = monotonic()
            if now >= renew_at:
                renew_at = now + RENEWAL_SECONDS
                sink.renew()

    def send_whole(self, body: bytes) -> None:
        """Send a body that is one block: the common case, one send."""
        if type(body) is not bytes or self.head_sent or not self.code:
            if body or not isinstance(body, bytes):
                self.put(body)
            self.finish()
            return
        size = len(body)
        length = self.length
        if (
            self.plain
            and self.http11
            and self.method != "HEAD"
            and (length is None or length == size)
            and not self.gone
        ):
            # What ``head`` and ``_put`` would make of it, in one piece: two calls fewer, 2 % of a request.
            clock, now = self.clock, time()
            lines = clock.both if clock.until - 1 <= now < clock.until else clock.at(now)
            self.head_sent = True
            self.remaining = 0
            self.sent = size
            end = "\r\n\r\n" if self.persistent else "\r\nConnection: close\r\n\r\n"
            try:
                self.sink.send(f"{self.text}{lines}Content-Length: {size}{end}".encode("latin-1"), body)
            except ClientGoneError as gone:
                self._forgo(gone, size)
                raise
            return
        self._put(self.head(size), body)
        self.finish()

    def write(self, data: bytes) -> None:
        """The application's ``write``: send a block of the body at once (PEP 3333 "Buffering and Streaming")."""
        self.sink.loop_lock.borrow(self.put, data)

    def put(self, data: bytes) -> None:
        """Send a block of the body."""
        data = _exact(data)
        if not self.head_sent:
            self._put(self.head(self.known), data)
        elif data:
            self._put(b"", data)

    def _put(self, head: bytes, data: bytes) -> None:
        if self.chunked:
            if data:
                head += b"%x\r\n%b\r\n" % (len(data), data)
            self._send_counted(len(data), head)
            return
        if self.remaining is not None:
            if len(data) > self.remaining:
                if not (self.muted or self.cut):
                    self.cut = True
                    self.sink.report("the body is longer than its Content-Length; the rest is cut")
                data = data[: self.remaining]
            self.remaining -= len(data)
        if head or data:
            self._send_counted(len(data), head, data)

    def _send_counted(self, size: int, *parts: bytes) -> None:
        """Send ``parts``, which hold ``size`` bytes of the body."""
        self.sent += size
        try:
            self.sink.send(*parts)
        except ClientGoneError as gone:
            self._forgo(gone, size)
            raise

    def _forgo(self, gone: ClientGoneError, size: int) -> None:
        """Of the last ``size`` bytes of the body the client that has ``gone`` gets no more than was sent or kept."""
        self.sent -= min(size, gone.unsent)

    def give_up(self, status: int) -> None:
        """``status`` was answered without the application: whatever it says from now on reaches nobody."""
        self.failure = status
        self.gone = True

    def detach(self) -> None:
        """The application answers on the connection itself, as WebSocket: nothing it returns is sent."""
        self.detached = True
        self.persistent = False
        self.give_up(101)

    def finish(self) -> None:
        """End the body. What is missing of the announced length ends the connection too."""
        if not self.head_sent:
            self.sink.send(self.head(0))
        elif self.chunked:
            self.sink.send(b"0\r\n\r\n")
            self.chunked, self.remaining = False, 0  # a write() that comes late must not reach the next answer
        if self.remaining and not self.muted:
            self.sink.report(f"the body is {self.remaining} bytes shorter than its Content-Length")
            self.persistent = False

    def _send_file(self, wrapper: FileWrapper) -> bool:
        span = wrapper.span()
        if span is None or not self.code or self.gone:
            return False
        file, offset, size = span
        head = self.head(size)
        count = 0 if self.muted else min(size, self.remaining or 0)
        # From here on the sink closes the file, when it is sent: nothing else may call it, a class's own neither.
        close, wrapper.close = getattr(wrapper, "close", _nothing), _nothing
        self.sent = count
        try:
            self.sink.send_file(head, file, offset, count, partial(_close, close, self.sink))
        except ClientGoneError as gone:
            self._forgo(gone, count)
            raise
        if self.remaining is not None:
            self.remaining -= count
        if self.chunked or self.remaining:
            self.finish()
        return True


def _length(blocks: list[bytes] | tuple[bytes, ...]) -> int:
    """The length of a body that is there as a whole; what is wrong with it is known before anything is sent."""
    return sum([len(_exact(data)) for data in blocks])


def _exact(data: object) -> bytes:
    """A block of the body as bytes exactly: a subclass may have a length of its own. Raises AppError for others."""
    if type(data) is bytes:
        return data
    if not isinstance(data, bytes):
        raise AppError(f"the application yielded {type(data).__name__}, not bytes")
    return bytes(memoryview(data))


def _nothing() -> None:
    """The close of a file that has none."""


def run(app: App, environ: dict[str, Any], response: Response) -> None:
    """Call ``app`` and send its answer; whatever it does wrong ends here, but for a script's KeyboardInterrupt.

    The client learns of a fault by a 500 while nothing was sent, by a cut connection afterwards.
    """
    loop_lock = response.sink.loop_lock
    result: Iterable[bytes] | None = None
    try:
        try:  # as LoopLock.lend does it, without the price of a call
            loop_lock.release()
            loop_lock.outside = True
            result = app(environ, response.start_response)
        finally:
            loop_lock.outside = False
            loop_lock.acquire()
        if type(result) is list and len(result) == 1:
            response.send_whole(result[0])
        else:
            response.send_result(result)
    except ClientGoneError:
        response.persistent = False
    except BaseException as error:  # SystemExit, asyncio's CancelledError: no worker ends by what one request raised
        _end_script(response.sink, error)
        _failed(response, error)
    finally:
        if type(result) is not list:  # which has nothing to be closed
            close = getattr(result, "close", None)
            if close is not None:
                _close(partial(loop_lock.lend, close), response.sink)


def _failed(response: Response, error: BaseException) -> None:
    response.persistent = False
    if response.detached:
        if not isinstance(error, StopIteration):  # which is how libraries end such a call: gunicorn understands it
            response.sink.report("the application raised", error)
        return
    if isinstance(error, AppError):
        response.sink.report(str(error))
    elif isinstance(error, RequestTimeout):
        response.failure = 504  # the master has told of it
    else:
        response.sink.report("the application raised", error)
    if response.head_sent:
        if response.remaining != 0:
            response.sink.abort()  # else the answer is whole
        return
    if response.gone:
        return  # its client has an answer
    try:
        response.sent = response.sink.fail(response.failure)
    except ClientGoneError:  # nobody is left to be told
        return


def _close(close: Callable[[], object], sink: Sink) -> None:
    try:
        close()
    except BaseException as error:
        _end_script(sink, error)
        sink.report("the iterable's close() raised", error)


def _end_script(sink: Sink, error: BaseException) -> None:
    """Let Ctrl-C end a script. A worker hears of SIGINT otherwise: there the application has raised it itself."""
    if isinstance(error, KeyboardInterrupt) and not sink.worker:
        raise error
