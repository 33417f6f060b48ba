"""One client connection that speaks TLS: the handshake, and bytes sealed and opened between the loop and the socket.

It promises that neither a handshake nor a record is waited for, that nothing is left unread where epoll cannot see it,
and that an answer which is cut off does not end as a whole one does. It refuses to know certificates.

OpenSSL reads and writes memory here, and never the socket: what is sealed is bytes as any other, sent at once, kept,
spooled and drained by ``Sending``, and an answer of several records goes out in one call.

Source: the stdlib's page on ssl, "Memory BIO Support"; RFC 8446 section 6.1.
"""

from __future__ import annotations

import os
import socket
import ssl
from io import FileIO
from typing import TYPE_CHECKING, Any, Final

from forkserver.errors import ProtocolError
from forkserver.http1 import response as wire
from forkserver.server.buffers.send_buffer import FilePart, SendBuffer, SpoolPart
from forkserver.server.connection.connection import BODY, CLOSED, CONTINUE, READING, READY, Connection
from forkserver.server.connection.transport import JOIN_BYTES
from forkserver.server.handoff.queue import Handoff
from forkserver.server.proxy.client_address import variables
from forkserver.server.wsgi.sink import ClientGoneError

if TYPE_CHECKING:
    from forkserver.server.loop.acceptor import Listener
    from forkserver.server.loop.event_loop import Loop

_READ_BYTES: Final = 16 * 1024  # of one read while the handshake lasts
_OPEN_BYTES: Final = 64 * 1024  # of one read from OpenSSL
_SEAL_BYTES: Final = 256 * 1024  # sealed at once: what the client does not take is not to stand twice in memory
_FILE_BYTES: Final = 64 * 1024  # of a file, sealed at once
# One read from the socket, all of which is opened at once: with small records a few hundred. A record of one byte
# takes 22 more, and costs as much as one of 1 KiB.
_LEAST_READ_BYTES: Final = 4 * 1024
_MOST_READ_BYTES: Final = 64 * 1024
_LARGE_RECORD_BYTES: Final = 1024  # on average, plain
HANDSHAKE: Final = 0x16  # how the first record begins: RFC 8446 section 5.1
IN_THE_CLEAR: Final = "no TLS on an address that speaks it"
HINT: Final = "This address speaks HTTPS: write https:// in front of it."


class TlsConnection(Connection):
    """A connection in TLS, from the handshake to the close_notify. Nobody can hand on its keys: it stays here."""

    __slots__ = (
        "_begun",
        "_greeting_bytes",
        "_incoming",
        "_most_bytes",
        "_outgoing",
        "_polite",
        "_receive",
        "_shaken",
        "_tls",
    )

    def __init__(self, loop: Loop, sock: socket.socket, peer: tuple[Any, ...], listener: Listener) -> None:
        super().__init__(loop, sock, peer, listener)
        assert listener.tls is not None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = listener.tls.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._receive = sock.recv
        self._recv = self._opened
        self._begun = self._shaken = False
        self._greeting_bytes = 0  # of the client's part of the handshake
        self._polite = False  # a close_notify is due before the end
        self._most_bytes = _READ_BYTES  # of the next read from the socket
        self.stays = True

    # The handshake

    def readable(self, event: int = 0) -> None:
        """Read what has come, and do what it makes possible."""
        if self._shaken:
            super().readable(event)
        else:
            self._shake()

    def _shake(self) -> None:
        try:
            data = self._receive(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        elif not self._begun and data[0] != HANDSHAKE:
            self._answer_in_the_clear(data)
        else:
            self._begun = True
            self._greeting_bytes += len(data)
            self._incoming.write(data)
            self._go_on_shaking()

    def _go_on_shaking(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send_sealed()
            return
        except OSError as error:  # SSLError is one
            self.loop.log.debug(f"no TLS with {self.peer[0]}: {error}")
            if self._send_sealed():  # OpenSSL's alert
                self.close()
            return
        self._shaken = self._polite = True
        self.extra = variables(self._tls)
        self._begin()

    def _begin(self) -> None:
        """What has come with the end of the handshake wakes nobody any more: read it now.

        With a request there, OpenSSL's own last words (tickets) go out with the answer.
        """
        try:
            data = self._open()
        except BlockingIOError:
            self._send_sealed()
            return
        except OSError:
            data = b""
        if data:
            self.receive(data)
        else:
            self.close()

    def _answer_in_the_clear(self, data: bytes) -> None:
        """Somebody speaks HTTP to an HTTPS port."""
        self._shaken = True
        self._recv = self._receive
        self.buffer = data
        self.refuse(ProtocolError(400, IN_THE_CLEAR))

    @property
    def _clear(self) -> bool:
        return self._shaken and not self._begun

    def _send_error(self, status: int) -> int:
        return self._send_in_the_clear(self._error(status, HINT)) if self._clear else super()._send_error(status)

    def _send_documented_error(self, error: ProtocolError) -> int:
        if self._clear:
            return self._send_in_the_clear(self._documented_error(error, HINT))
        return super()._send_documented_error(error)

    def _send_in_the_clear(self, answer: bytes) -> int:
        super().send(answer)
        return wire.body_size(answer)

    # Reading

    @property
    def head_bytes(self) -> int:
        """As of a plain connection, and the handshake."""
        return len(self.buffer) + self._greeting_bytes

    def _opened(self, size: int) -> bytes:
        """As socket.recv: b"" at the end, BlockingIOError where nothing is whole yet."""
        data = self._receive(min(size, self._most_bytes))
        if not data:
            return data
        super()._note_body(len(data))
        self._incoming.write(data)
        plain = None
        try:
            plain = self._open()
        except BlockingIOError:
            pass  # raised again when OpenSSL's own answer, to new keys for example, is out
        if self._outgoing.pending and not self._send_sealed():
            raise ConnectionResetError
        if plain is None:
            raise BlockingIOError
        return plain

    def _note_body(self, count: int) -> None:
        """What came is counted as it came: sealed."""

    def _open(self) -> bytes:
        """Everything that has come whole: what OpenSSL held back would wake nobody. Raises OSError."""
        tls, incoming, parts = self._tls, self._incoming, []
        try:
            while part := tls.read(_OPEN_BYTES):
                parts.append(part)
                if not incoming.pending and not tls.pending():
                    break
        except ssl.SSLWantReadError:
            if not parts:
                self._most_bytes = min(2 * self._most_bytes, _MOST_READ_BYTES)  # a record may have more than was read
                raise BlockingIOError from None
        large = sum(map(len, parts)) >= len(parts) * _LARGE_RECORD_BYTES
        self._most_bytes = min(2 * self._most_bytes, _MOST_READ_BYTES) if large else _LEAST_READ_BYTES
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # Sending

    def send(self, data: bytes, body: bytes = b"") -> None:
        """As a plain connection does it, sealed."""
        if len(body) <= JOIN_BYTES:
            super().send(self._seal(data + body))
            return
        view, at = memoryview(body), _SEAL_BYTES
        try:
            super().send(self._seal(data + body[:at]))
            while at < len(body):
                begun, at = at, at + _SEAL_BYTES
                super().send(self._seal(view[begun:at]))
        except ClientGoneError as gone:
            gone.unsent += len(view[at:])
            raise

    def _seal(self, data: bytes | memoryview) -> bytes:
        """Raises ClientGoneError where nothing more can be said."""
        write = self._tls.write
        try:
            at = write(data)
            while at < len(data):  # a record at a time
                at += write(memoryview(data)[at:])
        except OSError as error:
            raise ClientGoneError(len(data)) from error
        return self._outgoing.read()

    def _send_sealed(self) -> bool:
        """Send what OpenSSL has to say; False where the client has gone."""
        try:
            super().send(self._outgoing.read())
        except ClientGoneError:
            self.close()
            return False
        if self.out and self.state in (READING, BODY):
            self.loop.watch_writing(self)
        return True

    def invite(self) -> None:
        """Ask for the body."""
        self._tls.write(CONTINUE)
        self._send_sealed()

    def _takes(self, _file: FileIO, _offset: int) -> bool:
        """Any file: it is read, and sealed, by ``_next_part``."""
        return True

    def _next_part(self, out: SendBuffer) -> memoryview | FilePart:
        part = out.parts[0]
        if not isinstance(part, FilePart) or isinstance(part, SpoolPart):  # what is in the spool is sealed
            return part
        data = os.pread(part.fd, min(part.count, _FILE_BYTES), part.offset)
        if not data:
            raise ClientGoneError from EOFError("the file became shorter while it was sent")
        sealed = self._seal(data)
        out.advance(len(data))
        out.put_first(sealed)
        return out.parts[0]

    def writable(self, event: int = 0) -> None:
        """Go on sending what the client had not taken."""
        if self.state not in (READING, BODY, READY):
            super().writable(event)
            return
        try:  # what OpenSSL has said by itself, before there is an answer
            self.flush()
        except ClientGoneError:
            self.close()
            return
        if not self.out:
            self.loop.watch_reading(self)

    # The end

    def socket_obstacle(self) -> str | None:
        """The socket carries what only OpenSSL can read."""
        return "this listener speaks TLS itself; end TLS at a proxy and pass WebSocket on in plain HTTP"

    def give(self, handoff: Handoff, data: bytes, since: float) -> bool:
        """It cannot be handed on."""
        return False

    def _finish(self) -> None:
        """Close after a whole answer; a farewell of the client's that lies unread would make a reset of it."""
        if self.has_more():
            self.linger()
        else:
            super()._finish()

    def linger(self) -> None:
        """Say that nothing more comes, and read the client's rest for a bounded time."""
        self._take_leave()
        super().linger()

    def reset(self) -> None:
        """Close so that the client can tell: without a close_notify, too."""
        self._polite = False
        super().reset()

    def close(self) -> None:
        """Give everything back, with a word of farewell where no answer is cut off by it."""
        if self.state == CLOSED:
            return
        if not self.out and self.response is None:
            self._take_leave()
        super().close()
        self._recv = self._receive  # the method would hold us, who hold it

    def _take_leave(self) -> None:
        """Send close_notify, once: without it nobody can tell an end from an interruption."""
        if not self._polite:
            return
        self._polite = False
        try:
            self._tls.unwrap()
        except OSError:  # it waits for the client's own farewell, which we do not
            pass
        try:
            self._send(self._outgoing.read())
        except OSError:  # who has gone, or takes nothing, does not hear it
            pass
