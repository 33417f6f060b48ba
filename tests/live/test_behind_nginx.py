"""The site in deploy/ with Debian's nginx in front: pages, uploads, downloads, and reloads nobody notices."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from harness import proxies
from harness.clients import Wire, request
from harness.load import Load
from harness.program import APPS, LaunchProgram, Program, StartProgram, listener, own_address

SITE = Path(__file__).parents[2] / "deploy" / "nginx.conf"
MIB = proxies.MIB


@pytest.fixture
def server(program: StartProgram, tmp_path: Path) -> Program:
    return program("raw:app", "-w", "2", "--handler-class", "named_peers:Handler", listen=("127.0.0.1", 0))


# The least that a page on the web tells: nginx asks in HTTP/1.0 then, and keeps a connection unless it is told not to.
PLAIN = """
upstream app {{ server {}:{}; keepalive 16; }}
server {{
    listen {}:{};
    client_max_body_size 0;
    location / {{ proxy_pass http://app; {} }}
}}
"""
KINDS = {"as it comes": "", "HTTP/1.1": 'proxy_http_version 1.1; proxy_set_header Connection "";'}
kinds = pytest.mark.parametrize("kind", KINDS)


@contextmanager
def before(folder: Path, address: tuple[str, int], kind: str) -> Iterator[tuple[str, int]]:
    """nginx as a stranger sets it up, before the program at ``address``."""
    with listener() as made:
        host, port = made.getsockname()
        with proxies.nginx(folder, PLAIN.format(*address, host, port, KINDS[kind]), made.fileno()):
            yield host, port


@contextmanager
def in_front(tmp_path: Path, *servers: str, at: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[tuple[str, int]]:
    """nginx with the shipped site before ``servers``."""
    with listener(at) as made:
        host, port = made.getsockname()
        site = proxies.changed(SITE, SITE.read_text(), r"listen 80;", f"listen {host}:{port};")
        lines = [f"server {server} max_fails=1 fail_timeout=1s;" for server in servers]
        site = proxies.changed(SITE, site, r"(?m)^    server unix:.*;", "\n".join(lines))
        with proxies.nginx(tmp_path, site, made.fileno()):
            yield host, port


@pytest.fixture
def front(server: Program, tmp_path: Path) -> Iterator[tuple[str, int]]:
    with in_front(tmp_path, "{}:{}".format(*server.address)) as address:
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
    assert seen["HTTP_HOST"] == f"test:{front[1]}"  # the port that clients see, which is not 80 here
    assert seen["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert seen["HTTP_X_FORWARDED_PROTO"] == "http"


def test_the_host_of_the_request_line_goes_before_the_field(front: tuple[str, int]) -> None:
    """nginx has chosen the site by it; the application would check, and link to, a host of the client's choice."""
    proxies.tell_two_hosts(front, f"two.example:{front[1]}")


@pytest.mark.as_root
def test_a_port_that_is_the_schemes_own_is_not_written(server: Program, tmp_path: Path) -> None:
    """Origin and Host of a form are compared as text: example.com is not example.com:80 there."""
    with in_front(tmp_path, "{}:{}".format(*server.address), at=(own_address()[0], 80)) as front, Wire(front) as wire:
        assert json.loads(wire.get("/environ").text)["HTTP_HOST"] == "test"


def test_reloads_are_not_noticed_behind_nginx(front: tuple[str, int], server: Program) -> None:
    """A kept upstream connection that is closed under a request would be a 502."""
    with Load(front, clients=8) as load:
        load.more(200)
        for _ in range(5):
            server.reload()
            load.more(100)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}


def test_machines_that_are_replaced_one_by_one_lose_nothing(launch: LaunchProgram, tmp_path: Path) -> None:
    """docs/scaling.md promises it of --drain-delay: kept connections leave first, refused ones go to the other one."""
    addresses = [f"unix:{tmp_path / name}" for name in "ab"]

    def machine(address: str) -> Program:
        own = ("--bind", address, "--drain-delay", "0.5", "--socket-mode", "0666", "--pythonpath", str(APPS))
        return launch("raw:app", *own).wait_ready()

    proxies.replace_one_by_one(addresses, machine, partial(in_front, tmp_path))


@kinds
def test_nothing_is_lost_behind_nginx_as_it_comes(start: Callable[..., Program], tmp_path: Path, kind: str) -> None:
    with listener() as held, before(tmp_path, held.getsockname(), kind) as front:
        proxies.serve_through_reloads_and_restarts(front, partial(start, held))


@kinds
def test_nothing_is_lost_while_workers_are_recycled(start: Callable[..., Program], tmp_path: Path, kind: str) -> None:
    """A worker that leaves hands its kept connections on, or says in its last answer that they end."""
    recycling = ("--max-requests", "40", "--max-requests-jitter", "20")
    with listener() as held, before(tmp_path, held.getsockname(), kind) as front:
        proxies.serve_through_reloads_and_restarts(front, partial(start, held, *recycling))


@kinds
@pytest.mark.parametrize("handler", ["event-driven", "blocking"])
def test_no_answer_makes_nginx_keep_a_connection_that_ends(
    program: StartProgram, tmp_path: Path, kind: str, handler: str
) -> None:
    """Streams, failures and answers of blocking handlers too: the request behind each would be a 502."""
    blocking = ("--handler-class", "own_classes:Blocking") if handler == "blocking" else ()
    server = program("raw:app", "-w", "2", *blocking)
    with before(tmp_path, server.address, kind) as front, Wire(front) as wire:
        for target, status in {"/": 200, "/chunks": 200, "/echo": 200, "/fail": 500}.items():
            for _ in range(10):
                wire.ask(target, method="POST", body=b"a form")
                assert wire.answer().status == status


@pytest.mark.parametrize("kind", [*KINDS, "shipped"])
def test_an_upload_that_is_too_large_is_answered_413(program: StartProgram, tmp_path: Path, kind: str) -> None:
    """nginx sends on what it has taken from its client; a reset under it would be a 502."""
    server = program("raw:app", "--max-body", str(MIB))
    site = in_front(tmp_path, "{}:{}".format(*server.address)) if kind == "shipped" else None
    with site or before(tmp_path, server.address, kind) as front:
        proxies.refuse_uploads(front)
