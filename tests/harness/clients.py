"""Clients that see the bytes: what was asked, what came back, and whether the connection lives on."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from typing import NamedTuple

from harness import BOUND

Address = tuple[str, int] | str  # a str is the path of a Unix socket


class Answer(NamedTuple):
    version: str
    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def last(self) -> bool:
        """Whether the server closes after this answer (RFC 9112 section 9.3)."""
        said = self.headers.get("Connection", "").lower()
        return "close" in said or (self.version == "HTTP/1.0" and "keep-alive" not in said)


class Wire:
    """One connection, a new one to ``address`` or the one that it is. Its context closes it."""

    def __init__(
        self, address: Address | socket.socket, tls: ssl.SSLContext | None = None, name: str = "localhost"
    ) -> None:
        self.socket = address if isinstance(address, socket.socket) else connect(address)
        if tls is not None:
            try:
                self.socket = tls.wrap_socket(self.socket, server_hostname=name, suppress_ragged_eofs=False)
            except BaseException:
                self.socket.close()
                raise
        self._bytes = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, target: str = "/", *, method: str = "GET", headers: str = "", body: bytes = b"") -> None:
        self.send(request(target, method=method, headers=headers, body=body))

    def get(self, target: str = "/", *, headers: str = "") -> Answer:
        self.ask(target, headers=headers)
        return self.answer()

    def head(self) -> Answer:
        """Read status line and headers of the next answer, and leave its body unread."""
        line = self._bytes.readline(65537)
        if not line:
            raise ConnectionResetError("the connection ended before an answer began")
        version, status, reason = line.decode("latin-1").rstrip("\r\n").split(" ", 2)  # the reason may be empty
        return Answer(version, int(status), reason, http.client.parse_headers(self._bytes), b"")

    def answer(self, *, to_head: bool = False) -> Answer:
        """Read the next answer whole. Interim (1xx) answers are passed over."""
        found = self.head()
        while found.status < 200:
            found = self.head()
        if to_head or found.status in (204, 304):
            return found
        return found._replace(body=self._body(found.headers))

    def _body(self, headers: http.client.HTTPMessage) -> bytes:
        if "chunked" in headers.get("Transfer-Encoding", ""):
            return self._chunks()
        if (length := headers.get("Content-Length")) is not None:
            return self.exactly(int(length))
        return self._bytes.read()

    def _chunks(self) -> bytes:
        whole = io.BytesIO()
        while size := int(self._bytes.readline().split(b";")[0], 16):
            whole.write(self.exactly(size))
            assert self._bytes.readline() == b"\r\n"
        while self._bytes.readline() not in (b"\r\n", b""):
            continue
        return whole.getvalue()

    def exactly(self, size: int) -> bytes:
        data = self._bytes.read(size)
        if len(data) != size:
            raise ConnectionResetError(f"{len(data)} of {size} bytes came")
        return data

    def count(self, size: int, block: int = 1 << 20) -> int:
        """Read ``size`` bytes and forget them; returns how many came before the end."""
        memory = memoryview(bytearray(block))
        came = 0
        while came < size and (got := self._bytes.readinto(memory[: min(block, size - came)])):
            came += got
        return came

    def ended(self) -> bool:
        """Whether the server has closed: waits for end-of-file, and is False where bytes come instead."""
        try:
            return self._bytes.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._bytes.close()
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(address: Address) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    made = socket.socket(family)
    made.settimeout(BOUND)
    try:
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def request(target: str = "/", *, method: str = "GET", headers: str = "", body: bytes = b"") -> bytes:
    """The bytes of a request as a client sends it; ``headers`` are whole lines, each ended by CRLF."""
    length = f"Content-Length: {len(body)}\r\n" if body or method in ("POST", "PUT") else ""
    return f"{method} {target} HTTP/1.1\r\nHost: test\r\n{length}{headers}\r\n".encode() + body


def get(address: Address, target: str = "/", tls: ssl.SSLContext | None = None) -> Answer:
    """One request on a connection of its own."""
    with Wire(address, tls) as wire:
        return wire.get(target, headers="Connection: close\r\n")
