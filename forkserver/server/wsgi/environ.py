"""The environ of a request: what the server, its listener, the client's address and the request's head say.

It promises the variables of PEP 3333 and CGI, under their names. It refuses to know how a request is served.

Source: PEP 3333 "environ Variables", RFC 3875 section 4.1.
"""

from __future__ import annotations

from typing import Any, Final

from forkserver.http1.headers import HeaderBlock
from forkserver.http1.request import HeadReader
from forkserver.server.proxy.client_address import sender
from forkserver.server.proxy.forwarded_headers import Hears, TrustedProxies
from forkserver.server.wsgi.run import FileWrapper

# Set for each request. In what is remembered of an environ they have their places: a dict that needs no more room for
# them is copied and filled in half the time.
_OF_EACH: Final = dict.fromkeys(("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "RAW_URI", "wsgi.input"))


def environ_for(
    base: dict[str, Any], block: HeaderBlock, peer: tuple[Any, ...], names: tuple[str, str] | None
) -> dict[str, Any]:
    """A request's variables but those of its request line: ``base``, the peer's address, the header fields.

    ``names`` are SERVER_NAME and SERVER_PORT of the accepting listener where ``base`` does not speak for it.
    """
    environ = {
        **base,
        "SERVER_PROTOCOL": block.protocol,
        "REMOTE_ADDR": str(peer[0]),
        **block.environ,
    }
    if names is not None:
        environ["SERVER_NAME"], environ["SERVER_PORT"] = names
    if len(peer) > 1 and peer[0]:
        environ["REMOTE_PORT"] = str(peer[1])
    return environ


def believe(environ: dict[str, Any], peer: tuple[Any, ...], trust: TrustedProxies, hears: Hears) -> None:
    """Put what ``peer`` says of its client into ``environ``, as far as ``trust`` goes. Raises ProtocolError."""
    trust.apply(environ, sender(peer), hears)
    environ["wsgi.url_scheme"] = scheme_of(environ)


def add_request_line(environ: dict[str, Any], head: HeadReader) -> None:
    """Put what the request line says into ``environ``; the authority of an absolute-form target overrides Host."""
    environ["REQUEST_METHOD"] = head.method
    environ["PATH_INFO"] = head.path
    environ["QUERY_STRING"] = head.query
    environ["REQUEST_URI"] = environ["RAW_URI"] = head.target  # the latter is gunicorn's name for it
    if head.authority is not None:
        environ["HTTP_HOST"] = head.authority


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


class Basis:
    """What every request of a worker begins with: the server's ``base_environ``, ``software``, ``wsgi`` variables.

    ``base`` is the ``base_environ`` that ``joined`` was made from, and another object after each change.
    """

    __slots__ = ("base", "joined", "software", "wsgi")

    def __init__(self, software: str, wsgi: dict[str, Any]) -> None:
        self.software = software
        self.wsgi = wsgi
        self.base: dict[str, Any] = {}
        self.joined: dict[str, Any] = {}

    def follow(self, base: dict[str, Any]) -> None:
        """Take ``base`` as it is now."""
        if base != self.base or not self.joined:
            self._join(base)

    def _join(self, base: dict[str, Any]) -> None:
        self.base = base.copy()
        scheme = scheme_of(base)
        self.joined = {**base, **self.wsgi, "SERVER_SOFTWARE": self.software, "wsgi.url_scheme": scheme, **_OF_EACH}

    def set(self, name: str, value: Any) -> None:
        """Change a variable of ``wsgi``."""
        if self.wsgi.get(name) is not value:
            self.wsgi[name] = value
            self._join(self.base)
