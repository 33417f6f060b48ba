"""A status as the master gives it."""

from __future__ import annotations

from typing import Any

import pytest

from forkserver.ipc import figures


def histogram(*buckets: int) -> dict[str, Any]:
    rest = [0] * (figures.BUCKETS - len(buckets))
    return {"sum": 1.5, "count": sum(buckets), "buckets": [*buckets, *rest]}


def worker(number: int, **more: Any) -> dict[str, Any]:
    return {
        "worker": number, "pid": 100 + number, "generation": 2, "state": "serving", "seconds": 3.0, "requests": 5,
        "held": 4, "parked": 2, "unsent": 1, "waiting": 1, "accelerated": 0, "declined": 0, "memory": 1000,
        "busy": [{"request": "GET /", "request_id": "x", "seconds": 0.1, "websocket": False}], **more,
    }  # fmt: skip


@pytest.fixture
def status() -> dict[str, Any]:
    return {
        "ok": True, "version": "1.2", "app": "site:app", "state": "serving", "text": "serving", "generation": 2,
        "maintenance": False, "files_changed": False, "last_failure": "", "seconds": 60.0,
        "listeners": ["http://127.0.0.1:8000", "unix:/x"], "backlogs": [3, None], "wanted": 2, "serving": 2,
        "threads": 4, "requests": 10, "clients_wait": False, "accelerator": "C", "ends": {"crash (SIGSEGV)": 1},
        "reloads": {"done": 1, "refused": 0}, "generation_seconds": 30.0,
        "figures": {
            "answers": {"other": 0, "1xx": 0, "2xx": 7, "3xx": 0, "4xx": 2, "5xx": 1}, "accepted": 3, "handed_on": 1,
            "request_bytes": 20, "answer_bytes": 30, "bounds": [bound / 1e9 for bound in figures.BOUNDS],
            "waiting_seconds": histogram(1, 2), "application_seconds": histogram(0, 0, 3),
        },
        "lost_log_lines": 0, "workers": [worker(1), worker(2), worker(2, state="draining", generation=1)],
        "master": {"pid": 1, "memory": 500}, "admin": {"pid": 9, "address": "http://127.0.0.1:9100"},
        "slow": [{"request": "GET /slow"}],
    }  # fmt: skip
