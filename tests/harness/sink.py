"""A sink for Response without a socket, and the client's view of what went into it."""

from __future__ import annotations

import http.client
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from forkserver.http1 import response as wire
from forkserver.server.threads.loop_lock import acquired_lock
from forkserver.server.wsgi.environ import wsgi_variables
from forkserver.server.wsgi.response import Response
from forkserver.server.wsgi.response_sink import ClientGoneError
from forkserver.server.wsgi.run import run


class Sink:
    """Keeps what is sent; with ``room`` its client leaves after that many sends."""

    def __init__(self, room: int | None = None) -> None:
        self.data = b""
        self.sends: list[bytes] = []
        self.room = room
        self.reports: list[str] = []
        self.errors: list[BaseException] = []
        self.failed: int | None = None
        self.loop_lock = acquired_lock()
        self.worker = False
        self.renewed = 0
        self.aborted = False
        self.open_ended = False
        self.files = 0

    def send(self, data: bytes, body: bytes = b"") -> None:
        if self.room is not None and len(self.sends) >= self.room:
            raise ClientGoneError
        self.sends.append(data + body)
        self.data += data + body

    def send_file(self, head: bytes, file: IO[bytes], offset: int, count: int, close: Callable[[], object]) -> None:
        try:
            self.files += 1
            self.send(head, os.pread(file.fileno(), count, offset))
        finally:
            close()

    def report(self, message: str, error: BaseException | None = None) -> None:
        self.reports.append(message)
        if error is not None:
            self.errors.append(error)

    def renew(self) -> None:
        self.renewed += 1

    def fail(self, status: int) -> int:
        self.failed = status
        self.send(wire.error(status, ""))
        return 0

    def abort(self) -> None:
        self.aborted = True

    def delimit_by_close(self) -> None:
        self.open_ended = True


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


@dataclass
class Answer:
    """What an application's answer came to."""

    sink: Sink
    response: Response
    method: str
    environ: dict[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> bytes:
        return self.sink.data.partition(b"\r\n\r\n")[0]

    @property
    def raw_body(self) -> bytes:
        """As it is on the wire, framing included."""
        return self.sink.data.partition(b"\r\n\r\n")[2]

    def read(self) -> tuple[http.client.HTTPResponse, bytes]:
        """The answer as the stdlib's client reads it, and its body. Raises http.client.IncompleteRead."""
        got = http.client.HTTPResponse(_Socket(self.sink.data), method=self.method)  # type: ignore[arg-type]
        got.begin()
        return got, got.read()

    @property
    def body(self) -> bytes:
        return self.read()[1]

    def header(self, name: str) -> str | None:
        return self.read()[0].headers.get(name)


def answer(
    app: Any, method: str = "GET", *, http11: bool = True, persistent: bool = True, sink: Sink | None = None
) -> Answer:
    """Have ``app`` called for a request of ``method``, as a connection does."""
    sink = sink or Sink()
    response = Response(sink, wire.Clock("test"), method, http11, persistent)
    environ = {"REQUEST_METHOD": method, **wsgi_variables(io.StringIO(), False, True)}
    run(app, environ, response)
    return Answer(sink, response, method, environ)


def replying(body: Any, *headers: tuple[str, str], status: str = "200 OK") -> Any:
    """An application that answers with ``body``, any iterable."""

    def app(_environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(headers))
        return body

    return app
