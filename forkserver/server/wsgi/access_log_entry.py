"""What the access log says of an answer, taken from the request's fields, its environ and the response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from forkserver.logs.access_format import NO_FACTS, Facts, Named

if TYPE_CHECKING:
    from forkserver.server.wsgi.response import Response

# Peer, user, request line, status, bytes, referrer, agent, and what other formats than the combined one say besides.
Entry = tuple[Any, ...]
Add = Callable[..., object]  # AccessLog.add
UNLOGGED: Final = "forkserver.unlogged"  # in an environ: a question of a page of ours, which no person has asked


def log_answer(
    add: Add,
    line: str,
    fields: Mapping[str, str],
    environ: dict[str, Any],
    response: Response,
    facts: Facts = NO_FACTS,
) -> None:
    """Pass to ``add``, as AccessLog.add, what is logged of an answer to a request with ``fields``, by WSGI names.

    ``environ`` is the application's to change: the client is as it leaves it, the rest is as it came.
    """
    field = fields.get
    add_entry(
        add,
        line,
        environ,
        response.status,
        response.sent,
        field("HTTP_REFERER", ""),
        field("HTTP_USER_AGENT", ""),
        facts,
    )


def add_entry(
    add: Add,
    line: str,
    environ: dict[str, Any],
    status: int,
    size: int,
    referer: str,
    agent: str,
    facts: Facts,
) -> None:
    """Pass to ``add`` what is logged; the client is as the application leaves it in ``environ``, where that is text."""
    get = environ.get
    peer, user = get("REMOTE_ADDR", ""), get("REMOTE_USER", "")  # the client behind trusted proxies
    if not (type(peer) is type(user) is str):
        peer, user = _plain_text(peer) or "", _plain_text(user) or ""
    if facts is NO_FACTS:
        add(peer, user, line, status, size, referer, agent)
    else:
        add(peer, user, line, status, size, referer, agent, facts)


def values_of(
    named: tuple[Named, ...],
    fields: Callable[[], Mapping[str, str]],
    environ: dict[str, Any],
    text: str,
    length: int | None,
) -> tuple[str | None, ...]:
    """The values that a format asks for: of the request's ``fields``, of the answer, of the ``environ``.

    ``text`` has the answer's status line and ordinary fields, ``length`` is its Content-Length.
    """
    if not named:
        return ()
    of_request = fields() if any(kind == "i" for kind, _ in named) else {}
    of_answer = _fields_of(text, length) if any(kind == "o" for kind, _ in named) else {}
    found = {"i": of_request, "o": of_answer, "e": environ}
    return tuple(_plain_text(found[kind].get(name)) for kind, name in named)


def facts_of(
    request_id: str,
    environ: dict[str, Any],
    whole_at: float | None,
    began: float,
    ended: float,
    values: tuple[str | None, ...],
) -> Facts:
    """The facts of an answer whose call has ``began`` and ``ended`` at these times; 0 where there was none.

    Times are CLOCK_MONOTONIC in seconds; ``whole_at`` is None where it is not known when the request was whole.
    """
    waited = called = None
    if began:
        called = max(0.0, ended - began)
        waited = None if whole_at is None else max(0.0, began - whole_at)
    return Facts(request_id, _plain_text(environ.get("HTTP_HOST")) or "", whole_at, waited, called, values)


def _fields_of(text: str, length: int | None) -> dict[str, str]:
    """The fields of an answer by their names in lower case; of several lines of one name all values."""
    found: dict[str, str] = {} if length is None else {"content-length": str(length)}
    for each in text.split("\r\n")[1:]:
        name, _, value = each.partition(": ")
        name = name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _plain_text(value: object) -> str | None:
    """``value`` as text where it is one, or a number: an object of the application's own is not asked what it is."""
    if isinstance(value, str):
        return str.__str__(value)
    try:
        return str(value) if type(value) in (int, float, bool) else None
    except ValueError:  # sys.set_int_max_str_digits()
        return None
