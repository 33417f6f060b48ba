"""The id of a request: the one that a trusted proxy has given it, else one made here.

A proxy's id is taken from the first of the fields that ``request_id_from`` names which holds one: up to ``MOST_CHARS``
letters, digits and ``-._~:=+/@;``, so that it stands unquoted in a log, a header and a shell. Of ``traceparent`` it is
the trace id. Anything else, and whatever another peer sends, is left to the application: the request gets one of ours.

Ours is a UUID of version 7: milliseconds since 1970, then a counter, then 62 bits that were drawn for the process. So
ids sort by time. They cost no system call, and can be guessed from one another: they are names, not secrets.

Source: RFC 9562 sections 5.7 and 6.2; W3C Trace Context, section 3.2 "Traceparent Header".
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from forkserver.linux.syscalls import wall_time
from forkserver.server.proxy.client_address import sender
from forkserver.server.proxy.forwarded_headers import TrustedProxies

_DIGIT: Final = [f"{number:x}" for number in range(16)]  # a look into a list takes a third of a format's time
_DIGITS: Final = [f"{number:02x}" for number in range(256)]
VARIABLE: Final = "forkserver.request_id"  # in the environ
MOST_CHARS: Final = 64
_ID: Final = re.compile(rf"[0-9A-Za-z\-._~:=+/@;]{{1,{MOST_CHARS}}}")
_TRACE: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class RequestIds:
    """Names each request. ``fields`` are those in which the peers of ``trust`` give an id, in lower case.

    ``clock`` gives seconds since 1970. Safe to use from several threads.
    """

    def __init__(
        self, trust: TrustedProxies | None, fields: Iterable[str] = (), clock: Callable[[], float] = wall_time
    ) -> None:
        self._trust = trust
        self._readers = {f"HTTP_{name.upper().replace('-', '_')}": _READERS.get(name, proxys_id) for name in fields}
        self._keys = tuple(self._readers)
        self._clock = clock
        self.reseed()

    def reseed(self) -> None:
        """Draw anew what is random, in a forked child: else it would make the ids of its parent again."""
        drawn = int.from_bytes(os.urandom(10), "big") & (1 << 62) - 1 | 1 << 63
        variant, node = f"{drawn >> 48:04x}", f"{drawn & (1 << 48) - 1:012x}"
        self._ending = f"-{variant}-{node}"
        self._count = itertools.count(int.from_bytes(os.urandom(2), "big"))
        self._beginning = 0, ""  # of the ids of this millisecond

    def of(self, fields: Mapping[str, str], peer: tuple[Any, ...]) -> str:
        """The id of the request that came from ``peer`` with the header ``fields``, by their names in an environ."""
        for key in self._keys:
            if key in fields and (found := self._proxys(fields, peer)):
                return found
        now = int(self._clock() * 1000)
        at, beginning = self._beginning
        if at != now:
            if now < at:
                self.reseed()  # the clock was set back: the same times come again
            text = hex(now & (1 << 48) - 1 | 1 << 48)
            beginning = f"{text[3:11]}-{text[11:]}-7"
            self._beginning = now, beginning  # at once: other threads look here
        count = next(self._count)
        return f"{beginning}{_DIGIT[count >> 8 & 15]}{_DIGITS[count & 255]}{self._ending}"

    def _proxys(self, fields: Mapping[str, str], peer: tuple[Any, ...]) -> str | None:
        """The id that a trusted proxy gives."""
        host = sender(peer)
        if self._trust is None or host is None or not self._trust.trusts(host):
            return None
        found = (reader(fields[key]) for key, reader in self._readers.items() if key in fields)
        return next(filter(None, found), None)


def proxys_id(text: str) -> str | None:
    """``text`` where it can be an id; else None."""
    return text if _ID.fullmatch(text) else None


def trace_id(traceparent: str) -> str | None:
    """The trace id in a ``traceparent`` field; None where it is not well-formed."""
    match = _TRACE.fullmatch(traceparent)
    if match is None or (match[2] is not None and traceparent.startswith("00")):  # only a later version may have more
        return None
    return match[1]


_READERS: Final = {"traceparent": trace_id}
