"""Prometheus itself scrapes a service through all that may happen to it, and sees no counter fall."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.admin_clients import admin_of
from harness.controlled import ControlledProgram, StartControlled
from harness.load import Load
from harness.prometheus import Prometheus
from harness.upgrading import upgrade


@pytest.fixture
def service(controlled: StartControlled) -> ControlledProgram:
    return controlled("raw:app", "-w", "2", "--admin-bind", "127.0.0.1:0")


@pytest.fixture
def prometheus(service: ControlledProgram, tmp_path: Path) -> Iterator[Prometheus]:
    made = Prometheus(admin_of(service), tmp_path)
    yield made
    made.close()


def test_no_counter_falls_over_reloads_deaths_and_an_upgrade(
    service: ControlledProgram, prometheus: Prometheus
) -> None:
    program = service.program
    prometheus.until('up{job="forkserver"} == 1')
    with Load(program.address, clients=2) as load:
        program.reload()
        os.kill(program.workers()[0].pid, signal.SIGKILL)
        prometheus.until("sum(forkserver_worker_ends_total) > 2")
        os.kill(admin_of(service).pid, signal.SIGKILL)
        upgrade(program)
        prometheus.until('forkserver_reloads_total{outcome="done"} == 2')
        prometheus.until("forkserver_workers{state='serving'} == 2")
    least = len(load.answers) - 1  # the killed worker's last is not counted, where it had sent it
    prometheus.until(f'forkserver_answers_total{{class="2xx"}} >= {least}')
    prometheus.until(f"forkserver_application_seconds_count >= {least}")
    counters = re.findall(r"(?m)^# TYPE (\S+) counter$", admin_of(service).ask("/metrics")[1])
    for name in (*counters, "forkserver_application_seconds_bucket", "forkserver_waiting_seconds_sum"):
        assert set(prometheus.query(f"resets({name}[10m])")) == {0.0}, name
