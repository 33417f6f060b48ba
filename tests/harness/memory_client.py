"""A client that speaks TLS by memory, beside a connection on a fake socket, and what that memory ever held."""

from __future__ import annotations

import ssl
from typing import Any

from harness import credentials
from harness.fakes import FakeListener, FakeLoop, FakeSocket

GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"


class Client:
    """A client that speaks TLS by memory, and the worker's connection of it."""

    def __init__(
        self, tls: ssl.SSLContext, loop: FakeLoop | None = None, context: ssl.SSLContext | None = None
    ) -> None:
        self.loop = loop or FakeLoop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = credentials.client().wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.sock = FakeSocket()
        self._read = 0
        self.connection = self.loop.connect(sock=self.sock, listener=listener(tls))

    def pump(self, *, deliver: bool = True) -> bytes:
        """Bring what each side has said to the other; the client's bytes only if they are to be delivered."""
        said = self._outgoing.read()
        if deliver and said:
            self.loop.send(self.connection, said)
        self._incoming.write(bytes(self.sock.sent[self._read :]))
        self._read = len(self.sock.sent)
        return said

    def shake(self) -> None:
        """Go through the whole handshake."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.pump()
            else:
                self.pump()
                return

    def ask(self, data: bytes = GET) -> bytes:
        """What is answered to ``data``."""
        self.tls.write(data)
        self.pump()
        self.loop.serve()
        return self.read()

    def read(self) -> bytes:
        self.pump()
        data = b""
        try:
            while piece := self.tls.read(1 << 20):
                data += piece
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return data

    def upload(self, body: bytes, step: int) -> bytes:
        """What is answered to ``body``, of which ``step`` sealed bytes come at a time."""
        self.tls.write(b"POST /path HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        self.tls.write(body)
        said = self._outgoing.read()
        for at in range(0, len(said), step):
            self.loop.send(self.connection, said[at : at + step])
            while self.sock.incoming:
                self.loop.send(self.connection, b"")
        self.loop.serve()
        return self.read()

    def has_end(self) -> bool:
        """Whether the connection has ended with close_notify."""
        self.pump(deliver=False)
        try:
            return self.tls.read(1) == b""
        except ssl.SSLZeroReturnError:
            return True
        except (ssl.SSLWantReadError, ssl.SSLEOFError):
            return False


class SealedMemory:
    """Stands between a transport and OpenSSL's memory, and notes the most that ever was in each part of it."""

    def __init__(self, transport: Any) -> None:
        self._memory, transport._incoming = transport._incoming, self
        transport._tls = self.tls = WatchedTls(transport._tls, transport._outgoing)
        self.most = 0

    @property
    def pending(self) -> int:
        return int(self._memory.pending)

    def write(self, data: bytes | memoryview) -> int:
        written = self._memory.write(data)
        self.most = max(self.most, self.pending)
        return int(written)


class WatchedTls:
    """OpenSSL's side of a connection, which puts what it seals into ``outgoing``."""

    def __init__(self, tls: ssl.SSLObject, outgoing: ssl.MemoryBIO) -> None:
        self._tls, self._outgoing = tls, outgoing
        self.pending, self.unwrap = tls.pending, tls.unwrap
        self.most = 0

    def write(self, data: bytes | memoryview) -> int:
        written = self._tls.write(data)
        self.most = max(self.most, self._outgoing.pending)
        return written

    def read(self, size: int) -> bytes:
        try:
            return self._tls.read(size)
        finally:
            self.most = max(self.most, self._outgoing.pending)


def listener(tls: ssl.SSLContext) -> Any:
    made = FakeListener()
    made.tls = tls
    return made
