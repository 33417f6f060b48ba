"""Prometheus itself, which scrapes the admin process of a program under test."""

from __future__ import annotations

import json
import select
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from forkserver.linux.syscalls import monotonic
from harness import BOUND, needs
from harness.admin_clients import AdminClient
from harness.program import own_address

CONFIG = """
global: {{scrape_interval: {interval}ms, scrape_timeout: {timeout}ms}}
scrape_configs:
  - job_name: forkserver
    static_configs: [{{targets: ["{host}:{port}"]}}]
"""


class Prometheus:
    """A server that scrapes ``admin`` every ``interval`` milliseconds, with its files in ``folder``."""

    def __init__(self, admin: AdminClient, folder: Path, interval: int = 500) -> None:
        host, port = admin.address
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(interval=interval, timeout=interval * 4 // 5, host=host, port=port))
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

    def series(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The labels and values that ``expression`` has now."""
        asked = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://{self._address}/api/v1/query?{asked}", timeout=BOUND) as answer:
            found: Any = json.load(answer)
        return [(each["metric"], float(each["value"][1])) for each in found["data"]["result"]]

    def query(self, expression: str) -> list[float]:
        """The values that ``expression`` has now."""
        return [value for _, value in self.series(expression)]

    def until(self, expression: str) -> None:
        """Return when ``expression`` has a value."""
        end = monotonic() + BOUND
        while not self.query(expression):
            assert monotonic() < end, f"{expression} does not come true"
            select.select([], [], [], 0.05)

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=BOUND)
