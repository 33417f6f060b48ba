"""wrk as the client of what must be fast: a script varies path, query and, if asked, a header value; figures come back.

wrk checks no body. What was not answered with 2xx or 3xx, and connections that broke, are counted as errors.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass

from bench.machine import HOST, need
from bench.peers import PeerError
from bench.questions import fields
from bench.servers import Server

SCRIPT = r"""
local n, asked = 0, {}
local body = string.rep("x", BODY)
local function varied(i)
  if FRESH then return "X-Request-Id: " .. i .. "\r\n" end
  if not PROXIED then return "" end
  return string.format("User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:%d.0) Gecko/20100101 Firefox/%d.%d\r\n"
    .. "Cookie: session=%08x%08x; theme=dark\r\nX-Forwarded-For: 203.%d.%d.%d\r\nX-Forwarded-Proto: https\r\n"
    .. "X-Request-Id: %08x-0000-4000-8000-%012x\r\n",
    i % 100, i % 100, i % 97, i, i * 7, i % 113, i % 251, i % 241, i, i)
end
local function question(i)
  return LINE .. i % 1000 .. "?page=" .. i % 7 .. FIELDS .. varied(i) .. "\r\n" .. body
end
local different = PROXIED and 20000 or 1000
for i = 0, different - 1 do asked[i] = question(i) end
request = function()
  n = n + 1
  if FRESH then return question(n) end
  return asked[n % different]
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "bytes": %.0f, "p50": %f, "p99": %f, '
    .. '"status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status, e.connect, e.read, e.write, e.timeout))
end
"""
ERRORS = ("status", "connect", "read", "write", "timeout")
TOLERATED = 0.01  # errors a request; a peer with more fails


@dataclass(frozen=True)
class Asking:
    """A kind of load: 1000 paths below ``path`` in turn, by so many connections."""

    path: str = "/item/"
    fresh: bool = False  # a header value that never repeats
    proxied: bool = False  # another client each time, of whom a proxy tells: agent, cookie, address and request id
    close: bool = False  # a connection per request
    body: int = 0  # bytes to POST
    connections: int = 16

    def script(self) -> str:
        line = f"{'POST' if self.body else 'GET'} {self.path}"
        values = {"LINE": line, "FIELDS": " HTTP/1.1\r\n" + fields(self.close, self.body, self.proxied)}
        head = "".join(f"local {name} = {json.dumps(value)}\n" for name, value in values.items())
        flags = f"{str(self.fresh).lower()}, {str(self.proxied).lower()}"
        return f"{head}local BODY, FRESH, PROXIED = {self.body}, {flags}\n{SCRIPT}"


def ask(server: Server, asking: Asking, seconds: int) -> dict[str, float]:
    """rate (requests/s), cpu (µs a request, of the whole tree), bytes (a second), p50, p99 (ms), errors (a request)."""
    before = server.cpu_seconds()
    said = _run(server, asking, seconds)
    used = server.cpu_seconds() - before
    errors = {kind: said[kind] for kind in ERRORS if said[kind]}
    count = said["requests"]
    if not count or sum(errors.values()) > TOLERATED * count:
        told = ", ".join(f"{number:.0f} {kind}" for kind, number in errors.items())
        raise PeerError(f"{count:.0f} requests answered in {seconds} s; errors: {told or 'none'}")
    return {
        "rate": count / said["seconds"],
        "cpu": used / count * 1e6,
        "bytes": said["bytes"] / said["seconds"],
        "p50": said["p50"],
        "p99": said["p99"],
        "errors": sum(errors.values()) / count,
    }


def _run(server: Server, asking: Asking, seconds: int) -> dict[str, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua", prefix="bench-") as script:
        script.write(asking.script())
        script.flush()
        size = ["-t1", f"-c{asking.connections}", f"-d{seconds}s", "--timeout", "10s"]
        command = [
            need("wrk"),
            *size,
            "-s",
            script.name,
            f"{'https' if server.tls else 'http'}://{HOST}:{server.port}/",
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        said = (result.stderr or result.stdout).strip()
        raise PeerError(f"{said}; its own last words: {server.last_words()}")
    figures: dict[str, float] = json.loads(result.stdout.strip().splitlines()[-1])
    return figures
