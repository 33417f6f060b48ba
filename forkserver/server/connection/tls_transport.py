"""A socket that speaks TLS: the handshake, and bytes sealed and opened between connection and socket.

Neither a handshake nor a record is waited for: ``recv`` raises BlockingIOError until plain bytes are whole. OpenSSL
reads and writes memory (ssl.MemoryBIO) and never the socket: what is sealed is bytes as any other, which ``Transport``
sends at once, keeps, spools and drains, and an answer of several records goes out in one call. Everything that was read
is opened at once, because epoll cannot see what OpenSSL holds back. An answer that is cut off ends without
close_notify, so that the client can tell.

That memory never shrinks: a connection keeps a third more than the most that ever stood in it, also while it is idle.
So what is sealed is taken out after each record, and what was read is put in by pieces, each opened before the next.

Source: the stdlib's page on ssl, "Memory BIO Support"; RFC 8446 section 6.1.
"""

from __future__ import annotations

import os
import socket
import ssl
from io import FileIO
from typing import Final

from forkserver.http1.in_the_clear import HANDSHAKE, PlaintextError
from forkserver.server.buffers.send_buffer import FilePart, SendBuffer, SpoolPart
from forkserver.server.connection.protocols import UNKNOWN, ConnectionLoop
from forkserver.server.connection.transport import Transport, TransportOwner
from forkserver.server.proxy.client_address import variables
from forkserver.server.wsgi.response_sink import ClientGoneError

_READ_BYTES: Final = 16 * 1024  # of one read while the handshake lasts
# Plain, at most (RFC 8446 section 5.1): one read of OpenSSL's gives so much. As much is sealed before it is taken out,
# which leaves 22 KiB in OpenSSL's memory; 64 KiB would leave 86, and spare 3 % of the CPU of sending 250 kB.
_RECORD_BYTES: Final = 16 * 1024
# Of what was read, put in at once. With pieces of a record, which would leave 22 KiB in place of 43, opening an upload
# takes a fifth more CPU: each piece ends within a record, and OpenSSL says by an exception that it wants the rest.
_PIECE_BYTES: Final = 2 * _RECORD_BYTES
_SEAL_BYTES: Final = 256 * 1024  # sealed at once: what the client does not take is not to stand twice in memory
_FILE_BYTES: Final = 64 * 1024  # of a file, sealed at once
# One read from the socket, all of which is opened at once: with small records a few hundred. A record of one byte
# takes 22 more, and costs as much as one of 1 KiB.
_LEAST_READ_BYTES: Final = 4 * 1024
_MOST_READ_BYTES: Final = 64 * 1024
_LARGE_RECORD_BYTES: Final = 1024  # on average, plain


class TlsTransport(Transport):
    """As Transport, for TLS by ``context``, from the handshake to the close_notify."""

    __slots__ = ("_begun", "_incoming", "_most_bytes", "_notify", "_outgoing", "_receive", "_tls", "greeting_bytes",
                 "in_the_clear")  # fmt: skip
    seals = True
    websocket_obstacle = "this listener speaks TLS itself; end TLS at a proxy and pass WebSocket on in plain HTTP"

    def __init__(
        self, loop: ConnectionLoop, sock: socket.socket, owner: TransportOwner, context: ssl.SSLContext
    ) -> None:
        super().__init__(loop, sock, owner)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._receive = sock.recv
        self.recv = self._shake
        self._begun = self.in_the_clear = False
        self.greeting_bytes = 0
        self._notify = False  # a close_notify is due before the end
        self._most_bytes = _READ_BYTES  # of the next read from the socket
        self.facts = None if loop.plain is None else UNKNOWN

    # The handshake

    @property
    def shaking(self) -> bool:
        """Whether the client has begun it, and it is not complete."""
        return self._begun and self.recv == self._shake

    def _shake(self, _size: int) -> bytes:
        """Go on with the handshake: as socket.recv, which has nothing until it is complete. Raises PlaintextError."""
        data = self._receive(_READ_BYTES)
        if not data:
            return data
        if self._owner is not None:
            self._owner.stays = True  # its keys are made here
        if not self._begun and data[0] != HANDSHAKE:
            self.in_the_clear = True
            self.recv = self._receive
            raise PlaintextError(data)
        self._begun = True
        self.greeting_bytes += len(data)
        self._incoming.write(data)
        self._go_on_shaking()
        return self._open_first()

    def _go_on_shaking(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send_sealed()
            raise BlockingIOError from None
        except OSError as error:  # SSLError is one
            if self._owner is not None:
                self._loop.context.log.debug(f"no TLS with {self._owner.peer[0]}: {error}")
            self._send_sealed()  # OpenSSL's alert
            raise ConnectionResetError from error
        self._notify = True
        self.recv = self._opened
        self.extra = variables(self._tls)

    def _open_first(self) -> bytes:
        """What has come with the end of the handshake wakes no thread any more: it is read now.

        With a request there, OpenSSL's own last words (tickets) go out with the answer.
        """
        parts: list[bytes] = []
        if not self._open(parts):
            self._send_sealed()
            raise BlockingIOError
        return b"".join(parts)

    # Reading

    def _opened(self, size: int) -> bytes:
        """As socket.recv: b"" at the end, BlockingIOError where nothing is whole yet."""
        data = self._receive(min(size, self._most_bytes))
        if not data:
            return data
        if self._owner is not None:
            self._owner.note_received(len(data))  # as it came: sealed
        parts: list[bytes] = []
        if len(data) <= _PIECE_BYTES:
            some = self._open_piece(data, parts)
        else:
            view, some = memoryview(data), False
            for at in range(0, len(data), _PIECE_BYTES):
                some = self._open_piece(view[at : at + _PIECE_BYTES], parts)
                if self._incoming.pending:  # behind a close_notify: none of it counts
                    break
        # Where none was whole, a record may have more than was read.
        large = sum(map(len, parts)) >= len(parts) * _LARGE_RECORD_BYTES
        self._most_bytes = min(2 * self._most_bytes, _MOST_READ_BYTES) if large else _LEAST_READ_BYTES
        if not some:
            raise BlockingIOError
        return b"".join(parts)

    def _open_piece(self, piece: bytes | memoryview, parts: list[bytes]) -> bool:
        """As ``_open``, with ``piece`` behind what has come before."""
        self._incoming.write(piece)
        some = self._open(parts)
        if self._outgoing.pending:
            self._send_sealed()  # OpenSSL's own answer, to new keys for example
        return some

    def _open(self, parts: list[bytes]) -> bool:
        """Add everything that has come whole to ``parts``: what OpenSSL held back would wake no thread.

        Whether there are some, or the client has ended. Raises OSError.
        """
        tls, incoming = self._tls, self._incoming
        try:
            while part := tls.read(_RECORD_BYTES):
                parts.append(part)
                if not incoming.pending and not tls.pending():
                    break
        except ssl.SSLWantReadError:
            return bool(parts)
        return True

    # Sending

    def send(self, data: bytes, body: bytes = b"") -> None:
        """As Transport does it, sealed."""
        if self.in_the_clear:
            super().send(data, body)
            return
        if len(body) <= _SEAL_BYTES:
            self._send_records(self._seal(data, body))
            return
        view, at = memoryview(body), _SEAL_BYTES
        try:
            self._send_records(self._seal(data, view[:at]))
            while at < len(body):
                begun, at = at, at + _SEAL_BYTES
                self._send_records(self._seal(view[begun:at]))
        except ClientGoneError as gone:
            gone.unsent += len(view[at:])
            raise

    def _send_records(self, records: list[bytes]) -> None:
        """As Transport.send: together, without a copy where the kernel takes them all."""
        if len(records) == 1 or self.out:
            super().send(b"".join(records))
            return
        size = sum(map(len, records))
        try:
            sent = self.sock.sendmsg(records)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ClientGoneError(size) from error
        if sent != size:
            self._keep(memoryview(b"".join(records))[sent:])

    def send_whole(self, data: bytes, body: bytes = b"") -> bytes | None:
        """Send a whole answer: what of it, sealed, the kernel has not taken; None where the client has gone."""
        sent = 0
        try:
            records = self._seal(data, body)
            if self.out:
                self.flush()
            if not self.out:
                sent = self._send(records[0]) if len(records) == 1 else self.sock.sendmsg(records)
        except BlockingIOError:
            pass
        except (ClientGoneError, OSError):
            return None
        if len(records) > 1 and sent == sum(map(len, records)):
            return b""
        return b"".join(records)[sent:]

    def _seal(self, data: bytes | memoryview, body: bytes | memoryview = b"") -> list[bytes]:
        """The records of ``data`` and ``body`` together. Raises ClientGoneError where nothing more can be said."""
        write, take, records = self._tls.write, self._outgoing.read, []
        parts: tuple[bytes | memoryview, ...] = (data,)
        if body:
            end = -len(data) % _RECORD_BYTES  # what the last record of ``data`` has room for
            parts = b"".join((data, body[:end])), memoryview(body)[end:]
        try:
            for part in parts:
                rest, size, at = part if len(part) <= _RECORD_BYTES else memoryview(part), len(part), 0
                while at < size:
                    at += write(rest[at : at + _RECORD_BYTES])
                    records.append(take())
        except OSError as error:
            raise ClientGoneError(len(data) + len(body)) from error
        return records

    def _send_sealed(self) -> None:
        """Send what OpenSSL has to say. Raises ConnectionResetError where the client has gone."""
        try:
            super().send(self._outgoing.read())
        except ClientGoneError:
            raise ConnectionResetError from None

    def send_now(self, data: bytes) -> None:
        """As Transport does it, sealed."""
        self._tls.write(data)
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
        sealed = b"".join(self._seal(data))
        out.advance(len(data))
        out.put_first(sealed)
        return out.parts[0]

    # The end

    def close_notify(self) -> None:
        """Send close_notify, once: without it no client can tell an end from an interruption."""
        if not self._notify:
            return
        self._notify = False
        try:
            self._tls.unwrap()
        except OSError:  # it waits for the client's own, which we do not
            pass
        try:
            self._send(self._outgoing.read())
        except OSError:  # a client that has gone, or takes nothing, does not hear it
            pass

    def omit_close_notify(self) -> None:
        """The answer is cut off: it must not end as a whole one does."""
        self._notify = False

    def close(self) -> None:
        """Let go of the socket, and of the references in a circle."""
        super().close()
        self.recv = self._receive
        self.facts = None
