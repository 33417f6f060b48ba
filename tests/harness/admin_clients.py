"""Asking the admin process of a program as curl does."""

from __future__ import annotations

import http.client
import re
import socket
from typing import Any

from harness import BOUND
from harness.controlled import ControlledProgram
from harness.program import Program

STARTED = r"admin process, pid (\d+), at (\S+)"


class AdminClient:
    """The endpoints of the admin process that ``program`` has started last."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def _told(self) -> re.Match[str]:
        self.program.log.wait(STARTED)
        found = re.findall(STARTED, self.program.log.text())[-1]
        told = re.fullmatch(r"(\d+) (\S+)", " ".join(found))
        assert told is not None
        return told

    @property
    def pid(self) -> int:
        return int(self._told()[1])

    @property
    def address(self) -> Any:
        """``(host, port)``, or the path of a Unix socket."""
        name = self._told()[2]
        if name.startswith("unix:"):
            return name.removeprefix("unix:")
        host, _, port = name.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)

    def connect(self) -> socket.socket:
        address = self.address
        made = socket.socket(socket.AF_UNIX) if isinstance(address, str) else socket.create_connection(address, BOUND)
        made.settimeout(BOUND)
        if isinstance(address, str):
            made.connect(address)
        return made

    def ask(self, path: str, method: str = "GET", **fields: str) -> tuple[int, str, http.client.HTTPMessage]:
        """Status, body and fields of one answer; ``fields`` are header fields."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self.connect()
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in fields.items()})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def sample(self, name: str) -> float:
        """The value of one sample, written as in the exposition."""
        body = self.ask("/metrics")[1]
        found = re.search(rf"(?m)^{re.escape(name)} (\S+)$", body)
        assert found is not None, f"{name} is not in\n{body}"
        return float(found[1])


def admin_of(service: ControlledProgram) -> AdminClient:
    return AdminClient(service.program)
