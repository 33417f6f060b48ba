"""Fixtures of several folders, and how properties are searched.

The time that an example takes says how busy the machine is, and fails no test.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture
def short_default_timeout() -> Iterator[None]:
    """Sockets are made with a timeout of 10 ms, as an application may ask for."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.01)
    yield
    socket.setdefaulttimeout(before)
