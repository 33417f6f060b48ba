"""Answers to ``status`` as a master of today gives them, for what is drawn of them."""

from __future__ import annotations

from typing import Any

from forkserver.cli.top.rates import RecentReadings
from forkserver.cli.top.reading import read
from forkserver.ipc import figures

BOUNDS = [bound / 1e9 for bound in figures.BOUNDS]


def buckets(**counts: int) -> dict[str, Any]:
    """A histogram with so many times in the buckets of these numbers (``b3=2``)."""
    made = [0] * figures.BUCKETS
    for name, count in counts.items():
        made[int(name[1:])] = count
    return {"sum": 0.0, "count": sum(made), "buckets": made}


def worker_of(number: int, **more: Any) -> dict[str, Any]:
    return {
        "worker": number, "pid": 100 + number, "generation": 1, "state": "serving", "seconds": 60.0, "requests": 0,
        "held": 3, "parked": 2, "unsent": 0, "waiting": 0, "memory": 45 << 20, "application_seconds": 0.0, "busy": [],
    } | more  # fmt: skip


def status_of(at: float, **more: Any) -> dict[str, Any]:
    workers = more.pop("workers", [worker_of(1), worker_of(2)])
    answers = {"other": 0, "1xx": 0, "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0} | more.pop("answers", {})
    return {
        "ok": True, "version": "1.2.3", "app": "myapp:app", "state": "serving",
        "text": "generation 1 serves: 2 workers",
        "generation": 1, "generation_seconds": at, "maintenance": False, "files_changed": False, "last_failure": "",
        "seconds": at, "listeners": ["http://127.0.0.1:8000"], "unreachable": [], "backlogs": [0], "wanted": 2,
        "serving": 2, "threads": 2, "requests": 0, "clients_wait": False, "ends": {}, "last_deaths": [],
        "reloads": {"done": 0, "refused": 0}, "lost_log_lines": 0, "master": {"pid": 40, "memory": 1 << 24},
        "workers": workers,
        "figures": {
            "answers": answers, "accepted": 0, "handed_on": 0, "request_bytes": 0, "answer_bytes": 0, "bounds": BOUNDS,
            "waiting_seconds": more.pop("waiting", buckets()),
            "application_seconds": more.pop("application", buckets()),
        } | more.pop("figures", {}),
    } | more  # fmt: skip


def call_of(request: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {"request": request, "request_id": "", "seconds": seconds, "websocket": False} | more


def readings_of(*statuses: dict[str, Any]) -> RecentReadings:
    readings = RecentReadings()
    for status in statuses:
        readings.note(read(status))
    return readings
