"""CPU time and throughput of one worker on one core, beside peers, in one interleaved run.

    python bench/keepalive.py [--rounds 5] [--seconds 4] [--close] [--fresh] [SERVER...]

Servers: forkserver bjoern fastpysgi granian gunicorn; each must be installed in the environment of this Python, and
wrk (Debian's package) on the machine. The server has core 0, wrk core 1. Two figures for each server, medians of the
rounds: requests a second, and CPU microseconds a request of its whole process tree, which hardly drifts. ``--close``:
a connection per request; ``--fresh``: header values that never repeat.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent
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
SCRIPT = """
local n = 0
request = function()
  n = n + 1
  if FRESH then wrk.headers["X-Request-Id"] = tostring(n) end
  return wrk.format("GET", "/item/" .. (n % 1000) .. "?page=" .. (n % 7))
end
"""
START = {
    "forkserver": "-m forkserver app:app -w 1 -b {host}:{port}",
    "gunicorn": "-m gunicorn -w 1 -b {host}:{port} app:app",
    "granian": "-m granian --interface wsgi --host {host} --port {port} --workers 1 --no-ws app:app",
    "bjoern": "-c import\tbjoern,app;bjoern.run(app.app,'{host}',{port})",
    "fastpysgi": "-c import\tfastpysgi,app;fastpysgi.run(app.app,'{host}',{port})",
}


def start(name: str, port: int) -> subprocess.Popen[bytes]:
    words = START[name].format(host="127.0.0.1", port=port).split(" ")
    command = ["taskset", "-c", "0", sys.executable, *(word.replace("\t", " ") for word in words)]
    return subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def await_answer(server: subprocess.Popen[bytes], port: int) -> None:
    """Until the server listens, or has ended instead; 20 seconds at most."""
    until = time.monotonic() + 20
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"{server.args} does not listen")


def cpu_seconds(pid: int) -> float:
    root = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in [root, *root.children(recursive=True)])


def measure(pid: int, port: int, seconds: int, script: str, headers: list[str]) -> tuple[float, float]:
    """Requests a second, CPU microseconds a request."""
    before = cpu_seconds(pid)
    wrk = ["taskset", "-c", "1", "wrk", "-t1", "-c16", f"-d{seconds}s", "-s", script, *headers]
    out = subprocess.run([*wrk, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(pid) - before
    if trouble := re.findall(r"Non-2xx.*|Socket errors.*", out):
        print("  ", *trouble)
    count = int(re.findall(r"(\d+) requests in", out)[0])
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", out)[0]), used / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", default=["forkserver", "bjoern"], metavar="SERVER")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--close", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    fields = HEADERS | ({"Connection": "close"} if options.close else {})
    headers = [word for name, value in fields.items() for word in ("-H", f"{name}: {value}")]
    ports = {name: free_port() for name in options.servers}
    running: dict[str, subprocess.Popen[bytes]] = {}
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in ports}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"FRESH = {str(options.fresh).lower()}\n{SCRIPT}")
        script.flush()
        try:
            for name, port in ports.items():
                running[name] = start(name, port)
                await_answer(running[name], port)
            for _ in range(options.rounds):
                for name, port in ports.items():
                    results[name].append(measure(running[name].pid, port, options.seconds, script.name, headers))
        finally:
            for server in running.values():
                server.send_signal(signal.SIGTERM)
                server.wait()
    base = statistics.median(cpu for _, cpu in results[options.servers[0]])
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, medians of {options.rounds} rounds")
    for name, figures in results.items():
        rate = statistics.median(rate for rate, _ in figures)
        cpu = statistics.median(cpu for _, cpu in figures)
        print(f"{name:12} {rate:9.0f} requests/s {cpu:8.2f} CPU µs a request; the first takes {base / cpu:.2f} of it")


if __name__ == "__main__":
    main()
