"""From gunicorn to forkserver without a lost request: docs/moving/README.md, tried."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import BOUND, needs, proxies
from harness.journal import from_lines
from harness.load import Load
from harness.program import APPS, LaunchProgram, Program, clean_environment, listener

SITE = """
upstream app {{ server unix:{socket}; keepalive 16; }}
server {{
    listen {host}:{port};
    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }}
}}
"""


@pytest.fixture(autouse=True)
def _gunicorn() -> None:
    needs.module("gunicorn")


@contextmanager
def gunicorn(*arguments: str, listeners: tuple[socket.socket, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """gunicorn with the test application, ready; it is stopped gracefully at the end."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "gunicorn", *arguments, "--pythonpath", str(APPS), "raw:app"]
    numbers = [each.fileno() for each in listeners]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=writing, pass_fds=numbers, env=clean_environment()
    )
    os.close(writing)
    said = from_lines("gunicorn", reading)
    try:
        said.wait("Booting worker")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(BOUND)
        said.join()
        assert status == 0, said.text()


def made_of(command: str) -> str:
    """The forkserver.toml that --from makes of ``command``."""
    ran = subprocess.run(
        [sys.executable, "-m", "forkserver", "--from", command],
        capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, env=clean_environment(),
    )  # fmt: skip
    return ran.stdout


def served_by(load: Load, server: Program) -> bool:
    return any(load.answers[-1].body.endswith(f" {worker.pid}") for worker in server.workers())


def test_nginx_is_switched_over_by_a_reload(launch: LaunchProgram, tmp_path: Path) -> None:
    """Clients open a connection each time: a reload of nginx closes its own kept ones, whatever stands behind it."""
    old, new = (str(tmp_path / name) for name in ("old.sock", "new.sock"))
    flags = ["-b", f"unix:{old}", "-w", "2", "-k", "gthread", "--threads", "4", "--keep-alive", "75"]
    text = made_of(" ".join(["gunicorn", *flags, f"--pythonpath={APPS}", "raw:app"]))
    (tmp_path / "forkserver.toml").write_text(text.replace(old, new) + 'socket_mode = "0666"\n')
    tmp_path.chmod(0o755)  # nginx' workers are another user
    with gunicorn(*flags), listener() as made:
        host, port = made.getsockname()
        site = SITE.format(socket=old, host=host, port=port)
        load = Load((host, port), clients=8, headers="Connection: close\r\n")
        with proxies.nginx(tmp_path, site, made.fileno()) as nginx, load:
            load.more(200)
            server = launch("--config", str(tmp_path / "forkserver.toml")).wait_ready()
            load.more(100)
            assert not served_by(load, server)
            (tmp_path / "site.conf").write_text(site.replace(old, new))
            nginx.send_signal(signal.SIGHUP)
            load.until(lambda: served_by(load, server), "an answer of forkserver")
            load.more(200)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}


def test_a_listener_that_systemd_holds_goes_from_one_to_the_other(start: Callable[..., Program]) -> None:
    """Between the two, clients wait in its queue."""
    with listener() as held, Load(held.getsockname(), clients=4) as load:
        with gunicorn("-b", f"fd://{held.fileno()}", "-w", "2", listeners=(held,)):
            load.more(200)
        server = start(held)
        load.until(lambda: served_by(load, server), "an answer of forkserver")
        load.more(200)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}
