"""How many connections wait to be accepted."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from forkserver.linux.sockets import accept_queue

FAMILIES = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6, "Unix": socket.AF_UNIX}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_connection_that_waits_is_counted_until_it_is_accepted(family: str, tmp_path: Path) -> None:
    address: Any = {"IPv4": ("127.0.0.1", 0), "IPv6": ("::1", 0), "Unix": str(tmp_path / "a.sock")}[family]
    with socket.socket(FAMILIES[family]) as listening:
        listening.bind(address)
        listening.listen(8)
        clients = [socket.socket(FAMILIES[family]) for _ in range(3)]
        lengths = []
        for client in clients:
            client.connect(listening.getsockname())
            lengths.append(accept_queue.length(listening))
        listening.accept()[0].close()
        lengths.append(accept_queue.length(listening))
        for client in clients:
            client.close()
    assert lengths == [1, 2, 3, 2]


def test_what_the_kernel_does_not_tell_is_not_known() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.close()
        assert accept_queue.length(other) is None
