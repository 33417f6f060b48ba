"""What the measurements share: servers started side by side, their CPU time, wrk, and what a browser sends.

Knows no figure of its own and prints nothing but trouble that wrk reports.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

HERE = Path(__file__).parent
HOST = "127.0.0.1"
HEADERS = {
    "Host": "www.example.com",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-User": "?1",
    "Cookie": "session=abcdef0123456789; theme=dark",
}
START = {
    "forkserver": "-m forkserver {app} -w {workers} -b {host}:{port}",
    "gunicorn": "-m gunicorn {app} -w {workers} -b {host}:{port}",
    "granian": "-m granian --interface wsgi --host {host} --port {port} --workers {workers} --no-ws {app}",
    "waitress": "-m waitress --listen {host}:{port} {app}",  # one process only
    "bjoern": "-c import\tbjoern,{module};bjoern.run({module}.app,'{host}',{port})",  # one process only
    "fastpysgi": "-c import\tfastpysgi,{module};fastpysgi.run({module}.app,'{host}',{port})",  # likewise
}


def start(
    name: str, port: int, *more: str, module: str = "app", workers: int = 1, core: int | None = 0
) -> subprocess.Popen[bytes]:
    """The server, silent, on one core, or on all with ``core=None``; ``more`` are flags of its own."""
    words = START[name].format(app=f"{module}:app", module=module, workers=workers, host=HOST, port=port).split(" ")
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    command = [*pinned, sys.executable, *(word.replace("\t", " ") for word in words), *more]
    return subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def running(
    name: str, *more: str, module: str = "app", workers: int = 1, core: int | None = 0
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """One server that listens, and its port."""
    port = free_port()
    server = start(name, port, *more, module=module, workers=workers, core=core)
    try:
        await_answer(server, port)
        yield server, port
    finally:
        stop([server])


def stop(servers: Iterable[subprocess.Popen[bytes]]) -> None:
    for server in servers:
        server.send_signal(signal.SIGTERM)
        server.wait()


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def await_answer(server: subprocess.Popen[bytes], port: int) -> None:
    """Until the server listens, or has ended instead; 20 seconds at most."""
    until = time.monotonic() + 20
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, port)).close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"{server.args!r} does not listen")


def cpu_seconds(pid: int) -> float:
    root = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in [root, *root.children(recursive=True)])


def measure(pid: int, port: int, seconds: int, *more: str) -> tuple[float, float]:
    """Requests a second over 16 connections, CPU microseconds a request; ``more`` are flags for wrk."""
    before = cpu_seconds(pid)
    wrk = ["taskset", "-c", "1", "wrk", "-t1", "-c16", f"-d{seconds}s", *more]
    out = subprocess.run([*wrk, f"http://{HOST}:{port}/"], capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(pid) - before
    if trouble := re.findall(r"Non-2xx.*|Socket errors.*", out):
        print("  ", *trouble)
    count = int(re.findall(r"(\d+) requests in", out)[0])
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", out)[0]), used / count * 1e6


def as_flags(fields: dict[str, str]) -> list[str]:
    return [word for name, value in fields.items() for word in ("-H", f"{name}: {value}")]
