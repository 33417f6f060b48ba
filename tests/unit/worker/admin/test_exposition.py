"""The metrics, as Prometheus reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from forkserver.logs.error_log import ErrorLog
from forkserver.worker.admin.exposition import Exposition, exposition

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
COUNTING = """
import sys
from prometheus_client import Counter, Gauge
Counter("orders", "Orders.").inc(2)
Counter("forkserver_answers", "Not ours.").inc(2)
Gauge("waiting", "Waiting.", multiprocess_mode="livesum").set(3)
Gauge("seen", "Seen.", multiprocess_mode="mostrecent").set(4)
print("counted", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def log() -> ErrorLog:
    return ErrorLog("-", "info", "test")


def samples(text: str, reader: Any = parse) -> dict[str, float]:
    found = [each for family in reader(text) for each in family.samples]
    return {f"{each.name}{sorted(each.labels.items()) or ''}": each.value for each in found}


def counting(folder: Path) -> subprocess.Popen[str]:
    """A process of the application that counts in ``folder``, until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTING],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def test_the_figures_have_names_by_the_conventions(status: dict[str, Any], log: ErrorLog) -> None:
    body, content_type = exposition(None, log).render(status, "")
    assert content_type.startswith("text/plain; version=0.0.4")
    found = samples(body.decode())
    assert found["forkserver_answers_total[('class', '2xx')]"] == 7
    assert found["forkserver_request_body_bytes_total"] == 20
    assert found["forkserver_workers[('state', 'draining')]"] == 1
    assert found["forkserver_workers[('state', 'hung')]"] == 0, "a state without a worker is a zero, not a gap"
    assert found["forkserver_busy_threads"] == 3
    assert found["forkserver_threads"] == 8
    assert found["forkserver_connections[('state', 'active')]"] == 3
    assert found["forkserver_backlog[('listener', 'http://127.0.0.1:8000')]"] == 3
    assert found["forkserver_worker_ends_total[('reason', 'crash (SIGSEGV)')]"] == 1
    assert found["forkserver_worker_ends_total[('reason', 'timeout')]"] == 0, "increase() sees the first one, too"
    assert found["forkserver_reloads_total[('outcome', 'done')]"] == 1
    assert found["forkserver_memory_bytes[('process', 'worker 2')]"] == 2000, "both, while one is replaced"
    assert found["forkserver_info[('accelerator', 'C'), ('app', 'site:app'), ('version', '1.2')]"] == 1


def test_a_histogram_is_cumulative(status: dict[str, Any], log: ErrorLog) -> None:
    found = samples(exposition(None, log).render(status, "")[0].decode())
    buckets = [value for name, value in found.items() if name.startswith("forkserver_waiting_seconds_bucket")]
    assert buckets[:3] == [1, 3, 3]
    assert found["forkserver_waiting_seconds_bucket[('le', '+Inf')]"] == 3
    assert found["forkserver_waiting_seconds_count"] == 3
    assert found["forkserver_waiting_seconds_sum"] == 1.5


def test_openmetrics_is_given_where_it_is_asked_for(status: dict[str, Any], log: ErrorLog) -> None:
    body, content_type = exposition(None, log).render(status, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert samples(body.decode(), parse_openmetrics)["forkserver_answers_total[('class', '2xx')]"] == 7


@pytest.mark.parametrize("version", ["abc", "9" * 5000, "\xff"])
def test_a_version_that_is_none_is_answered_as_if_none_were_asked_for(
    status: dict[str, Any], log: ErrorLog, version: str
) -> None:
    """No client can fill the log with faults."""
    body, content_type = exposition(None, log).render(status, f"application/openmetrics-text; version={version}")
    assert content_type.startswith("text/plain; version=0.0.4")
    assert samples(body.decode())["forkserver_answers_total[('class', '2xx')]"] == 7


def test_a_service_that_starts_has_metrics_too(status: dict[str, Any], log: ErrorLog) -> None:
    nothing = {"generation": None, "generation_seconds": None, "workers": [], "serving": 0, "state": "starting"}
    found = samples(exposition(None, log).render(status | nothing, "")[0].decode())
    assert found["forkserver_generation"] == 0
    assert "forkserver_generation_age_seconds" not in found


def test_what_the_application_counts_is_merged_in(status: dict[str, Any], tmp_path: Path, log: ErrorLog) -> None:
    """And can take the place of nothing that the server counts."""
    shown = exposition(str(tmp_path), log)
    first, second = counting(tmp_path), counting(tmp_path)
    try:
        found = samples(shown.render(status, "")[0].decode())
        assert found["orders_total"] == 4
        assert found["waiting"] == 6
        assert found["forkserver_answers_total[('class', '2xx')]"] == 7
        assert found["forkserver_application_metrics_readable"] == 1
    finally:
        first.communicate()
        second.communicate()


def test_gauges_of_processes_that_have_ended_are_removed(status: dict[str, Any], tmp_path: Path, log: ErrorLog) -> None:
    """Counters stay, or a sum would fall; so do gauges that are not of living processes alone."""
    counting(tmp_path).communicate()
    found = samples(exposition(str(tmp_path), log).render(status, "")[0].decode())
    assert "waiting" not in found
    assert (found["orders_total"], found["seen"]) == (2, 4)
    assert not list(tmp_path.glob("gauge_live*"))


def test_a_folder_that_is_not_there_yet_is_no_fault(status: dict[str, Any], tmp_path: Path, log: ErrorLog) -> None:
    found = samples(exposition(str(tmp_path / "later"), log).render(status, "")[0].decode())
    assert found["forkserver_application_metrics_readable"] == 1


def test_without_the_library_it_is_named(log: ErrorLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    made: Exposition = exposition(None, log)
    assert "forkserver-wsgi[metrics]" in made.missing
