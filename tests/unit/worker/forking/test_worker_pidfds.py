"""The pidfds of a template's workers."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from forkserver.worker.forking.worker_pidfds import WorkerPidfds


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_worker_that_has_ended_is_forgotten(child: subprocess.Popen[bytes]) -> None:
    workers = WorkerPidfds()
    workers.add([os.pidfd_open(child.pid)])
    workers.wait(0.0)
    assert len(workers.numbers) == 1
    child.communicate(b"\n", timeout=30)
    workers.wait(30.0)
    assert workers.numbers == []
    assert workers.kill() == 0


def test_a_worker_that_has_not_left_is_killed(child: subprocess.Popen[bytes]) -> None:
    workers = WorkerPidfds()
    workers.add([os.pidfd_open(child.pid)])
    assert workers.kill() == 1
    assert child.wait(timeout=30) == -signal.SIGKILL
    workers.close()
    assert workers.numbers == []


def test_another_descriptor_that_is_ready_is_left_open(child: subprocess.Popen[bytes]) -> None:
    workers = WorkerPidfds()
    reading, writing = os.pipe()
    os.close(writing)
    workers.forget_ended([reading])
    assert select.select([reading], [], [], 0)[0] == [reading]
    os.close(reading)
