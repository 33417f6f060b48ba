"""HTTPS by the program itself, asked by the clients that people use; renewals, and clients that hang."""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import signal
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from harness import BOUND, credentials, needs
from harness.clients import Wire, connect, get, request
from harness.credentials import Files
from harness.program import Program, StartProgram

MIB = 1 << 20
HANGING = 1000
SCAN_BOUND = 300.0  # seconds; a scan takes most of a minute
# A handshake record that announces a ClientHello of 512 bytes, and does not bring it.
HALF_A_HELLO = struct.pack("!BHHB", 22, 0x0301, 512, 1) + b"\0\1\xfc\3\3" + bytes(32)


ALERT, FATAL = 21, 2  # RFC 8446 sections 5.1 and 6


def hello(name: str) -> bytes:
    """A ClientHello for ``name``, as the stdlib's client sends it."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        credentials.client().wrap_bio(received, sent, server_hostname=name).do_handshake()
    return sent.read()


def url(server: Program, path: str = "/") -> str:
    return f"https://localhost:{server.address[1]}{path}"


def s_client(server: Program, *arguments: str) -> str:
    """What `openssl s_client` says of a connection on which it asks for one page."""
    command = [
        needs.program("openssl"),
        "s_client",
        "-connect",
        "{}:{}".format(*server.address),
        "-ign_eof",
        *arguments,
    ]
    asked = request("/", headers="Connection: close\r\n")
    done = subprocess.run(command, input=asked, capture_output=True, timeout=BOUND)
    return (done.stdout + done.stderr).decode("latin-1")


def test_openssl_finds_the_versions_that_are_safe(secure: Callable[..., Program], tmp_path: Path) -> None:
    server = secure()
    trusted = ("-CAfile", credentials.authorities(tmp_path), "-verify_return_error", "-verify_hostname", "localhost")
    for flag, shown in (("-tls1_2", "TLSv1.2, Cipher is ECDHE-ECDSA-AES"), ("-tls1_3", "TLSv1.3, Cipher is TLS_")):
        said = s_client(server, flag, *trusted, "-alpn", "h2,http/1.1")
        assert shown in said
        assert "Verification: OK" in said
        assert "ALPN protocol: http/1.1" in said
        assert "HTTP/1.1 200 OK" in said
    said = s_client(server, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said
    said = s_client(server, "-tls1_2", "-cipher", "AES128-SHA:AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said


def test_testssl_finds_nothing(secure: Callable[..., Program], tmp_path: Path) -> None:
    """Versions, ciphers, and the attacks that have names; certificates and pages are others' business."""
    found = tmp_path / "found.json"
    what = ("--protocols", "--std", "--pfs", "--server-preference", "--vulnerable")
    how = ("--quiet", "--warnings", "batch", "--nodns", "min", "--jsonfile", str(found))
    where = "{}:{}".format(*secure("-w", "2").address)
    subprocess.run([needs.program("testssl"), *what, *how, where], capture_output=True, timeout=SCAN_BOUND, check=True)
    findings = {each["id"]: (each["severity"], each["finding"]) for each in json.loads(found.read_text())}
    assert {"TLS1_3", "cipher_order", "ROBOT", "secure_client_renego"} <= findings.keys()
    bad = ("LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL")
    assert {name: said for name, said in findings.items() if said[0] in bad} == {}


def test_curl_and_requests_are_answered(secure: Callable[..., Program], tmp_path: Path) -> None:
    server = secure("-w", "2")
    authority = credentials.authorities(tmp_path)
    command = [needs.program("curl"), "--silent", "--cacert", authority, "--data-binary", "@-", url(server, "/digest")]
    body = bytes(range(256)) * 8192
    done = subprocess.run(command, input=body, capture_output=True, timeout=BOUND)
    assert done.stdout.decode() == f"{len(body)} {hashlib.sha256(body).hexdigest()}"
    with requests.Session() as session:
        session.verify, session.trust_env = authority, False  # a variable would go before the file
        for _ in range(3):
            seen = session.get(url(server, "/environ")).json()
        assert (seen["HTTPS"], seen["SSL_PROTOCOL"], seen["SSL_CLIENT_VERIFY"]) == ("on", "TLSv1.3", "NONE")
        assert seen["SSL_TLS_SNI"] == "localhost"
        assert session.get(url(server, f"/large/{3 * MIB}")).content == bytes(3 * MIB)
        assert session.get(url(server, "/chunks")).text == "one two three"


@pytest.mark.parametrize(
    "handler",
    [
        "forkserver:WSGIRequestHandler",
        "own_classes:Worded",
        "own_classes:Blocking",
        "http.server:BaseHTTPRequestHandler",
    ],
)
def test_http_without_tls_is_told_what_is_spoken_here(secure: Callable[..., Program], handler: str) -> None:
    """Somebody has left the s out; a connection that just closes would not tell, whatever class serves."""
    server = secure("--handler-class", handler)
    for method in ("GET", "HEAD", "OPTIONS", "BREW"):
        since = server.log.mark()
        with Wire(server.address) as wire:
            wire.ask(method=method)
            answer = wire.answer(to_head=method == "HEAD")
            assert answer.status == 400
            assert answer.last
            assert method == "HEAD" or "speaks HTTPS" in answer.text
            assert handler != "own_classes:Worded" or "Server: worded" in str(answer.headers)
            assert wire.ended()
        server.log.wait(r'info .*refused 400 to 127\.0\.0\.1: no TLS on an address that speaks it: "', since)


def test_a_clients_certificate_is_shown_to_the_application(
    secure: Callable[..., Program], tmp_path: Path, files: Files
) -> None:
    authority = credentials.authorities(tmp_path)
    server = secure("--ca-certs", authority, "--cert-reqs", "required")
    own = credentials.write(tmp_path, "someone", common="someone,O=Else")
    forged = "Ssl-Client-Verify: SUCCESS\r\nSsl-Client-S-Dn: CN=root\r\nSSL_CLIENT_S_DN: CN=root\r\n"
    with Wire(server.address, credentials.client(own=own)) as wire:
        seen = json.loads(wire.get("/environ", headers=forged).text)
    assert seen["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert seen["SSL_CLIENT_S_DN"].startswith("CN=someone\\,O\\=Else,")
    assert seen["SSL_CLIENT_S_DN_CN"] == "someone,O=Else"
    assert seen["SSL_CLIENT_CERT"].startswith("-----BEGIN CERTIFICATE-----")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(server.address, tls=credentials.client())
    strange = credentials.write(tmp_path, "stranger")
    (tmp_path / "authority.pem").write_bytes(credentials.authority(1).cert_pem.bytes())
    server.reload()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(server.address, tls=credentials.client(own=strange))


def test_several_names_have_their_certificates(program: StartProgram, tmp_path: Path) -> None:
    one, other = credentials.write(tmp_path, "one.example"), credentials.write(tmp_path, "*.other.example")
    server = program(
        "raw:app", "--certfile", f"{one.certificate},{other.certificate}", "--keyfile", f"{one.key},{other.key}"
    )
    for name in ("one.example", "www.other.example"):
        with Wire(server.address, credentials.client(), name) as wire:
            assert json.loads(wire.get("/environ").text)["SSL_TLS_SNI"] == name
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        Wire(server.address, credentials.client(), "third.example")


@pytest.mark.parametrize("handler", ["forkserver:WSGIRequestHandler", "own_classes:Blocking"])
def test_a_server_name_that_is_not_ascii_costs_no_line_of_the_log(secure: Callable[..., Program], handler: str) -> None:
    """A hostname is sent as ASCII (RFC 6066 section 3); other bytes are answered with an alert."""
    server = secure("-w", "1", "--handler-class", handler)
    since = server.log.mark()
    for _ in range(3):
        with connect(server.address) as wire:
            wire.sendall(hello("localhost").replace(b"localhost", b"localhos\xd6"))
            answer = wire.recv(65536)
        assert answer[0] == ALERT
        assert answer[5] == FATAL
    assert get(server.address, tls=credentials.client()).status == 200
    assert server.stop() == 0
    written = "\n".join(entry.text for entry in server.log.entries[since:])
    assert "Error" not in written
    assert "Traceback" not in written


# Connections


def test_a_worker_that_leaves_says_so_to_its_clients(secure: Callable[..., Program]) -> None:
    """Keys cannot be handed on: who asks gets its answer with close, who idles a close_notify."""
    server = secure()
    with Wire(server.address, credentials.client()) as busy, Wire(server.address, credentials.client()) as idle:
        assert not busy.get().last
        assert not idle.get().last
        server.send(signal.SIGHUP)
        server.until(lambda: server.workers(2), "a worker of the next generation")
        answer = busy.get()
        while not answer.last:
            answer = busy.get()
        assert busy.ended()
        assert idle.ended()  # an SSLEOFError, where no close_notify had come


def test_an_answer_that_breaks_off_does_not_end_as_a_whole_one(secure: Callable[..., Program]) -> None:
    """HTTP/1.0 tells the end of a body by the end of the connection: only close_notify makes it a whole one."""
    with Wire(secure(app="raw:unchecked").address, credentials.client()) as wire:
        wire.send(b"GET /half HTTP/1.0\r\n\r\n")
        assert wire.head().status == 200
        with pytest.raises(OSError, match=r"(?i)EOF|reset"):
            wire.exactly(5)


def test_files_go_out_sealed_whatever_the_reader_does(secure: Callable[..., Program], tmp_path: Path) -> None:
    """They are read and sealed as the client takes them: neither in memory as a whole, nor by sendfile in the clear."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4096 * 40)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    server = secure(app="raw:unchecked", environ={"FILE": str(path)})
    with Wire(server.address, credentials.client()) as wire:
        for _ in range(2):
            wire.ask("/file")
            assert wire.head().headers["Content-Length"] == str(40 * MIB)
            with Wire(server.address, credentials.client()) as other:
                assert other.get().status == 200  # while nobody reads the file
            assert hashlib.sha256(wire.exactly(40 * MIB)).hexdigest() == digest


@pytest.fixture
def hanging() -> Iterator[Callable[[Program], None]]:
    """Open handshakes that do not go on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * HANGING)), hard))
    opened: list[socket.socket] = []

    def hang(server: Program) -> None:
        for _ in range(HANGING):
            opened.append(connect(server.address))
            opened[-1].sendall(HALF_A_HELLO)

    yield hang
    for each in opened:
        each.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_hanging_handshakes_cost_a_client_nothing(
    secure: Callable[..., Program], hanging: Callable[[Program], None]
) -> None:
    """As many as one worker may hold: the longest hanging make room, and no handshake waits for another."""
    server = secure("--worker-connections", str(HANGING), "--header-timeout", "600s")  # no handshake ends by itself
    context = credentials.client()
    with Wire(server.address, context) as kept:
        kept.get()
        hanging(server)
        for _ in range(20):
            assert get(server.address, tls=context).status == 200
            assert kept.get().status == 200


def test_a_handshake_that_does_not_end_is_ended(secure: Callable[..., Program]) -> None:
    server = secure("--header-timeout", "500ms")
    with contextlib.closing(connect(server.address)) as client:
        client.sendall(HALF_A_HELLO)
        assert client.recv(1) == b""


def test_a_blocking_handler_speaks_tls_too(secure: Callable[..., Program]) -> None:
    server = secure("--handler-class", "wsgiref.simple_server:WSGIRequestHandler", "--threads", "2")
    assert get(server.address, tls=credentials.client()).status == 200


def test_a_client_that_leaves_a_blocking_handler_in_the_middle_is_no_error(secure: Callable[..., Program]) -> None:
    """OpenSSL's word for it is no ConnectionError; clients must not fill the log with tracebacks."""
    server = secure("--handler-class", "own_classes:Blocking")
    client = credentials.client().wrap_socket(connect(server.address), server_hostname="localhost")
    with contextlib.closing(client):
        client.sendall(b"GET / HTTP/1.1\r\n")
    assert "Connection lost" in server.log.wait("Connection lost|Traceback").text
    assert get(server.address, tls=credentials.client()).status == 200
    assert "Traceback" not in server.log.text()


def test_early_hints_go_before_the_answer(secure: Callable[..., Program]) -> None:
    """Only to who speaks HTTP/1.1: an older client would take them for the answer."""
    with Wire(secure().address, credentials.client()) as wire:
        wire.ask("/hints")
        hints = wire.head()
        assert (hints.status, hints.headers.get_all("Link")) == (
            103,
            ["</style.css>; rel=preload", "</code.js>; rel=preload"],
        )
        assert wire.head().status == 200
    with Wire(secure().address, credentials.client()) as wire:
        wire.send(b"GET /hints HTTP/1.0\r\n\r\n")
        assert wire.head().status == 200
