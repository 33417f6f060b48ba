"""A real HAProxy and a real nginx in front of a program, and clients of theirs with addresses of their own."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness import BOUND, credentials, needs, proxies
from harness.credentials import Files
from harness.program import Program, listener

CLIENT = "127.9.9.9"
FORGED = (
    "X-Forwarded-For: 203.0.113.66\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n"
    'Forwarded: for=203.0.113.66;proto=https;host=evil\r\nForwarded: for="\r\nX_Forwarded_For: 203.0.113.66\r\n'
)
FIELDS = {f"HTTP_{name}" for name in ("FORWARDED", *map("X_FORWARDED_{}".format, ("FOR", "PROTO", "HOST", "PORT")))}
TRUST = ("--forwarded-allow-ips", "127.0.0.1")
PROXY = (*TRUST, "--proxy-protocol", "on", "--proxy-allow-ips", "127.0.0.1")

HAPROXY = """
defaults
    timeout connect 10s
    timeout client 10s
    timeout server 10s
frontend front
    mode {mode}
    bind fd@{front}{accepts}
    default_backend back
backend back
    mode {mode}
    {rules}
    server program {program} {how}
"""
SITE = """
server {{
    listen {front}{accepts};
    {certificate}
    location / {{
        proxy_pass {scheme}://{program};
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        {rules}
    }}
}}
"""


def ask(
    address: Any, *, headers: str = FORGED, tls: ssl.SSLContext | None = None, before: bytes = b"", source: str = CLIENT
) -> dict[str, Any]:
    """The environ of a request from ``source``, which says ``before`` first."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection(address, BOUND, (source, 0)))
        plain.sendall(before)
        if tls is not None:
            plain = stack.enter_context(tls.wrap_socket(plain, server_hostname="localhost"))
        plain.sendall(f"GET /environ HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{headers}\r\n".encode())
        came = b""
        while data := plain.recv(65536):
            came += data
    head, _, body = came.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), came
    if b"chunked" in head:
        body = b"".join(part for part in body.split(b"\r\n")[1::2])
    return dict(json.loads(body))


def seen(environ: dict[str, Any]) -> tuple[str, str]:
    return environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]


def files_of_both(folder: Path) -> Files:
    """A certificate and its key in ``folder``, and both in ``both.pem``, from which HAProxy reads them."""
    made = credentials.write(folder)
    (folder / "both.pem").write_text(Path(made.certificate).read_text() + Path(made.key).read_text())
    return made


Front = Callable[..., tuple[str, int]]


class At(NamedTuple):
    """Where a proxy finds what it is in front of: a program, or another proxy."""

    address: tuple[str, int]


def haproxy_fronts(tmp_path: Path) -> Iterator[Front]:
    """Start HAProxy in front of a program, on a listener that it inherits; returns where."""
    server = needs.program("haproxy")
    with contextlib.ExitStack() as stack:

        def start(
            behind: Program | At, mode: str, how: str = "", rules: str = "", accepts: str = ""
        ) -> tuple[str, int]:
            made = stack.enter_context(listener())
            text = HAPROXY.format(
                mode=mode, front=made.fileno(), accepts=accepts, rules=rules, how=how,
                program="{}:{}".format(*behind.address),
            )  # fmt: skip
            (tmp_path / "haproxy.cfg").write_text(text)
            stack.enter_context(proxies.running([server, "-db", "-f", str(tmp_path / "haproxy.cfg")], made.fileno()))
            return made.getsockname()

        yield start


def nginx_fronts(tmp_path: Path) -> Iterator[Front]:
    """Start nginx in front of a program."""
    with contextlib.ExitStack() as stack:

        def start(behind: Program, rules: str, scheme: str = "http", files: Files | None = None) -> tuple[str, int]:
            made = stack.enter_context(listener())
            site = SITE.format(
                rules=rules, scheme=scheme, front="{}:{}".format(*made.getsockname()),
                program="{}:{}".format(*behind.address),
                accepts=" ssl" if files else "",
                certificate=f"ssl_certificate {files.certificate}; ssl_certificate_key {files.key};" if files else "",
            )  # fmt: skip
            stack.enter_context(proxies.nginx(tmp_path, site, made.fileno()))
            return made.getsockname()

        yield start
