"""Which documented hooks a class overrides, found once, so that a class that overrides none costs nothing.

A class is compared with its ancestor in this package: a name that it has otherwise is an override. Overrides that take
the connection out of the worker's hands, or that this module does not know, need a blocking socket (``blocking``).

Source: the stdlib's pages on wsgiref.simple_server, socketserver and http.server.
"""

from __future__ import annotations

import sys
from typing import Any, Final

# Overrides of a request handler that the event-driven worker calls at their documented moments.
_ENVIRON: Final = frozenset(("get_environ", "address_string"))
_LOG: Final = frozenset(("log_request", "log_message"))
_LOG_LINE: Final = frozenset(("log_date_time_string", "weekdayname", "monthname"))
_VERSION: Final = frozenset(("version_string", "server_version", "sys_version"))
_ERROR: Final = frozenset(("error_message_format", "error_content_type", "responses", "log_error", "date_time_string"))
_STDERR: Final = frozenset(("get_stderr",))
_EVENT_DRIVEN: Final = _ENVIRON | _LOG | _LOG_LINE | _VERSION | _ERROR | _STDERR
# Overrides of a server that take the connection out of the worker's hands.
_SERVER_BLOCKING: Final = frozenset(
    ("get_request", "process_request", "finish_request", "shutdown_request", "close_request")
)
_SERVER_CALLED: Final = ("verify_request", "service_actions", "get_app", "get_request")


_MISSING: Final = object()


def overrides(cls: type, base: type) -> frozenset[str]:
    """Names that ``base`` has and ``cls`` has otherwise."""
    own = {name for ancestor in cls.__mro__ for name in vars(ancestor)}
    return frozenset(
        name
        for name in own
        if not (name.startswith("__") and name != "__init__") and not _same(_found_in(base, name), _found_in(cls, name))
    )


def _found_in(cls: type, name: str) -> Any:
    """What ``cls`` has under ``name``, without calling a descriptor, as inspect.getattr_static finds it."""
    return next((vars(each)[name] for each in cls.__mro__ if name in vars(each)), _MISSING)


def _base(cls: type) -> type | None:
    """The class of this package that ``cls`` is, or is derived from."""
    return next((each for each in cls.__mro__ if each.__module__.startswith("forkserver.server.")), None)


def _own(cls: type) -> frozenset[str]:
    base = _base(cls)
    return overrides(cls, base) if base is not None else frozenset()


def _same(there: Any, here: Any) -> bool:
    """Whether a class changes nothing: it has a name of its own, or sets a plain value to what it was."""
    if there is _MISSING or there is here:
        return True
    return type(there) is type(here) in (str, int, bool) and bool(there == here)


class Overrides:
    """What the worker must call, for one pair of server class and handler class.

    ``blocking``: requests are served by a handler that needs a blocking socket.
    """

    def __init__(self, server: type, handler: Any) -> None:
        server_own = _own(server)
        self.verify_request, self.service_actions, self.get_app, self.get_request = (
            name in server_own for name in _SERVER_CALLED
        )
        ours = isinstance(handler, type) and _base(handler) is not None
        own: frozenset[str] = _own(handler) if ours else frozenset()
        self.blocking = not ours or bool(own - _EVENT_DRIVEN or server_own & _SERVER_BLOCKING)
        self.environ = bool(own & _ENVIRON)
        self.log = bool(own & _LOG)
        self.version = bool(own & _VERSION)
        self.error = bool(own & _ERROR)
        self.stderr = bool(own & _STDERR)
        self.any = bool(own)  # a handler object is made for each request


_found: dict[tuple[type, Any], Overrides] = {}  # as few as the pairs that a program uses


def overrides_of(server: type, handler: Any) -> Overrides:
    """The overrides of such a pair, found once: workers share what their template has found."""
    found = _found.get((server, handler))
    if found is None:
        found = _found[server, handler] = Overrides(server, handler)
    return found


def is_threading(server: type) -> bool:
    """Whether calls of this server's blocking handlers may overlap in one process."""
    return _mixes_in(server, "ThreadingMixIn")


def serves_apart(server: type) -> bool:
    """Whether this server serves each connection in a thread or a process of its own."""
    return _mixes_in(server, "ThreadingMixIn") or _mixes_in(server, "ForkingMixIn")


def _mixes_in(server: type, name: str) -> bool:
    """Whether ``server`` is derived from that class of socketserver; from none, where that was never loaded."""
    found = getattr(sys.modules.get("socketserver"), name, None)
    return found is not None and issubclass(server, found)
