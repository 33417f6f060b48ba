"""The site in deploy/ with Debian's nginx in front: pages, uploads, downloads, and reloads nobody notices."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import needs
from harness.clients import Wire, request
from harness.load import Load
from harness.program import APPS, Program, listener

SITE = Path(__file__).parents[2] / "deploy" / "nginx.conf"
MIB = 1 << 20
AROUND = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
{user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


def changed(text: str, pattern: str, replacement: str) -> str:
    """The shipped file with one line changed; the pattern must be there exactly once."""
    new, count = re.subn(pattern, replacement, text)
    assert count == 1, f"{pattern} is {count} times in {SITE}"
    return new


@pytest.fixture
def program(serve, tmp_path: Path) -> Program:
    return serve("raw:app", "-w", "2", "--handler-class", "named_peers:Handler", listen=("127.0.0.1", 0))


@contextmanager
def in_front(tmp_path: Path, *servers: str) -> Iterator[tuple[str, int]]:
    """nginx with the shipped site before ``servers``, on a listener it inherits as in its own upgrades."""
    nginx = needs.program("nginx")
    user = "user root;" if os.geteuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(AROUND.format(folder=tmp_path, user=user))
    with listener() as made:
        host, port = made.getsockname()
        site = changed(SITE.read_text(), r"listen 80;", f"listen {host}:{port};")
        lines = [f"server {server} max_fails=1 fail_timeout=1s;" for server in servers]
        site = changed(site, r"(?m)^    server unix:.*;", "\n".join(lines))
        (tmp_path / "site.conf").write_text(site)
        running = subprocess.Popen(
            [nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"],
            env={"NGINX": f"{made.fileno()};"},
            pass_fds=[made.fileno()],
            stdin=subprocess.DEVNULL,
        )
        try:
            yield host, port
        finally:
            running.terminate()
            assert running.wait(60) == 0


@pytest.fixture
def front(program: Program, tmp_path: Path) -> Iterator[tuple[str, int]]:
    with in_front(tmp_path, "{}:{}".format(*program.address)) as address:
        yield address


def test_a_page_an_upload_and_a_download_pass(front: tuple[str, int]) -> None:
    body = bytes(range(256)) * 4 * 4096
    with Wire(front) as wire:
        assert wire.get().status == 200
        wire.send(request("/digest", method="POST", body=body))
        assert wire.answer().text == f"{len(body)} {hashlib.sha256(body).hexdigest()}"
        wire.ask(f"/large/{64 * MIB}")
        assert wire.head().status == 200
        assert wire.count(64 * MIB) == 64 * MIB
        wire.ask("/chunks")
        assert wire.answer().body == b"one two three"


def test_the_connection_to_the_program_is_kept(front: tuple[str, int]) -> None:
    """Fifty clients, and the program sees few connections: nginx has them in its upstream pool."""
    peers = set()
    for _ in range(50):
        with Wire(front) as wire:
            peers.add(json.loads(wire.get("/environ", headers="Connection: close\r\n").text)["test.peer"])
    assert len(peers) < 10


def test_the_host_and_the_client_are_passed_on(front: tuple[str, int]) -> None:
    with Wire(front) as wire:
        lies = "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n"
        seen = json.loads(wire.get("/environ", headers=lies).text)
    assert "HTTP_FORWARDED" not in seen
    assert seen["HTTP_HOST"] == "test"
    assert seen["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert seen["HTTP_X_FORWARDED_PROTO"] == "http"


def test_reloads_are_not_noticed_behind_nginx(front: tuple[str, int], program: Program) -> None:
    """A kept upstream connection that is closed under a request would be a 502."""
    with Load(front, clients=8) as load:
        load.more(200)
        for _ in range(5):
            program.reload()
            load.more(100)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}


def test_machines_that_are_replaced_one_by_one_lose_nothing(launch: Callable[..., Program], tmp_path: Path) -> None:
    """docs/scaling.md promises it of --drain-delay: kept connections leave first, refused ones go to the other one."""
    addresses = [f"unix:{tmp_path / name}" for name in "ab"]

    def machine(address: str) -> Program:
        own = ("--bind", address, "--drain-delay", "0.5", "--socket-mode", "0666", "--pythonpath", str(APPS))
        return launch("raw:app", *own).wait_ready()

    first, second = map(machine, addresses)
    with in_front(tmp_path, *addresses) as front, Load(front, clients=8) as load:
        load.more(200)
        assert first.stop() == 0
        load.more(200)
        (worker,) = machine(addresses[0]).workers()
        load.until(lambda: load.answers[-1].body.endswith(f" {worker.pid}"), "an answer of the new machine")
        assert second.stop() == 0
        load.more(200)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}
