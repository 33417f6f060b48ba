"""A client that speaks TLS beside a worker in the same thread: it waits for nothing."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

from harness import credentials


class SealedClient:
    """Speaks TLS on ``plain``, a connected socket that does not block; ``turn`` lets the worker go on.

    ``recv`` gives b"" after close_notify alone, so that a test can tell an end from an interruption.
    """

    def __init__(self, plain: socket.socket, turn: Callable[[], object], context: ssl.SSLContext | None = None) -> None:
        self.plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        made = context or credentials.client()
        self.tls = made.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        while True:
            try:
                self.tls.do_handshake()
                return  # the end of our part goes out with the first request
            except ssl.SSLWantReadError:
                self.push()
                turn()
                self._pull()

    def push(self) -> None:
        """Send what OpenSSL has to say."""
        self.plain.sendall(self._outgoing.read())

    def _pull(self) -> None:
        """Take what has come; an end is met when all before it was read."""
        try:
            while piece := self.plain.recv(1 << 20):
                self._incoming.write(piece)
            self._incoming.write_eof()
        except BlockingIOError:
            pass
        except ConnectionError:  # a reset
            self._incoming.write_eof()

    def sendall(self, data: bytes) -> None:
        """Seal and send."""
        self.tls.write(data)
        self.push()

    def recv(self, size: int) -> bytes:
        """As a socket's that does not block. Raises OSError at an end without close_notify."""
        self._pull()
        try:
            return self.tls.read(size)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLZeroReturnError:
            return b""

    def shutdown(self, how: int) -> None:
        """Nothing more is sent."""
        self.plain.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self.plain.close()
