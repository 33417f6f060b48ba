"""Events to the journal in its native protocol, with fields of their own; where standard error is the journal's stream.

An event is one entry, its details in the message with it. What cannot be sent so, at once, goes to the stream as text.

Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/, systemd.journal-fields(7); unix(7).
"""

from __future__ import annotations

from typing import Final

from forkserver.linux.common.escaping import printable
from forkserver.logs.daemon_socket import DatagramSocket
from forkserver.logs.error_format import PRIORITIES, LogEvent, numbers_of

SOCKET: Final = "/run/systemd/journal/socket"
IDENTIFIER: Final = "forkserver"  # what the stream has by default: the name of the program
_NAMES: Final = {"worker": "FORKSERVER_WORKER", "gen": "FORKSERVER_GENERATION"}


class JournalSocket(DatagramSocket):
    """The journal's socket at ``path``. Raises OSError where it cannot be reached."""

    def takes(self, event: LogEvent) -> bool:
        """Send ``event``; whether the journal has taken it."""
        try:
            self.send(entry(event))
        except OSError:  # full, too long, or not there: the stream gets it, and says what it loses
            return False
        return True


def entry(event: LogEvent) -> bytes:
    """``event`` as an entry of the journal."""
    message = f"{event.process} {printable(event.message)}"
    for line in event.details.splitlines():
        message += f"\n  {printable(line)}"
    fields = {
        "PRIORITY": PRIORITIES[event.level][1],
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "FORKSERVER_PROCESS": event.process.partition(" ")[0].partition("=")[0],
        **{_NAMES[name]: number for name, number in numbers_of(event.process)},
    }
    if event.request_id:
        fields["FORKSERVER_REQUEST_ID"] = printable(event.request_id)
    if event.about is not None:
        request, _, client, seconds = event.about
        fields |= {"FORKSERVER_REQUEST": printable(request), "FORKSERVER_SECONDS": f"{seconds:.3f}"}
        fields |= {"FORKSERVER_CLIENT": printable(client)} if client else {}
    text = message.encode("utf-8", "backslashreplace")
    # With its length before it, a value may have line feeds.
    found = b"MESSAGE\n" + len(text).to_bytes(8, "little") + text + b"\n"
    return found + "".join(f"{name}={value}\n" for name, value in fields.items()).encode("utf-8", "backslashreplace")
