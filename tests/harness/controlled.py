"""A program with its control socket, asked as forkserverctl asks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from forkserver.cli import control_client
from harness import BOUND
from harness.gate import Gate
from harness.program import Program

SOURCE = """
import os
{before}

def app(environ, start_response):
    body = b"{version}" if environ["PATH_INFO"] != "/healthz" else b"well"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


class ControlledProgram:
    """``program`` is the program, ``path`` its control socket."""

    def __init__(self, server: Program, path: str) -> None:
        self.program, self.path = server, path

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        return control_client.ask(self.path, {"command": command, **fields}, BOUND)

    def do(self, command: str, **fields: Any) -> dict[str, Any]:
        reply = self.ask(command, **fields)
        assert reply["ok"], reply
        return reply

    def refused(self, command: str, **fields: Any) -> str:
        reply = self.ask(command, **fields)
        assert not reply["ok"], reply
        return str(reply["error"])

    def workers(self) -> list[dict[str, Any]]:
        return list(self.do("status")["workers"])


class StartControlled(Protocol):
    """The fixture ``controlled``."""

    def __call__(self, *arguments: str, **more: Any) -> ControlledProgram: ...


def release(folder: Path, version: int, before: str = "") -> None:
    (folder / "release.py").write_text(SOURCE.format(version=version, before=before))


def standing_at(gate: Gate) -> str:
    """Code that comes no further than ``gate``."""
    return f"open({str(gate.arrivals)!r}, 'w').write('.'); open({str(gate.passes)!r}).read(1)"
