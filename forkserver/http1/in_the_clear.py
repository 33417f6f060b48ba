"""HTTP that is spoken to an address of TLS: how it is told apart, and what is answered.

Source: RFC 8446 section 5.1.
"""

from __future__ import annotations

from typing import Final

from forkserver.errors import ProtocolError

HANDSHAKE: Final = 0x16  # how the first record of TLS begins
IN_THE_CLEAR: Final = "no TLS on an address that speaks it"
HINT: Final = "This address speaks HTTPS: write https:// in front of it."


class PlaintextError(ProtocolError):
    """A client speaks HTTP to an HTTPS port; ``data`` is what it has sent, and it is answered without TLS."""

    def __init__(self, data: bytes) -> None:
        super().__init__(400, IN_THE_CLEAR)
        self.data = data
