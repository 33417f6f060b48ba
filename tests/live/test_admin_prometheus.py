"""Prometheus itself scrapes a service through all that may happen to it, and sees no counter fall."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.linux.syscalls import monotonic
from harness import BOUND, needs
from harness.admin_clients import AdminClient, admin_of
from harness.controlled import ControlledProgram, StartControlled
from harness.load import Load
from harness.program import own_address
from harness.upgrading import upgrade

CONFIG = """
global: {{scrape_interval: 500ms, scrape_timeout: 400ms}}
scrape_configs:
  - job_name: forkserver
    static_configs: [{{targets: ["{host}:{port}"]}}]
"""


class Prometheus:
    """A server that scrapes ``admin`` every half second."""

    def __init__(self, admin: AdminClient, folder: Path) -> None:
        host, port = admin.address
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(host=host, port=port))
        self._address = f"{own_address()[0]}:9090"
        self._process = subprocess.Popen(
            [
                needs.program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self._address}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        said = next((line for line in self._process.stderr if "Server is ready" in line), "")
        assert said, "prometheus does not start"

    def query(self, expression: str) -> list[float]:
        """The values that ``expression`` has now."""
        asked = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://{self._address}/api/v1/query?{asked}", timeout=BOUND) as answer:
            found: Any = json.load(answer)
        return [float(each["value"][1]) for each in found["data"]["result"]]

    def until(self, expression: str) -> None:
        """Return when ``expression`` has a value."""
        end = monotonic() + BOUND
        while not self.query(expression):
            assert monotonic() < end, f"{expression} does not come true"
            select.select([], [], [], 0.05)

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=BOUND)


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
