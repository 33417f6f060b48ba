"""Applications that replace what the standard library names, for their own processes as for ours."""

from __future__ import annotations

import signal
from http.client import HTTPConnection
from pathlib import Path

import pytest

from harness import BOUND
from harness.program import StartProgram

# As PySocks' manual replaces the class, and stricter: it takes no descriptor.
REPLACED = """
import os, socket

class Proxied(socket.socket):
    def __init__(self, family=socket.AF_INET, type=socket.SOCK_STREAM, proto=0):
        if family == socket.AF_UNIX or type not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            raise ValueError("socket type must be stream or datagram")
        super().__init__(family, type, proto)

socket.socket = Proxied

def app(environ, start_response):
    body = f"{socket.socket.__name__} {os.getpid()}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.parametrize("preload", ["auto", "off"])
def test_a_replaced_class_of_sockets_is_the_applications_alone(
    program: StartProgram, tmp_path: Path, preload: str
) -> None:
    """It starts, serves, reloads, and hands a kept connection on to the next generation."""
    (tmp_path / "mysite.py").write_text(REPLACED)
    server = program("mysite:app", "-w", "2", "--preload", preload)
    connection = HTTPConnection(*server.address, timeout=BOUND)
    first = _ask(connection)
    since = server.log.mark()
    server.send(signal.SIGHUP)
    server.log.wait("generation 2 serves", since)
    second = _ask(connection)
    assert first[0] == second[0] == "Proxied"
    assert first[1] != second[1]
    connection.close()
    assert server.stop() == 0


def _ask(connection: HTTPConnection) -> list[str]:
    connection.request("GET", "/")
    sock = connection.sock
    answer = connection.getresponse().read().decode().split()
    assert connection.sock is sock is not None  # it was kept
    return answer
