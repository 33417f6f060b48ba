"""Apache in front, with the site in deploy/ and as a stranger sets it up: reloads, restarts, refused uploads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from harness import proxies
from harness.clients import Wire
from harness.program import Program, StartProgram, listener, own_address

SITE = Path(__file__).parents[2] / "deploy" / "apache.conf"
# The least that a page on the web tells; connections to the program are kept, or made anew for each request.
PLAIN = "ProxyPass / http://{}:{}/ {}"
KINDS = {"kept": "", "anew": "disablereuse=On"}


@contextmanager
def in_front(folder: Path, site: str) -> Iterator[tuple[str, int]]:
    address = own_address()
    with proxies.apache(folder, site, address):
        yield address


def shipped(server: tuple[str, int]) -> str:
    """The site in deploy/; Apache's own user cannot enter the folder of a test, so it connects by TCP."""
    site = proxies.changed(SITE, SITE.read_text(), r"VirtualHost \*:80", "VirtualHost {}:{}".format(*own_address()))
    return proxies.changed(SITE, site, r"(?<=ProxyPass / )unix:\S*(?= ttl=60)", "http://{}:{}/".format(*server))


def test_what_a_client_says_of_itself_is_not_believed(program: StartProgram, tmp_path: Path) -> None:
    """The application goes by these fields; the client must not be able to write them."""
    server = program()
    lies = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\n"
    with in_front(tmp_path, shipped(server.address)) as front, Wire(front) as wire:
        seen = json.loads(wire.get("/environ", headers=lies).text)
    assert seen["HTTP_X_FORWARDED_FOR"] == seen["REMOTE_ADDR"] == "127.0.0.1"
    assert seen["HTTP_X_FORWARDED_PROTO"] == "http"
    assert "HTTP_FORWARDED" not in seen
    assert seen["HTTP_HOST"] == "test"


def test_the_host_of_the_request_line_goes_before_the_field(program: StartProgram, tmp_path: Path) -> None:
    server = program()
    with in_front(tmp_path, shipped(server.address)) as front:
        proxies.tell_two_hosts(front, "two.example")


def test_nothing_is_lost_behind_the_shipped_site(start: Callable[..., Program], tmp_path: Path) -> None:
    with listener() as held, in_front(tmp_path, shipped(held.getsockname())) as front:
        proxies.serve_through_reloads_and_restarts(front, partial(start, held))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_behind_apache_as_it_comes(start: Callable[..., Program], tmp_path: Path, kind: str) -> None:
    with listener() as held, in_front(tmp_path, PLAIN.format(*held.getsockname(), KINDS[kind])) as front:
        proxies.serve_through_reloads_and_restarts(front, partial(start, held))


def test_an_upload_that_is_too_large_is_answered_413(program: StartProgram, tmp_path: Path) -> None:
    """Apache sends all of it before it reads the answer."""
    server = program("raw:app", "--max-body", str(proxies.MIB))
    with in_front(tmp_path, PLAIN.format(*server.address, "")) as front:
        proxies.refuse_uploads(front)
