from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, Protocol

from forkserver.http1.request import RequestHead
from forkserver.logs.access_format import Part
from forkserver.server.wsgi.response import Response

# Sends an answer by TLS: what of it, sealed, the kernel has not taken; None where the client has gone.
Send = Callable[..., bytes | None]  # of a head, and of the body where that was not copied behind it
# Address, port, server name and port, trusted, variables of TLS or a PROXY header, and Send where TLS is spoken.
Facts = tuple[str, str | None, str | None, str | None, bool, dict[str, Any] | None, Send | None]

class _HasEnviron(Protocol):
    environ: dict[str, Any]

class AcceptedSocket:
    kind: tuple[int, int, int]
    peer: tuple[Any, ...]
    facts: Facts
    def fileno(self) -> int: ...
    def close(self) -> None: ...
    def detach(self) -> int: ...

ABI: int

class Context:
    served: int
    declined: int
    def __init__(
        self,
        limits: tuple[int, int, int, int],  # request line, fields, field size, head
        forwarded: Container[str] | None,  # fields that trusted proxies set; None: there are no such proxies
        trusts: Callable[[str], bool] | None,  # of a host: whether it is such a proxy
        id_fields: tuple[str, ...],  # in which trusted proxies give an id, the one that goes first first
        id_header: bytes,  # that tells a client the id of its request; empty for none
        base_environ: _HasEnviron,
        loop: object,
        loop_lock: object,
        adopt: Callable[[Any, Request], Response],  # of a connection, None where the request's call is over
        read_head: Callable[[bytes], RequestHead],
        server_line: bytes,
        row: memoryview | None,
        threads: int,
        renewal: int,  # nanoseconds that a call may last from when it has yielded a block; 0: as long as it likes
        add_lines: Callable[[bytes], object] | None,  # takes lines of the access log
        log_answer: Callable[[Any, Request, dict[str, Any]], object] | None,  # of a connection, with the environ
        line_parts: tuple[Part, ...],  # of a line
    ) -> None: ...
    def accept(
        self, fd: int, kind: tuple[int, int, int], names: tuple[str, str] | None, /
    ) -> AcceptedSocket | None: ...
    def read(self, fd: int, facts: Facts, /) -> Request | bytes | None: ...
    def take(self, data: bytes, facts: Facts, /) -> Request | bytes: ...
    def attach(
        self,
        connection_class: type[Any],
        slots: dict[str, Any],  # descriptors of the class, by their names
        states: tuple[object, object, object],  # READING, READY and CALLING
        timeouts: object,
        submit: Callable[[Any, bytes], object],  # a request of a connection waits for the application
        unended: dict[int, str],  # what threads have begun of lines on ``wsgi.errors``
        /,
    ) -> None: ...
    def receive_all(
        self,
        events: list[tuple[int, int]],
        targets: dict[int, Callable[[int], object]],
        waiting: deque[Any] | None,  # None: ``submit`` is called
        now: float,
        /,
    ) -> list[tuple[Callable[[Any], object], Any]]: ...
    def serve(self, connection: Any, app: Callable[..., Iterable[bytes]], thread: int, /) -> bool: ...
    def hand_over_lines(self) -> None: ...
    def forget(self) -> None: ...

class Request:
    raw: bytes
    environ: dict[str, Any] | None
    request_id: str
    method: str
    protocol: str
    line: bytes
    http11: bool
    persistent: bool
    kept_open: bool
    chunked: bool
    has_body: bool
    websocket: bool
    fields: dict[str, str]
    response: Response | None
    code: int
    length: int
    text: str
    result: Any  # what the application has returned
    iterator: Iterator[object] | None
    referer: str | None
    agent: str | None
    whole_since: int
    began: int
    sent: bool
    ended: bool
    sent_size: int
    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]: ...
    def answer(
        self,
        app: Callable[..., Iterable[bytes]],
        connection: Any,
        thread: int,
        persistent: bool,
        /,
    ) -> bool | bytes | tuple[()] | tuple[object] | None: ...
    def finish(self) -> None: ...
    def adopt(self) -> Response: ...
    def lose(self, unsent: int, /) -> None: ...
    def log_before_end(self) -> None: ...
    def log_out(self, unsent: int = 0, /) -> None: ...
    def report(self, message: str, error: BaseException | None = None, /) -> None: ...
    def expire(self) -> None: ...
    def close_socket(self) -> bool: ...
