"""A worker without a fork."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.log_files import opened_log
from harness.worker_process import StartWorker, WorkerUnderTest


@pytest.fixture
def start_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartWorker]:
    # It could not be taken back, and other tests fork.
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    made: list[WorkerUnderTest] = []
    with opened_log(tmp_path / "log", "debug", "worker=1 gen=1") as log:

        def start(**changes: Any) -> WorkerUnderTest:
            made.append(WorkerUnderTest(log, **changes))
            return made[-1]

        yield start
        for each in made:
            each.close()
