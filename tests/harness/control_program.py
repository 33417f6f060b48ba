"""forkserverctl in the process of the test, and what a master could answer it."""

from __future__ import annotations

import pytest

from forkserver.cli import control as ctl

STATUS = {
    "ok": True, "version": "1.2.3", "app": "myapp:app", "state": "serving", "text": "generation 2 serves: 1 worker",
    "generation": 2, "maintenance": False, "last_failure": "", "seconds": 11222.5, "requests": 1234567,
    "listeners": ["http://127.0.0.1:8000"], "wanted": 1, "serving": 1, "ends": {"reload": 4, "timeout": 1},
    "master": {"pid": 40, "memory": 1 << 24},
    "workers": [
        {"worker": 1, "pid": 41, "generation": 2, "state": "serving", "seconds": 59.9, "requests": 7, "held": 3,
         "parked": 2, "unsent": 1, "waiting": 0, "accelerated": 1000, "declined": 3, "memory": 25 << 20,
         "busy": [{"request": "GET /\x1b]0;owned\x07\x9b2J", "seconds": 3.21}]},
        {"worker": 2, "pid": 0, "generation": 2, "state": "ordered", "seconds": None, "requests": 0, "held": 0,
         "parked": 0, "unsent": 0, "waiting": 0, "accelerated": 234, "declined": 4, "memory": 0, "busy": []},
    ],
}  # fmt: skip


def run(capfd: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        status = ctl.main(argv)
    except SystemExit as ended:
        status = int(ended.code or 0)
    return status, *capfd.readouterr()
