"""CPU time and throughput of one worker on one core, beside peers, in one interleaved run.

    python bench/keepalive.py [--rounds 5] [--seconds 4] [--close] [--fresh] [SERVER...]

Servers: forkserver bjoern fastpysgi granian gunicorn; each must be installed in the environment of this Python, and
wrk (Debian's package) on the machine. The server has core 0, wrk core 1. Two figures for each server, medians of the
rounds: requests a second, and CPU microseconds a request of its whole process tree, which hardly drifts. ``--close``:
a connection per request; ``--fresh``: header values that never repeat.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

from common import HEADERS, as_flags, await_answer, free_port, measure, start, stop

SCRIPT = """
local n = 0
request = function()
  n = n + 1
  if FRESH then wrk.headers["X-Request-Id"] = tostring(n) end
  return wrk.format("GET", "/item/" .. (n % 1000) .. "?page=" .. (n % 7))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", default=["forkserver", "bjoern"], metavar="SERVER")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--close", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    fields = HEADERS | ({"Connection": "close"} if options.close else {})
    ports = {name: free_port() for name in options.servers}
    running: dict[str, subprocess.Popen[bytes]] = {}
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in ports}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"FRESH = {str(options.fresh).lower()}\n{SCRIPT}")
        script.flush()
        flags = ["-s", script.name, *as_flags(fields)]
        try:
            for name, port in ports.items():
                running[name] = start(name, port)
                await_answer(running[name], port)
            for _ in range(options.rounds):
                for name, port in ports.items():
                    results[name].append(measure(running[name].pid, port, options.seconds, *flags))
        finally:
            stop(running.values())
    base = statistics.median(cpu for _, cpu in results[options.servers[0]])
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, medians of {options.rounds} rounds")
    for name, figures in results.items():
        rate = statistics.median(rate for rate, _ in figures)
        cpu = statistics.median(cpu for _, cpu in figures)
        print(f"{name:12} {rate:9.0f} requests/s {cpu:8.2f} CPU µs a request; the first takes {base / cpu:.2f} of it")


if __name__ == "__main__":
    main()
