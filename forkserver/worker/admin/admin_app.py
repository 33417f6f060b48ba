"""The WSGI application of the admin process: the page, /metrics, /healthz, /readyz, /status.json and /slow.json.

It reads and changes nothing. A client must call it by a name that is its own: a web page cannot have a browser read it
by a name of the page's that leads here (DNS rebinding), and no answer allows another origin to read it (CORS). Text of
clients, such as a request line, is in JSON only, and the page shows it as text.

Server-sent events are one to an answer: the browser asks again after ``retry``. So a page that is open holds no thread,
and one that does not read costs nothing.

Source: RFC 9110 sections 9.3 and 15.4.20 (421), CSP level 3, the Fetch standard.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from forkserver.ipc.status_channel import NoStatusError
from forkserver.linux.common.counted import of_count
from forkserver.linux.common.records import NamedTuple
from forkserver.worker.admin.exposition import Exposition
from forkserver.worker.admin.history import History
from forkserver.worker.admin.page import Page
from forkserver.worker.admin.status_cache import StatusCache

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"
EVENTS: Final = "text/event-stream"
_RETRY_MS: Final = 1000
_BESIDE: Final = ("slow",)  # what the master tells beside the status
_BROKEN: Final = "every request is answered 503 until a file changes"
_READY_STATES: Final = ("serving", "reloading")
_SECURITY: Final = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
]
_NOTHING_ALLOWED: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_NOT_FOUND: Final = b"not found; there are / /metrics /healthz /readyz /status.json /slow.json\n"

StartResponse = Callable[..., object]
Environ = dict[str, Any]


class Answer(NamedTuple):
    """One answer: status line without the version, type and bytes of the body, and further fields."""

    status: str
    body: bytes
    content_type: str = TEXT
    policy: str = _NOTHING_ALLOWED
    fields: tuple[tuple[str, str], ...] = ()


class AdminApp:
    """The application. ``hosts`` are names that clients may use, beside localhost and addresses."""

    def __init__(self, cache: StatusCache, exposition: Exposition, hosts: Iterable[str], page: Page) -> None:
        self._cache = cache
        self._exposition = exposition
        self._history = History()
        self._hosts = {"localhost", *(name.lower().strip("[]") for name in hosts if name)}
        self._pages: dict[str, Callable[[Environ], Answer]] = {
            "/": lambda _: Answer("200 OK", page.body, HTML, page.policy),
            "/events": self._events,
            "/history.json": self._past,
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/status.json": self._status,
            "/slow.json": self._slow,
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        answer = self._answer(environ)
        fields = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Content-Security-Policy", answer.policy),
            *_SECURITY,
            *answer.fields,
        ]
        start_response(answer.status, fields)
        return [answer.body]

    def _answer(self, environ: Environ) -> Answer:
        if not self._is_ours(environ.get("HTTP_HOST")):
            why = b"not a name of this service; add it to the setting admin_hosts if it is\n"
            return Answer("421 Misdirected Request", why)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return Answer("405 Method Not Allowed", b"only GET and HEAD\n", fields=(("Allow", "GET, HEAD"),))
        page = self._pages.get(environ["PATH_INFO"])
        if page is None:
            return Answer("404 Not Found", _NOT_FOUND)
        try:
            return page(environ)
        except NoStatusError as error:
            return Answer("503 Service Unavailable", f"{error}\n".encode())

    def _is_ours(self, host: str | None) -> bool:
        """Whether the field Host names this service: an address does, for rebinding needs a name.

        Without the field, as HTTP/1.0 allows, so do the checks of old load balancers; every browser sends it.
        """
        if host is None:
            return True
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        name = name.lower().rstrip(".")
        return name in self._hosts or _is_address(name)

    def _metrics(self, environ: Environ) -> Answer:
        if self._exposition.missing:
            return Answer("501 Not Implemented", f"{self._exposition.missing}\n".encode())
        body, content_type = self._exposition.render(self._now(), environ.get("HTTP_ACCEPT", ""))
        return Answer("200 OK", body, content_type)

    def _now(self) -> dict[str, Any]:
        status = self._cache.get()
        self._history.note(status)
        return status

    def _events(self, _environ: Environ) -> Answer:
        data = json.dumps(self._now())
        return Answer("200 OK", f"retry: {_RETRY_MS}\ndata: {data}\n\n".encode(), EVENTS)

    def _past(self, _environ: Environ) -> Answer:
        self._now()
        return Answer("200 OK", json.dumps(self._history.shown()).encode() + b"\n", JSON)

    def _health(self, _environ: Environ) -> Answer:
        self._cache.get()
        return Answer("200 OK", b"the master answers\n")

    def _readiness(self, _environ: Environ) -> Answer:
        status = self._cache.get()
        serving, state = status["serving"], status["state"]
        count = of_count(serving, status["wanted"], "worker", "serve")
        said = f"{state}, {_BROKEN if state == 'broken' else count}\n".encode()
        return Answer("200 OK" if is_ready(status) else "503 Service Unavailable", said)

    def _status(self, _environ: Environ) -> Answer:
        status = {name: value for name, value in self._cache.get().items() if name not in _BESIDE}
        return Answer("200 OK", json.dumps(status).encode() + b"\n", JSON)

    def _slow(self, _environ: Environ) -> Answer:
        slow = {"slow": self._cache.get()["slow"]}
        return Answer("200 OK", json.dumps(slow).encode() + b"\n", JSON)


def is_ready(status: dict[str, Any]) -> bool:
    """Whether at least one worker serves the application, and the service neither drains nor stops."""
    return status["serving"] > 0 and status["state"] in _READY_STATES


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
