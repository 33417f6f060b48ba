"""Files in deploy/ for Prometheus, Grafana and the adapter: they are read, and ask for nothing that is not there."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import needs
from harness.admin_clients import admin_of
from harness.controlled import StartControlled

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES, DASHBOARD = DEPLOY / "prometheus-rules.yml", DEPLOY / "grafana-dashboard.json"
ADAPTER, SCALER = DEPLOY / "prometheus-adapter.yaml", DEPLOY / "kubernetes-monitoring.yaml"
NAME = re.compile(r"\bforkserver_[a-z_]+")
UNIT_TEST = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'forkserver_answers_total{{class="2xx", instance="a"}}', values: '0+90x30'}}
      - {{series: 'forkserver_answers_total{{class="5xx", instance="a"}}', values: '0+10x30'}}
      - {{series: 'forkserver_workers{{state="serving", instance="a"}}', values: '2x10 0x20'}}
      - {{series: 'forkserver_busy_threads{{instance="a"}}', values: '4x30'}}
      - {{series: 'forkserver_threads{{instance="a"}}', values: '4x10 0x20'}}
      - {{series: 'forkserver_worker_ends_total{{reason="timeout", instance="a"}}', values: '0+1x30'}}
      - {{series: 'forkserver_worker_ends_total{{reason="recycled", instance="a"}}', values: '0+9x30'}}
      - {{series: 'forkserver_reloads_total{{outcome="refused", instance="a"}}', values: '0x20 1x10'}}
    promql_expr_test:
      - {{expr: 'sum(forkserver:busy_share)', eval_time: 5m, exp_samples: [{{labels: '{{}}', value: 1}}]}}
      - {{expr: 'forkserver:busy_share', eval_time: 25m, exp_samples: []}}
      - {{expr: 'round(sum(forkserver:error_share) * 100)', eval_time: 20m, exp_samples: [
          {{labels: '{{}}', value: 10}}]}}
      - {{expr: 'count by (alertname) (ALERTS{{alertstate="firing"}})', eval_time: 25m, exp_samples: [
          {{labels: '{{alertname="ForkserverErrors"}}', value: 1}},
          {{labels: '{{alertname="ForkserverReloadRefused"}}', value: 1}},
          {{labels: '{{alertname="ForkserverServesNothing"}}', value: 1}},
          {{labels: '{{alertname="ForkserverWorkersDie"}}', value: 1}}]}}
"""


def expressions(found: Any) -> Iterator[str]:
    """Every query in a dashboard."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name in ("expr", "query") and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(found, list):
        for each in found:
            yield from expressions(each)


def promtool(*arguments: str) -> None:
    ran = subprocess.run([needs.program("promtool"), *arguments], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_prometheus_reads_the_rules() -> None:
    promtool("check", "rules", str(RULES))


def test_the_alerts_fire_for_what_they_name_and_for_nothing_else(tmp_path: Path) -> None:
    test = tmp_path / "test.yml"
    test.write_text(UNIT_TEST.format(rules=RULES))
    promtool("test", "rules", str(test))


def test_the_dashboard_asks_for_what_prometheus_can_evaluate(tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    queries = [query for query in expressions(dashboard) if "label_values" not in query and "forkserver" in query]
    assert len(queries) > len(places)
    rules = [
        {"record": f"test:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    path = tmp_path / "dashboard.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(path))


ADAPTED = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {{series: 'forkserver_busy_threads{{namespace="shop", pod="a"}}', values: '4 0 4 0 4 0 4 0 4 0'}}
      - {{series: 'forkserver_threads{{namespace="shop", pod="a"}}', values: '4x10'}}
      - {{series: 'forkserver_busy_threads{{namespace="shop", pod="starts"}}', values: '0x10'}}
      - {{series: 'forkserver_threads{{namespace="shop", pod="starts"}}', values: '0x10'}}
      - {{series: 'forkserver_busy_threads{{namespace="other", pod="a"}}', values: '4x10'}}
      - {{series: 'forkserver_threads{{namespace="other", pod="a"}}', values: '4x10'}}
    promql_expr_test:
      - {{expr: 'round(adapted * 2)', eval_time: 120s, exp_samples: [{{labels: '{{pod="a"}}', value: 1}}]}}
"""


def test_the_adapter_makes_the_busy_share_of_each_pod(tmp_path: Path) -> None:
    """A pod without a thread that serves yet has none, in place of a division by nought."""
    yaml = pytest.importorskip("yaml")
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod")
    query = query.replace("<<.LabelMatchers>>", 'namespace="shop",pod=~"a|starts"')
    rules, test = tmp_path / "adapter.yml", tmp_path / "test.yml"
    rules.write_text(json.dumps({"groups": [{"name": "adapter", "rules": [{"record": "adapted", "expr": query}]}]}))
    test.write_text(ADAPTED.format(rules=rules))
    promtool("check", "rules", str(rules))
    promtool("test", "rules", str(test))


@pytest.mark.parametrize("path", [RULES, DASHBOARD, ADAPTER, SCALER], ids=lambda path: path.name)
def test_every_metric_that_is_asked_for_is_there(controlled: StartControlled, path: Path) -> None:
    service = controlled("raw:app", "--admin-bind", "127.0.0.1:0")
    there = set(NAME.findall(admin_of(service).ask("/metrics")[1]))
    there.add("forkserver_busy_share")  # the adapter makes it of others
    asked = set(NAME.findall(path.read_text()))
    assert asked
    assert asked <= there
