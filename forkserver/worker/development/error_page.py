"""The page of what is wrong with an application that is being written, for a browser of this machine.

A WSGI application around the one that serves. While code that was changed does not load, a navigation is answered with
the traceback, and anything else goes to the application; where no code is left that loads, that gets it as text. A
navigation for which the application raises is answered so, too. The page executes nothing here. A traceback tells of
the machine, so the page exists only where listener, client and the field Host are loopback, and neither a field nor the
form of the target says that a proxy or a tunnel has passed the request on. All text is escaped, and the policy of the
page allows no code but its own, which asks a path of ours whether the failure is still the same.

Source: RFC 9110 section 12.5.1, Fetch Metadata (Sec-Fetch-Mode), CSP level 3 section 2.3, RFC 6761 section 6.3.
"""

from __future__ import annotations

import base64
import hashlib
import html
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from forkserver.linux.common.records import NamedTuple
from forkserver.server.proxy.forwarded_headers import PASSED_ON
from forkserver.server.wsgi.access_log_entry import UNLOGGED

QUESTION: Final = "/.forkserver/state"  # a path that only the page asks for
MEANWHILE: Final = "The last code that did load answers everything else."
NOTHING: Final = "No code that loads is there: everything else is answered 503, with this as text."
NOT_LOADED: Final = "The application does not load"
RAISED: Final = "The application raised an exception"
_STATUS: Final = "500 Internal Server Error"
_UNAVAILABLE: Final = "503 Service Unavailable"
_COME_AGAIN: Final = (("Retry-After", "1"),)
_FILE: Final = Path(__file__).with_name("error_page.html")
_SECURITY: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
# Beside those that begin as X-Forwarded, what proxies, tunnels and networks of proxies add.
_BY_PROXIES: Final = frozenset(
    f"HTTP_{name}"
    for name in (
        "FORWARDED", "VIA", "X_REAL_IP", "X_CLIENT_IP", "X_CLUSTER_CLIENT_IP", "X_ORIGINAL_HOST", "X_ORIGINAL_FOR",
        "TRUE_CLIENT_IP", "CF_CONNECTING_IP", "CF_RAY", "FASTLY_CLIENT_IP", "X_AMZN_TRACE_ID", "X_AZURE_CLIENTIP",
        "CDN_LOOP", "X_PROXY_USER_IP", "X_HTTP_HOST_OVERRIDE", "X_REWRITE_URL", "X_ORIGINAL_URL",
    )
)  # fmt: skip

App = Callable[..., Iterable[bytes]]
Environ = dict[str, Any]


class CodeFailure(NamedTuple):
    """Why the newest code does not load; ``loaded`` says whether other code of the application serves."""

    reason: str
    traceback: str
    loaded: bool

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self).encode("utf-8", "backslashreplace")).hexdigest()[:16]


class ErrorPage:
    """``app`` of ``generation`` with the page in front of it. ``local``: every listener is loopback.

    ``raised(message, error)`` is told of what ``app`` has raised where the page shows it.
    """

    def __init__(self, app: App, local: bool, generation: int, raised: Callable[[str, Exception], object]) -> None:
        self._app = app
        self._local = local
        self._generation = generation
        self._raised = raised
        self.failure: CodeFailure | None = None

    @property
    def state(self) -> str:
        """Differs where a page would be another: the code, or what is wrong with the newest."""
        return f"{self._generation}.{self.failure.digest if self.failure is not None else ''}"

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        passed_on = environ.pop(PASSED_ON, False)
        if not self._local or passed_on or not is_local(environ):
            return self._app(environ, start_response)
        if environ["REQUEST_METHOD"] == "GET":
            if environ["PATH_INFO"] == QUESTION:
                environ[UNLOGGED] = True
                return _send(start_response, "200 OK", "text/plain", "default-src 'none'", self.state.encode())
            if is_navigation(environ):
                return self._navigate(environ, start_response)
        if self.failure is not None and not self.failure.loaded:
            body = _text(self.failure)
            return _send(start_response, _UNAVAILABLE, "text/plain", "default-src 'none'", body, more=_COME_AGAIN)
        return self._app(environ, start_response)

    def _navigate(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if (failure := self.failure) is not None:
            meanwhile = MEANWHILE if failure.loaded else NOTHING
            body = _page(NOT_LOADED, failure.reason, failure.traceback or failure.reason, meanwhile, self.state)
            return _send(start_response, _STATUS, "text/html", _policy(body), body)
        try:
            return self._app(environ, start_response)
        except Exception as error:
            self._raised(f"GET {environ['PATH_INFO']}: the application raised", error)
            frames = error.__traceback__.tb_next if error.__traceback__ is not None else None  # without this one
            told = traceback.TracebackException(type(error), error, frames)
            reason = "".join(told.format_exception_only()).strip()
            body = _page(RAISED, reason, "".join(told.format()), "", self.state)
            return _send(start_response, _STATUS, "text/html", _policy(body), body, sys.exc_info())


def is_navigation(environ: Environ) -> bool:
    """Whether a person has opened the address in a browser, and no script asks for it."""
    mode = environ.get("HTTP_SEC_FETCH_MODE")
    if mode is not None:
        return bool(mode == "navigate")
    return "text/html" in environ.get("HTTP_ACCEPT", "").lower()


def is_local(environ: Environ) -> bool:
    """Whether the request comes from this machine, is meant for it, and was passed on by no proxy that says so."""
    if not is_loopback(environ.get("REMOTE_ADDR", "")) or not _BY_PROXIES.isdisjoint(environ):
        return False
    if not environ.get("REQUEST_URI", "").startswith("/"):
        return False  # a whole URI, as proxies are asked: HTTP_HOST is of that, and hides the field (RFC 9112 3.2.2)
    return not any(map(_says_forwarded, environ)) and _is_own_name(environ.get("HTTP_HOST", ""))


def _says_forwarded(key: str) -> bool:
    return key.startswith(("HTTP_X_FORWARDED", "HTTP_X_ENVOY_", "HTTP_NGROK_"))


def _is_own_name(host: str) -> bool:
    """Whether ``host``, a field Host, is a loopback address or a name that means one everywhere (RFC 6761)."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    name = name.lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def is_loopback(address: str) -> bool:
    """Whether ``address`` is one of this machine alone; names are none."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def all_loopback(listeners: Iterable[socket.socket]) -> bool:
    """Whether no other machine, and no proxy on a Unix socket, reaches one of ``listeners``."""
    return all(
        each.family in (socket.AF_INET, socket.AF_INET6) and is_loopback(each.getsockname()[0]) for each in listeners
    )


def _send(
    start_response: Callable[..., Any],
    status: str,
    kind: str,
    policy: str,
    body: bytes,
    fault: Any = None,
    more: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    """Answer ``body``; ``fault`` takes back what the application has begun to answer. Raises it where that is sent."""
    fields = [
        ("Content-Type", f"{kind}; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Content-Security-Policy", policy),
        *_SECURITY,
        *more,
    ]
    start_response(status, fields, *([] if fault is None else [fault]))
    return [body]


def _text(failure: CodeFailure) -> bytes:
    """What a program that asks is told, and the person who reads its log."""
    said = f"{NOT_LOADED}: {failure.reason}\n\n{failure.traceback}".strip()
    return f"{said}\n".encode("utf-8", "backslashreplace")


def _page(heading: str, reason: str, traceback: str, meanwhile: str, state: str) -> bytes:
    text = _FILE.read_text(encoding="utf-8")
    values = {
        "title": reason.partition("\n")[0][:200],
        "heading": heading,
        "reason": reason,
        "traceback": traceback,
        "meanwhile": meanwhile,
        "state": state,
    }
    return "".join(_filled(text, values)).encode("utf-8", "backslashreplace")


def _filled(text: str, values: dict[str, str]) -> Iterator[str]:
    """``text`` with each value, escaped, in its place; what a value holds is no place."""
    first, *parts = text.split("{")
    yield first
    for part in parts:
        name, end, rest = part.partition("}")
        filled = bool(end) and name in values
        yield html.escape(values[name]) + rest if filled else "{" + part


def _policy(body: bytes) -> str:
    """The policy that allows the one style and the one script of the page ``body``, and its question."""
    script, style = (_hash(body, tag) for tag in (b"script", b"style"))
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def _hash(body: bytes, tag: bytes) -> str:
    """The source expression for the one element ``tag`` of ``body``; escaped text holds no other."""
    (content,) = (each.partition(b"</%b>" % tag)[0] for each in body.split(b"<%b>" % tag)[1:])
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
