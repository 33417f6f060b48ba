"""The environ of a request: the one place where it is made.

``make_environ`` copies what every request of a worker begins with and adds what the request, its client and the proxies
before it say; ``complete_environ`` adds what is known when the application is called. With ``http1.request.read_head``
they are a seam for an accelerator: bytes and a base environ in, environ and framing out.

Source: PEP 3333 "environ Variables", RFC 3875 section 4.1.
"""

from __future__ import annotations

from typing import IO, Any, Final

from forkserver.http1.headers import SCRIPT_NAME
from forkserver.http1.request import RequestHead
from forkserver.server.proxy.client_address import sender
from forkserver.server.proxy.forwarded_headers import (
    FOR,
    FORWARDED,
    HOST,
    PORT,
    PROTO,
    ForwardedNotices,
    TrustedProxies,
)
from forkserver.server.proxy.request_id import VARIABLE
from forkserver.server.wsgi.file_wrapper import FileWrapper
from forkserver.server.wsgi.response import Response

# Set for each request. They have their places in what is copied: a dict that must not grow is filled in half the time.
_PLACES: Final = dict.fromkeys(
    (
        "REQUEST_METHOD",
        "PATH_INFO",
        "QUERY_STRING",
        "REQUEST_URI",
        "RAW_URI",
        VARIABLE,
        "wsgi.input",
        "wsgi.early_hints",
    )
)


def make_environ(
    base: dict[str, Any],
    head: RequestHead,
    peer: tuple[Any, ...],
    names: tuple[str, str] | None,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The environ of the request ``head``, which came from the address ``peer``; a copy of ``base`` otherwise.

    ``names`` are SERVER_NAME and SERVER_PORT of the accepting listener where ``base`` does not speak for it; ``extra``
    is what TLS or a PROXY header says of the client.
    """
    environ = base.copy()
    environ["REQUEST_METHOD"] = head.method
    environ["PATH_INFO"] = head.path
    environ["QUERY_STRING"] = head.query
    environ["REQUEST_URI"] = environ["RAW_URI"] = head.target  # the latter is gunicorn's name for it
    environ["SERVER_PROTOCOL"] = head.protocol
    if names is not None:
        environ["SERVER_NAME"], environ["SERVER_PORT"] = names
    environ["REMOTE_ADDR"] = str(peer[0])
    if len(peer) > 1 and peer[0]:
        environ["REMOTE_PORT"] = str(peer[1])
    environ.update(head.fields)
    if head.authority is not None:
        environ["HTTP_HOST"] = head.authority
    if extra is not None:
        environ.update(extra)
    return environ


def apply_forwarded(
    environ: dict[str, Any], peer: tuple[Any, ...], trust: TrustedProxies | None, notices: ForwardedNotices
) -> None:
    """Put what ``peer`` says of its client into ``environ``, as far as ``trust`` goes. Raises ProtocolError.

    Without ``trust`` the fields are the application's to judge.
    """
    if trust is not None and (
        FOR in environ
        or PROTO in environ
        or HOST in environ
        or PORT in environ
        or FORWARDED in environ
        or SCRIPT_NAME in environ
    ):
        trust.apply(environ, sender(peer), notices)
        environ["wsgi.url_scheme"] = scheme_of(environ)


def complete_environ(
    environ: dict[str, Any], head: RequestHead, body: IO[bytes], size: int, response: Response
) -> None:
    """Add the request's ``body``, of ``size`` bytes, and what belongs to ``response``."""
    environ["wsgi.input"] = body
    if head.chunked:
        environ["CONTENT_LENGTH"] = str(size)
    if head.http11:
        environ["wsgi.early_hints"] = response.early_hints
    else:
        environ.pop("wsgi.early_hints", None)


def scheme_of(environ: dict[str, Any]) -> str:
    """``wsgi.url_scheme``: https where HTTPS says so, as wsgiref.util.guess_scheme does."""
    return "https" if environ.get("HTTPS") in ("yes", "on", "1") else "http"


def wsgi_variables(errors: Any, multithread: bool, multiprocess: bool) -> dict[str, Any]:
    """The ``wsgi.*`` variables that are the same for every request of a worker (PEP 3333 "environ Variables")."""
    return {
        "wsgi.version": (1, 0),
        "wsgi.errors": errors,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }


class BaseEnviron:
    """What every request of a worker begins with: the server's ``base_environ``, ``software``, ``wsgi`` variables.

    ``source`` is a copy of the ``base_environ`` that ``environ`` was made from.
    ``environ`` is replaced by each change, and not itself changed: the extension keeps copies of it.
    """

    __slots__ = ("environ", "software", "source", "wsgi")

    def __init__(self, software: str, wsgi: dict[str, Any]) -> None:
        self.software = software
        self.wsgi = wsgi
        self.source: dict[str, Any] = {}
        self.environ: dict[str, Any] = {}

    def follow(self, base: dict[str, Any]) -> None:
        """Take the server's ``base_environ`` as it is now."""
        if base != self.source or not self.environ:
            self._join(base)

    def _join(self, base: dict[str, Any]) -> None:
        self.source = base.copy()
        scheme = scheme_of(base)
        self.environ = {**base, **self.wsgi, "SERVER_SOFTWARE": self.software, "wsgi.url_scheme": scheme, **_PLACES}

    def set(self, name: str, value: Any) -> None:
        """Change a variable of ``wsgi``."""
        if self.wsgi.get(name) is not value:
            self.wsgi[name] = value
            self._join(self.source)
