"""A client whose handshake is through."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import credentials
from harness.memory_client import Client


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    return credentials.server(tmp_path)


@pytest.fixture
def client(tls: ssl.SSLContext) -> Iterator[Client]:
    made = Client(tls)
    made.shake()
    yield made
    made.connection.close()
