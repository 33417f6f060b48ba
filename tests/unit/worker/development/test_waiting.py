"""What serves until an application loads for the first time."""

from __future__ import annotations

from typing import Any

from forkserver.worker.development import waiting
from forkserver.worker.loading.application import resolve


def test_every_request_is_told_to_come_again() -> None:
    said: list[Any] = []
    body = b"".join(resolve(waiting.NAME)({}, lambda status, fields: said.extend((status, dict(fields)))))
    assert said[0] == "503 Service Unavailable"
    assert said[1]["Content-Length"] == str(len(body))
    assert b"Waiting" in body
