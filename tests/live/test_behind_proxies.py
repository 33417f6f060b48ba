"""Behind a real HAProxy and a real nginx: the application sees the client and the scheme, and nobody forges them.

Clients come from addresses of their own within 127.0.0.0/8; the proxies connect from 127.0.0.1, which is trusted.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness import BOUND, credentials, needs, proxies
from harness.clients import Wire
from harness.credentials import Files
from harness.program import Program, StartProgram, listener

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


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = credentials.write(tmp_path)
    # HAProxy reads both from one file.
    (tmp_path / "both.pem").write_text(Path(made.certificate).read_text() + Path(made.key).read_text())
    return made


Front = Callable[..., tuple[str, int]]


class At(NamedTuple):
    """Where a proxy finds what it is in front of: a program, or another proxy."""

    address: tuple[str, int]


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Front]:
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


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Front]:
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


# X-Forwarded-* and Forwarded


@pytest.mark.parametrize("secure", [False, True], ids=["plain behind", "TLS behind"])
def test_haproxy_speaks_for_its_client(
    program: StartProgram, haproxy: Front, files: Files, tmp_path: Path, secure: bool
) -> None:
    """TLS at the proxy, and behind it; what the client made up is gone."""
    rules = "option forwardfor\n http-request set-header X-Forwarded-Proto https"
    server = program("raw:app", *TRUST, *(("--certfile", files.certificate, "--keyfile", files.key) if secure else ()))
    how = f"ssl verify required ca-file {credentials.authorities(tmp_path)} verifyhost localhost" if secure else ""
    front = haproxy(server, "http", how, rules, accepts=f" ssl crt {tmp_path}/both.pem")
    environ = ask(front, tls=credentials.client())
    assert seen(environ) == (CLIENT, "https")
    assert environ["HTTP_X_FORWARDED_FOR"] == CLIENT
    assert environ["HTTP_HOST"] == "shop"
    assert environ["HTTP_X_FORWARDED_PROTO"] == "https"
    assert set(environ) & FIELDS == {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"}
    assert environ.get("SSL_PROTOCOL") == ("TLSv1.3" if secure else None)


def test_a_proxy_that_says_http_on_a_tls_connection_is_believed(
    program: StartProgram, nginx: Front, files: Files
) -> None:
    """The scheme is the client's, not that of the last hop."""
    server = program("raw:app", *TRUST, "--certfile", files.certificate, "--keyfile", files.key)
    rules = "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;"
    assert seen(ask(nginx(server, rules, "https"))) == (CLIENT, "http")


@pytest.mark.parametrize("appending", [False, True])
def test_nginx_speaks_for_its_client(program: StartProgram, nginx: Front, files: Files, appending: bool) -> None:
    server = program("raw:app", *TRUST)
    address = "$proxy_add_x_forwarded_for" if appending else "$remote_addr"
    rules = f"proxy_set_header X-Forwarded-For {address}; proxy_set_header X-Forwarded-Proto $scheme;"
    environ = ask(nginx(server, rules, files=files), tls=credentials.client())
    assert seen(environ) == (CLIENT, "https")
    assert environ["HTTP_X_FORWARDED_FOR"] == CLIENT
    assert set(environ) & FIELDS == {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"}


def test_forwarded_is_believed_where_it_is_what_the_proxy_sets(
    program: StartProgram, nginx: Front, files: Files
) -> None:
    server = program("raw:app", *TRUST, "--forwarded-fields", "forwarded")
    rules = 'proxy_set_header Forwarded "for=$remote_addr;proto=$scheme;host=\\"shop.example:443\\"";'
    environ = ask(nginx(server, rules, files=files), tls=credentials.client())
    assert seen(environ) == (CLIENT, "https")
    assert environ["HTTP_HOST"] == "shop.example:443"
    assert set(environ) & FIELDS == {"HTTP_FORWARDED"}


def test_a_client_that_breaks_the_list_of_forwarded_is_refused(program: StartProgram, haproxy: Front) -> None:
    """A proxy that adds to Forwarded lets its clients write the beginning: an open quote would swallow the rest."""
    server = program("raw:app", *TRUST, "--forwarded-fields", "forwarded")
    front = haproxy(server, "http", rules="http-request add-header Forwarded for=%[src];proto=http")
    assert seen(ask(front, headers="Forwarded: for=203.0.113.66\r\n")) == (CLIENT, "http")
    with Wire(front) as wire:
        assert wire.get(headers='Forwarded: for="\r\n').status == 400


def test_a_client_without_a_proxy_speaks_for_nobody(program: StartProgram) -> None:
    server = program("raw:app", *TRUST, "--forwarded-fields", ",".join(["x-forwarded-for", "x-forwarded-proto"]))
    environ = ask(server.address)
    assert seen(environ) == (CLIENT, "http")
    assert not set(environ) & FIELDS


def test_the_access_log_has_the_client(program: StartProgram, haproxy: Front) -> None:
    server = program("raw:app", *TRUST, "--access-log", "-")
    ask(haproxy(server, "http", rules="option forwardfor"))
    assert server.output.wait(r"(?m)^\S+ - - ").text.startswith(CLIENT)


def test_a_kept_connection_of_a_proxy_speaks_for_each_of_its_clients(program: StartProgram) -> None:
    """What is remembered of a connection's fields must not outlive them."""
    server = program("raw:app", *TRUST)
    with Wire(server.address) as wire:
        for client, proto in (("1.1.1.1", "https"), ("2.2.2.2", "http"), ("2.2.2.2", "http"), ("1.1.1.1", "https")):
            for _ in range(3):
                headers = f"X-Forwarded-For: {client}\r\nX-Forwarded-Proto: {proto}\r\n"
                assert seen(json.loads(wire.get("/environ", headers=headers).text)) == (client, proto)
        assert seen(json.loads(wire.get("/environ").text)) == ("127.0.0.1", "http")


# Proxies that are not on this machine

NOT_LOCAL = "127.0.0.5"  # where a proxy connects from, as one in another container does: the default does not name it
SAYS_BOTH = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;"


def test_the_log_names_the_flag_where_an_application_redirects_for_ever(
    program: StartProgram, nginx: Front, files: Files
) -> None:
    """Django is told of HTTPS by a field that is dropped, and sends its client to where it has come from."""
    server = program("django_secure:app")
    front = nginx(server, f"proxy_bind {NOT_LOCAL}; {SAYS_BOTH}", files=files)
    since = server.log.mark()
    for _ in range(3):
        with Wire(front, credentials.client()) as wire:
            answer = wire.get("/page", headers="Connection: close\r\n")
        assert (answer.status, answer.headers["Location"]) == (301, "https://test/page")
    told = server.log.wait(rf"warning .*X-Forwarded-Proto from {NOT_LOCAL} dropped", since).text
    assert f"--forwarded-allow-ips {NOT_LOCAL}" in told
    assert f"FORWARDED_ALLOW_IPS={NOT_LOCAL}" in told
    assert server.stop() == 0
    assert server.log.text().count(" dropped: ") == 1, "once, however many requests come"


def test_the_variable_of_platforms_ends_the_redirects(program: StartProgram, nginx: Front, files: Files) -> None:
    server = program("django_secure:app", environ={"FORWARDED_ALLOW_IPS": NOT_LOCAL})
    front = nginx(server, f"proxy_bind {NOT_LOCAL}; {SAYS_BOTH}", files=files)
    with Wire(socket.create_connection(front, BOUND, (CLIENT, 0)), credentials.client()) as wire:
        answer = wire.get("/page", headers="X-Forwarded-For: 203.0.113.66\r\nConnection: close\r\n")
    assert answer.status == 200
    assert json.loads(answer.text) == {"client": CLIENT, "uri": "https://test/page"}
    assert server.stop() == 0
    assert " dropped: " not in server.log.text()


def test_where_every_sender_is_believed_the_client_is_the_one_that_the_proxy_saw(
    program: StartProgram, nginx: Front
) -> None:
    """Platforms set it, whose proxies have no fixed addresses."""
    server = program("raw:app", environ={"FORWARDED_ALLOW_IPS": "*"})
    environ = ask(nginx(server, f"proxy_bind {NOT_LOCAL}; {SAYS_BOTH}"))
    assert seen(environ) == (CLIENT, "http")
    assert environ["HTTP_X_FORWARDED_FOR"] == CLIENT
    server.log.wait(rf"warning .*{CLIENT}, is taken as the client, though .*--forwarded-allow-ips '\*,{CLIENT}'")


@pytest.mark.parametrize("whole", [True, False])
def test_proxy_fix_counts_two_proxies_in_a_whole_list(
    program: StartProgram, haproxy: Front, nginx: Front, whole: bool
) -> None:
    """Without it the list ends at the first proxy that forkserver does not know, and ProxyFix finds too few."""
    fields = ("--forwarded-fields", "x-forwarded-for=whole,x-forwarded-proto") if whole else ()
    server = program("two_proxies:app", *TRUST, *fields)
    inner = nginx(server, SAYS_BOTH)
    front = haproxy(At(inner), "http", f"source {NOT_LOCAL}", "option forwardfor")
    environ = ask(front, headers="X-Forwarded-For: 203.0.113.66\r\n")
    assert environ["REMOTE_ADDR"] == (CLIENT if whole else NOT_LOCAL)
    assert environ["HTTP_X_FORWARDED_FOR"].split(", ")[-2:] == ([CLIENT, NOT_LOCAL] if whole else [NOT_LOCAL])


def test_the_path_of_the_application_is_what_the_proxy_says(program: StartProgram, nginx: Front) -> None:
    """gunicorn's SCRIPT_NAME, a field with an underscore, which no other sender can set."""
    server = program("raw:app", *TRUST, "--forwarded-fields", "x-forwarded-for,script_name", "--root-path", "/other")
    front = nginx(server, "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header SCRIPT_NAME /shop;")
    for target, path in (("/shop/environ", "/environ"), ("/environ", "/environ")):
        with Wire(front) as wire:
            found = json.loads(wire.get(target, headers="SCRIPT_NAME: /evil\r\n").text)
        assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["RAW_URI"]) == ("/shop", path, target)
        assert "HTTP_SCRIPT_NAME" not in found
    found = ask(server.address, headers="SCRIPT_NAME: /evil\r\n")
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/other", "/environ")
    with Wire(server.address) as wire:  # from 127.0.0.1, which is believed: a path that leads to another site
        assert wire.get("/environ", headers="SCRIPT_NAME: //evil\r\n").status == 400


# The PROXY protocol


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
def test_haproxy_introduces_its_client(program: StartProgram, haproxy: Front, files: Files, version: str) -> None:
    """What the client says in fields is its own word: it is not the proxy that sends them."""
    server = program("raw:app", "-w", "2", *PROXY)
    environ = ask(haproxy(server, "tcp", version))
    assert seen(environ) == (CLIENT, "http")
    assert not set(environ) & FIELDS


def test_version_2_says_that_the_client_came_by_tls(
    program: StartProgram, haproxy: Front, files: Files, tmp_path: Path
) -> None:
    server = program("raw:app", *PROXY)
    front = haproxy(server, "tcp", "send-proxy-v2-ssl", accepts=f" ssl crt {tmp_path}/both.pem")
    assert seen(ask(front, tls=credentials.client())) == (CLIENT, "https")


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_a_proxy_that_passes_tls_through_introduces_its_client(
    program: StartProgram, haproxy: Front, files: Files, version: str
) -> None:
    server = program("raw:app", *PROXY, "--certfile", files.certificate, "--keyfile", files.key)
    environ = ask(haproxy(server, "tcp", version), tls=credentials.client())
    assert seen(environ) == (CLIENT, "https")
    assert environ["SSL_PROTOCOL"] == "TLSv1.3"


def test_the_client_of_a_connection_that_is_handed_on_stays_known(program: StartProgram, haproxy: Front) -> None:
    server = program("raw:app", "-w", "2", *PROXY)
    header = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
    with socket.create_connection(server.address, BOUND, ("127.0.0.1", 0)) as plain:
        plain.sendall(header)
        with Wire(plain) as wire:
            first = json.loads(wire.get("/environ").text)
            server.reload()
            second = json.loads(wire.get("/environ").text)
    assert first["REMOTE_ADDR"] == second["REMOTE_ADDR"] == "192.0.2.1"
    assert first["pid"] != second["pid"]


@pytest.mark.parametrize("kind", [0x31, 0x00])
def test_a_client_that_the_proxy_cannot_name_has_no_address(program: StartProgram, kind: int) -> None:
    """Not the proxy's own, which may have rights, and what it says of others is its own word."""
    server = program("raw:app", "--forwarded-allow-ips", "*", "--proxy-protocol", "v2")
    payload = bytes(216 if kind == 0x31 else 0)
    header = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, kind, len(payload)) + payload
    environ = ask(server.address, before=header, source="127.0.0.1")
    assert seen(environ) == ("", "http")
    assert not set(environ) & FIELDS


def test_who_may_not_introduce_anybody_is_turned_away(program: StartProgram) -> None:
    """Else anybody could be anyone; and the log says why, for whoever has set up a new proxy."""
    server = program("raw:app", *PROXY, "--header-timeout", "500ms")
    since = server.log.mark()
    with socket.create_connection(server.address, BOUND, (CLIENT, 0)) as stranger:
        assert _end(stranger, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    server.log.wait(rf"warning .*turned away {CLIENT}.*not in proxy_allow_ips", since)
    for said in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PROXY TCP4 1", b""):
        with socket.create_connection(server.address, BOUND, ("127.0.0.1", 0)) as unannounced:
            assert _end(unannounced, said)
    server.log.wait(r"warning .*no PROXY header", since)
    # Byte by byte is not too little.
    whole = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /environ HTTP/1.0\r\n\r\n"
    with socket.create_connection(server.address, BOUND, ("127.0.0.1", 0)) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in whole:
            slow.sendall(bytes([byte]))
        assert b'"REMOTE_ADDR": "192.0.2.1"' in _all(slow)


def _all(client: socket.socket) -> bytes:
    came = b""
    while data := client.recv(65536):
        came += data
    return came


def _end(client: socket.socket, said: bytes) -> bool:
    """Whether the server ends the connection without a word."""
    try:
        client.sendall(said)
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_a_blocking_handler_has_the_client_too(program: StartProgram) -> None:
    server = program("raw:app", *PROXY, "--handler-class", "wsgiref.simple_server:WSGIRequestHandler")
    with socket.create_connection(server.address, BOUND, ("127.0.0.1", 0)) as plain:
        plain.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /environ HTTP/1.0\r\n\r\n")
        assert b'"REMOTE_ADDR": "192.0.2.1"' in _all(plain)


def test_the_root_of_the_application_is_told(program: StartProgram) -> None:
    """Whether or not the proxy has cut it off the path."""
    server = program("raw:app", "--root-path", "/shop")
    with Wire(server.address) as wire:
        for target, path in (("/environ", "/environ"), ("/shop/environ", "/environ"), ("/environ/shopping", None)):
            found = json.loads(wire.get(target).text)
            assert found["SCRIPT_NAME"] == "/shop"
            assert found["PATH_INFO"] == (path or target)


def test_tls_behind_a_header_is_told_when_its_worker_leaves(program: StartProgram, files: Files) -> None:
    """Once it is introduced a plain connection could be handed on, and would say nothing; one in TLS cannot."""
    server = program("raw:app", *PROXY, "--certfile", files.certificate, "--keyfile", files.key)
    with socket.create_connection(server.address, BOUND, ("127.0.0.1", 0)) as plain:
        plain.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n")
        with Wire(plain, credentials.client()) as wire:
            assert not wire.get().last
            server.send(signal.SIGHUP)
            server.until(lambda: server.workers(2), "a worker of the next generation")
            answer = wire.get()
            while not answer.last:
                answer = wire.get()
            assert wire.ended()
