"""Applications that replace what the standard library names, for their own processes as for ours."""

from __future__ import annotations

import signal
from http.client import HTTPConnection
from pathlib import Path

import pytest

from harness import BOUND
from harness.program import LaunchProgram, StartProgram, own_address

# As PySocks' manual replaces the class, and as freezegun replaces the clocks.
REPLACED = """
import os, socket, sys, time

class Proxied(socket.socket):
    def __init__(self, family=socket.AF_INET, type=socket.SOCK_STREAM, proto=0):
        if family == socket.AF_UNIX or type not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            raise ValueError("socket type must be stream or datagram")
        super().__init__(family, type, proto)

socket.socket = Proxied

NAMES = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
stopped = {id(getattr(time, name)): (lambda now: lambda: now)(getattr(time, name)()) for name in NAMES}
for module in list(sys.modules.values()):
    if module.__name__ not in ("threading", "queue"):
        for name, value in list(vars(module).items()):
            if id(value) in stopped:
                setattr(module, name, stopped[id(value)])

def app(environ, start_response):
    body = f"{socket.socket.__name__} {time.monotonic() == time.monotonic()} {os.getpid()}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.parametrize("preload", ["auto", "off"])
def test_replaced_sockets_and_clocks_are_the_applications_alone(
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
    assert first[:2] == second[:2] == ["Proxied", "True"]
    assert first[2] != second[2]
    connection.close()
    assert server.stop() == 0


def test_a_client_that_idles_is_closed_where_the_application_has_stopped_the_clocks(
    program: StartProgram, tmp_path: Path
) -> None:
    (tmp_path / "mysite.py").write_text(REPLACED)
    server = program("mysite:app", "--keep-alive", "1")
    connection = HTTPConnection(*server.address, timeout=BOUND)
    assert _ask(connection)[1] == "True"
    assert connection.sock is not None
    assert connection.sock.recv(1) == b""
    connection.close()
    assert server.stop() == 0


def _ask(connection: HTTPConnection) -> list[str]:
    connection.request("GET", "/")
    sock = connection.sock
    answer = connection.getresponse().read().decode().split()
    assert connection.sock is sock is not None  # it was kept
    return answer


def test_an_import_that_closes_every_descriptor_is_named(launch: LaunchProgram, tmp_path: Path) -> None:
    (tmp_path / "mysite.py").write_text("import os\nos.closerange(3, 61)\ndef app(environ, start_response): ...\n")
    host, port = own_address()
    server = launch("mysite:app", "-b", f"{host}:{port}")
    assert server.wait() == 3
    server.log.wait(r"application 'mysite:app': its import has closed descriptors of forkserver's")
    assert "Traceback" not in server.log.text()
