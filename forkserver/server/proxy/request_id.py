"""The id of a request: the one that a trusted proxy has given it, else one made here.

A proxy's id is taken from the first of the fields that ``request_id_from`` names which holds one: up to ``MOST_CHARS``
letters, digits and ``-._~:=+/@;``, so that it stands unquoted in a log, a header and a shell. Of ``traceparent`` it is
the trace id. Anything else, and whatever another peer sends, is left to the application: the request gets one of ours.

Ours is a UUID of version 7: milliseconds since 1970, then a counter, then 62 bits that were drawn for the process. So
ids sort by time. They cost no system call, and can be guessed from one another: they are names, not secrets.

Source: RFC 9562 sections 5.7 and 6.2; W3C Trace Context, section 3.2 "Traceparent Header".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, product, repeat
from typing import Any, Final

from forkserver.linux.syscalls import wall_time
from forkserver.server.proxy.client_address import sender
from forkserver.server.proxy.forwarded_headers import TrustedProxies

_DIGITS: Final = "0123456789abcdef"
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
        readers = {f"HTTP_{name.upper().replace('-', '_')}": _READERS.get(name, proxys_id) for name in fields}
        self._readers = tuple(readers.items()) if trust is not None else ()
        self._clock = clock
        self.reseed()

    def reseed(self) -> None:
        """Draw anew what is random, in a forked child: else it would make the ids of its parent again."""
        drawn = int.from_bytes(os.urandom(10), "big") & (1 << 62) - 1 | 1 << 63
        variant, node = f"{drawn >> 48:04x}", f"{drawn & (1 << 48) - 1:012x}"
        self._ending = f"-{variant}-{node}"
        self._counts = _counts(os.urandom(1)[0])
        self._beginning = 0.0, 0.0, ""  # of the ids of a millisecond: its start and its end, in seconds since 1970

    def of(self, fields: Mapping[str, str], peer: tuple[Any, ...]) -> str:
        """The id of the request that came from ``peer`` with the header ``fields``, by their names in an environ."""
        for key, reader in self._readers:
            if key in fields and (found := reader(fields[key])):
                if self._trusts(peer):
                    return found
                break
        now = self._clock()
        start, end, beginning = self._beginning
        if not start <= now < end:
            if now < start:
                self.reseed()  # the clock was set back: the same times come again
            beginning = self._begin(int(now * 1000))
        return beginning + next(self._counts) + self._ending

    def _begin(self, millisecond: int) -> str:
        """The beginning of the ids of this ``millisecond`` since 1970."""
        text = hex(millisecond & (1 << 48) - 1 | 1 << 48)
        beginning = f"{text[3:11]}-{text[11:]}-7"
        self._beginning = millisecond / 1000, (millisecond + 1) / 1000, beginning  # at once: other threads look here
        return beginning

    def _trusts(self, peer: tuple[Any, ...]) -> bool:
        """Whether ``peer`` may give an id."""
        host = sender(peer)
        return self._trust is not None and host is not None and self._trust.trusts(host)


def _counts(start: int) -> Iterator[str]:
    """Every three digits, again and again; ``start``, a byte, has the last two of the first.

    A step of it is a step of C, which no other thread comes between, and takes a third of the time of a format.
    """
    last = [f"{number & 255:02x}" for number in range(start, start + 256)]
    return map("".join, chain.from_iterable(map(product, repeat(_DIGITS), repeat(last))))


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
