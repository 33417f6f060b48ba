"""503 in place of the application, but for the health path."""

from __future__ import annotations

from typing import Any

import pytest

from forkserver.server.wsgi.maintenance import MaintenancePage
from harness.asking import ok


def answer(health: str | None, path: str) -> tuple[str, dict[str, str], bytes]:
    said: list[Any] = []
    body = MaintenancePage(lambda: ok, health)({"PATH_INFO": path}, lambda *head: said.extend(head))
    return said[0], dict(said[1]), b"".join(body)


@pytest.mark.parametrize(
    ("health", "path"), [("/healthz", "/healthz"), ("/healthz?deep=1", "/healthz"), ("/a%20b/%C3%A4", "/a b/\xc3\xa4")]
)
def test_the_health_path_goes_to_the_application(health: str, path: str) -> None:
    """A balancer that finds it well keeps its clients here, where they are told to come again."""
    status, _, body = answer(health, path)
    assert (status, body) == ("200 OK", b"ok")


@pytest.mark.parametrize(
    ("health", "path"), [("/healthz", "/healthz/"), ("/healthz", "/"), ("/healthz", ""), (None, "/healthz")]
)
def test_every_other_request_is_told_when_to_come_again(health: str | None, path: str) -> None:
    status, fields, body = answer(health, path)
    assert status == "503 Service Unavailable"
    assert fields["Content-Length"] == str(len(body))
    assert (fields["Retry-After"], fields["Cache-Control"]) == ("30", "no-store")
