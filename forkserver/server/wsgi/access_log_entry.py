"""What the access log says of an answer, taken from the request's fields, its environ and the response."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forkserver.server.wsgi.response import Response

Entry = tuple[str, str, str, int, int, str, str]  # peer, user, request line, status, bytes, referrer, agent


def log_answer(
    add: Callable[[str, str, str, int, int, str, str], object],
    line: str,
    fields: dict[str, str],
    environ: dict[str, Any],
    response: Response,
) -> None:
    """Pass to ``add``, as AccessLog.add, what is logged of an answer to a request with ``fields``, by WSGI names.

    ``environ`` is the application's to change: the client is as it leaves it, the rest is as it came.
    """
    get, field = environ.get, fields.get
    peer, user = get("REMOTE_ADDR", ""), get("REMOTE_USER", "")  # the client behind trusted proxies
    if not (type(peer) is type(user) is str):
        peer, user = _text(peer), _text(user)
    add(peer, user, line, response.status, response.sent, field("HTTP_REFERER", ""), field("HTTP_USER_AGENT", ""))


def _text(value: object) -> str:
    """The characters of a str of any class; of anything else, what it calls itself."""
    return str.__str__(value) if isinstance(value, str) else str(value)
