"""What a thread of a worker is busy with, as the scoreboard shows it: one call of the application, or a hook."""

from __future__ import annotations

from typing import Final

from forkserver.linux.common.records import NamedTuple

NANO: Final = 1e-9


class Busy(NamedTuple):
    """A call of the application; times are CLOCK_MONOTONIC in ns, and a ``deadline`` of 0 is none of its own.

    ``since`` is also its name: no thread begins two calls in one nanosecond. A ``websocket`` lasts as long as it likes.
    ``line`` and ``request_id`` are printable ASCII; all of it is what the worker says.
    A call that ``awaits_client`` has more to send than can be kept: that time does not count. ``progress`` is when it
    last came on (it has yielded a block, or its client has taken some), 0 where it has not.
    """

    since: int
    line: str
    deadline: int
    websocket: bool = False
    awaits_client: bool = False
    request_id: str = ""
    progress: int = 0

    def seconds(self, now: float) -> float:
        """How long it has lasted at ``now`` (CLOCK_MONOTONIC in seconds); 0 where it says that it is to begin yet."""
        return max(0.0, now - self.since * NANO)

    def seconds_without_progress(self, now: float) -> float:
        """How long at ``now`` nothing has come of it: since it began, or came on."""
        return max(0.0, now - max(self.since, self.progress) * NANO)

    def told(self, seconds: str = "") -> str:
        """The request line with, in brackets, ``seconds`` in words and the request's id, as far as there are any."""
        facts = ", ".join(filter(None, (seconds, f"request {self.request_id}" if self.request_id else "")))
        return f"{self.line} ({facts})" if facts else self.line


def printable_ascii(line: bytes) -> str:
    """``line`` with everything but printable ASCII escaped: it is shown in logs and on terminals."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in line)
