"""What a trusted proxy says, in a PROXY header or in fields, and what its clients cannot say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from forkserver import WSGIRequestHandler
from harness.worker import StartWorker

PROXY = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n"
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


class Speaking(WSGIRequestHandler):
    def version_string(self) -> str:
        return "speaking"


def test_a_hook_that_raises_behind_a_proxy_header_lets_no_client_introduce_itself(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows the header is the client's: read as a header once more, it would be any client that it names."""
    server = worker(proxy_protocol="on", proxy_allow_ips=["127.0.0.1"])
    asked = []

    def verify(_request: object, address: Any) -> bool:
        asked.append(address[0])
        if len(asked) == 1:
            raise LookupError("a hook's fault")
        return True

    server.httpd.verify_request = verify
    monkeypatch.setattr(server.loop.context.hooks, "verify_request", True)
    client = server.client()
    server.turn()  # the header comes later than the connection
    client.sendall(PROXY)
    server.turn(2)
    client.sendall(PROXY.replace(b"192.0.2.1", b"127.0.0.1") + GET % b"forged")
    assert server.until_answered(client) in (b"<closed>", b"<reset>")
    assert asked == ["192.0.2.1"]
    assert not server.loop.connections


@pytest.mark.parametrize("handler", [WSGIRequestHandler, Speaking])
def test_a_host_that_a_trusted_proxy_names_goes_before_the_clients_target(
    worker: StartWorker, handler: type[WSGIRequestHandler]
) -> None:
    """A target in absolute form goes before Host, as RFC 9112 has it, but it is the client's own word as well."""
    said = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        said.append(environ["HTTP_HOST"])
        start_response("204 No Content", [])
        return []

    server = worker(app, handler=handler, forwarded_allow_ips=["127.0.0.1"], forwarded_fields=["x-forwarded-host"])
    told = b" HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: named\r\n\r\n"
    for line in (
        b"GET http://made.up/",
        b"GET /",
        b"GET http://made.up/",
        b"GET http://made.up/",
        b"GET /",
    ):
        server.until_answered(server.client(line + told))
    client = server.client()
    for line in (b"GET /", b"GET http://made.up/", b"GET /", b"GET http://made.up/"):
        client.sendall(line + told)
        server.until_answered(client)
    assert said == ["named"] * 9
