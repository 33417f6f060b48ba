"""A control socket and clients beside it."""

from __future__ import annotations

import json
import select
import socket
from typing import Any

from forkserver.master.control import listener as control_listener
from forkserver.master.control.socket import (
    ControlClient,
    ControlSocket,
)

NOW = 1000.0
STATUS = b'{"command": "status"}\n'


class ControlClients:
    """A control socket, and clients beside it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.control = ControlSocket(control_listener.listen(path))
        self.connected: list[socket.socket] = []

    def connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.connect(self.path)
        made.settimeout(20)
        self.connected.append(made)
        return made

    def turn(self, now: float = NOW) -> list[ControlClient]:
        """Turn until there is nothing to do."""
        asked: list[ControlClient] = []
        while select.select([self.control.fileno()], [], [], 0)[0]:
            asked += self.control.turn(now)
        return asked + self.control.turn(now)

    def close(self) -> None:
        for client in self.connected:
            client.close()
        self.control.close()


def heard(client: socket.socket) -> dict[str, Any]:
    """The whole answer, to the end of the connection."""
    data = b""
    while block := client.recv(65536):
        data += block
    found = json.loads(data)
    assert isinstance(found, dict)
    return found
