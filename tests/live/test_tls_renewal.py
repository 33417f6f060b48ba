"""Certificates that are renewed, broken or read again, and TLS sessions that go on: asked of real workers."""

from __future__ import annotations

import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from harness import credentials
from harness.clients import Wire, connect, get, request
from harness.credentials import Files
from harness.load import Load
from harness.program import Program, StartProgram


def url(server: Program, path: str = "/") -> str:
    return f"https://localhost:{server.address[1]}{path}"


def resumed(
    server: Program, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bool, str, ssl.SSLSession]:
    """Whether a connection went on with ``session``; the worker that answered; and its own session."""
    with (
        connect(server.address) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as wrapped,
    ):
        wrapped.sendall(request("/", headers="Connection: close\r\n"))
        came = b""
        while data := wrapped.recv(65536):
            came += data
        assert wrapped.session is not None
        return bool(wrapped.session_reused), came.rpartition(b"\r\n\r\n")[2].decode(), wrapped.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_goes_on_in_every_worker_and_after_a_renewal(
    secure: Callable[..., Program], tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """A ticket that only one worker can read would be worth one in as many as there are."""
    server = secure("-w", "3")
    context = credentials.client(version=version)
    whole, first, session = resumed(server, context, None)
    assert not whole
    workers = {first}
    for _ in range(100):
        again, worker, _ = resumed(server, context, session)
        assert again
        workers.add(worker)
        if len(workers) == 3:
            break
    assert len(workers) == 3
    credentials.write(tmp_path, number=1)
    server.reload()
    again, worker, _ = resumed(server, context, session)
    assert again
    assert worker not in workers


def serial(server: Program) -> str:
    with Wire(server.address, credentials.client()) as wire:
        assert isinstance(wire.socket, ssl.SSLSocket)
        shown: Any = wire.socket.getpeercert()
        assert wire.get().status == 200
    return shown["serialNumber"]


def test_a_renewed_certificate_is_served_and_nothing_is_lost(secure: Callable[..., Program], tmp_path: Path) -> None:
    server = secure("-w", "2")
    before = serial(server)
    with Load(server.address, clients=8, tls=credentials.client()) as load:
        load.more(100)
        for number in (1, 2):
            credentials.write(tmp_path, number=number)
            server.reload()
            after = serial(server)
            assert after != before
            before = after
            load.more(100)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}


def test_a_broken_certificate_is_a_refused_reload(secure: Callable[..., Program], tmp_path: Path, files: Files) -> None:
    server = secure()
    before, (worker,) = serial(server), server.workers()
    for path, text, why in (
        (files.certificate, "nothing", "certfile .*nothing|certfile .*: "),
        (files.key, "nothing", "keyfile .*: "),
    ):
        good = Path(path).read_text()
        Path(path).write_text(text)
        since = server.log.mark()
        server.send(signal.SIGHUP)
        server.log.wait(rf"reload refused.*{why}|{why}", since)
        assert serial(server) == before
        Path(path).write_text(good)
    assert server.workers() == [worker]
    server.reload()


def test_plain_http_cannot_become_https_in_a_reload(program: StartProgram, tmp_path: Path, files: Files) -> None:
    """For a while the old and the new workers share the address; what a client met would be chance."""
    (tmp_path / "forkserver.toml").write_text("workers = 1\n")
    server = program("raw:app")
    (tmp_path / "forkserver.toml").write_text(f'certfile = "{files.certificate}"\nkeyfile = "{files.key}"\n')
    since = server.log.mark()
    server.send(signal.SIGHUP)
    server.log.wait("TLS cannot be changed for addresses that are served; restart", since)
    assert get(server.address).status == 200


def test_an_upgrade_reads_the_keys_again(secure: Callable[..., Program], files: Files, tmp_path: Path) -> None:
    """They are not among what is written down for the next program; without them it does not take over."""
    server = secure("-w", "2")
    authority = credentials.authorities(tmp_path)
    key = Path(files.key)
    key.rename(f"{key}.gone")
    server.send(signal.SIGUSR2)
    server.log.wait("upgrade refused: .* refuses: keyfile .*: no such file")
    assert requests.get(url(server), verify=authority).status_code == 200
    Path(f"{key}.gone").rename(key)
    since = server.log.mark()
    server.send(signal.SIGUSR2)
    server.log.wait("upgraded to forkserver", since)
    server.log.wait("generation 2 serves", since)
    assert requests.get(url(server), verify=authority).status_code == 200
    assert server.stop() == 0
