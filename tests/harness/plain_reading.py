"""One head read twice, by the extension and by the Python code, and what differs."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from io import BytesIO
from types import SimpleNamespace
from typing import Any

from forkserver.errors import ProtocolError
from forkserver.http1.headers import HeadLimits
from forkserver.http1.request import RequestHead, read_head
from forkserver.server.proxy.client_address import sender
from forkserver.server.proxy.forwarded_headers import TrustedProxies
from forkserver.server.proxy.request_id import VARIABLE, RequestIds
from forkserver.server.threads.loop_lock import LoopLock
from forkserver.server.wsgi.accelerator.loading import load
from forkserver.server.wsgi.environ import (
    BaseEnviron,
    apply_forwarded,
    complete_environ,
    make_environ,
    wsgi_variables,
)
from harness.corpus import LIMITS

EXTENSION: Any = load()
BASE = {
    "SERVER_NAME": "server.example", "SERVER_PORT": "80", "GATEWAY_INTERFACE": "CGI/1.1", "REMOTE_HOST": "",
    "CONTENT_LENGTH": "", "SCRIPT_NAME": "",
}  # fmt: skip
PROXY = ("127.0.0.1", 4711)
STRANGER = ("192.0.2.7", 4712)
UNIX = ("",)
FIELDS = ("x-forwarded-for", "x-forwarded-proto")
OURS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")  # an id that is made here


class Notices:
    """What operators may want to know: no concern of these tests."""

    def dropped(self, sender: str, keys: list[str]) -> None: ...
    def took_inner(self, sender: str, client: str) -> None: ...


class BothReaders:
    """The two readers for one set of settings. ``trust`` lists trusted peers; None: the application sees to proxies.

    ``extra`` is what TLS says of the client.
    """

    def __init__(
        self,
        limits: HeadLimits = LIMITS,
        trust: tuple[str, ...] | None = ("127.0.0.1", "unix"),
        fields: tuple[str, ...] = FIELDS,
        base: dict[str, Any] = BASE,
        names: tuple[str, str] | None = None,
        ids: tuple[str, ...] = ("x-request-id", "traceparent"),
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.limits = limits
        self.names = names
        self.extra = extra
        self.trust = None if trust is None else TrustedProxies(trust, fields)
        self.base = BaseEnviron("forkserver", wsgi_variables(sys.stderr, False, True))
        self.base.follow(base)
        self.ids = RequestIds(self.trust, ids)
        lock = LoopLock()
        self.context = EXTENSION.Context(
            (limits.request_line, limits.fields, limits.field_size, limits.head),
            self.trust and self.trust.fields, None, ids, b"", self.base, SimpleNamespace(dozing=False), lock, None,
            None, b"", None, 1, 0, None, None, (),
        )  # fmt: skip

    def by_extension(self, data: bytes, peer: tuple[Any, ...]) -> Any:
        """The Request, or None where it is declined."""
        host = sender(peer)
        trusted = self.trust is not None and host is not None and self.trust.trusts(host)
        port = str(peer[1]) if len(peer) > 1 and peer[0] else None
        facts = str(peer[0]), port, *(self.names or (None, None)), trusted, self.extra, None
        request = self.context.take(data, facts)
        if request is data:
            return None
        assert not isinstance(request, bytes)
        return request

    def by_python(self, data: bytes, peer: tuple[Any, ...]) -> tuple[RequestHead, dict[str, Any]] | int | None:
        """Head and environ; the status of a refusal; None where more bytes are needed."""
        try:
            head = read_head(data, self.limits)
            if head is None:
                return None
            environ = make_environ(self.base.environ, head, peer, self.names, self.extra)
            if self.trust is not None:
                apply_forwarded(environ, peer, self.trust, Notices())
        except ProtocolError as error:
            return error.status
        environ[VARIABLE] = self.ids.of(head.fields, peer)
        complete_environ(environ, head, BytesIO(), 0, SimpleNamespace(early_hints=None))  # type: ignore[arg-type]
        return head, environ

    def check(self, data: bytes, peer: tuple[Any, ...] = PROXY) -> bool:
        """Fail where the two differ; whether the extension has read it."""
        request, read = self.by_extension(data, peer), self.by_python(data, peer)
        if request is None:
            return False
        assert isinstance(read, tuple), f"the extension reads what Python answers {read}: {data!r}"
        head, environ = read
        assert head.size == len(data), f"the extension reads what has bytes behind it: {data!r}"
        assert not any((head.has_body, head.websocket, head.expects_continue, head.authority))
        for name in ("raw", "line", "method", "protocol", "http11", "persistent"):
            assert getattr(request, name) == getattr(head, name), (name, data)
        assert comparable(request.environ) == comparable(environ), data
        assert request.environ[VARIABLE] is request.request_id
        assert {type(value) for value in request.environ.values() if isinstance(value, str)} == {str}
        request.finish()
        return True


def comparable(environ: dict[str, Any]) -> list[tuple[str, Any]]:
    """Names and values in their order; what is made anew for each request by its kind."""
    made: dict[str, Callable[[Any], Any]] = {
        VARIABLE: lambda found: OURS.sub("ours", found),
        "wsgi.input": lambda body: (type(body), body.read()),
        "wsgi.early_hints": lambda _hints: "present",
    }
    return [(name, made[name](value) if name in made else value) for name, value in environ.items()]
