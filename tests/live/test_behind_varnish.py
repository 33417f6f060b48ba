"""Varnish in front, with the VCL in deploy/ and as it comes: reloads, restarts, uploads that are refused."""

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

SHIPPED = Path(__file__).parents[2] / "deploy" / "varnish.vcl"
PLAIN = 'vcl 4.1;\nbackend default { .host = "127.0.0.1"; .port = "8000"; }\n'
KINDS = ("shipped", "as it comes")


@contextmanager
def in_front(folder: Path, kind: str, server: tuple[str, int]) -> Iterator[tuple[str, int]]:
    address, vcl = own_address(), SHIPPED.read_text() if kind == "shipped" else PLAIN
    vcl = proxies.changed(SHIPPED, vcl, r'(?<=\.host = )"127\.0\.0\.1"', f'"{server[0]}"')
    vcl = proxies.changed(SHIPPED, vcl, r'(?<=\.port = )"8000"', f'"{server[1]}"')
    with proxies.varnish(folder, vcl, address):
        yield address


def test_what_a_client_says_of_itself_is_not_believed(program: StartProgram, tmp_path: Path) -> None:
    """The application goes by these fields; the client must not be able to write them."""
    server = program()
    lies = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\n"
    with in_front(tmp_path, "shipped", server.address) as front, Wire(front) as wire:
        seen = json.loads(wire.get("/environ", headers=lies).text)
    assert seen["HTTP_X_FORWARDED_FOR"] == seen["REMOTE_ADDR"] == "127.0.0.1"
    assert seen["HTTP_X_FORWARDED_PROTO"] == "http"
    assert "HTTP_FORWARDED" not in seen
    assert seen["HTTP_HOST"] == "test"


def test_the_host_of_the_request_line_goes_before_the_field(program: StartProgram, tmp_path: Path) -> None:
    server = program()
    with in_front(tmp_path, "shipped", server.address) as front:
        proxies.tell_two_hosts(front, "two.example")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_behind_varnish(start: Callable[..., Program], tmp_path: Path, kind: str) -> None:
    with listener() as held, in_front(tmp_path, kind, held.getsockname()) as front:
        proxies.serve_through_reloads_and_restarts(front, partial(start, held))


def test_an_upload_that_is_too_large_is_answered_413(program: StartProgram, tmp_path: Path) -> None:
    server = program("raw:app", "--max-body", str(proxies.MIB))
    with in_front(tmp_path, "as it comes", server.address) as front:
        proxies.refuse_uploads(front)
