"""The figures of the status as metrics of Prometheus, by its conventions for names and units.

Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

WORKER_STATES: Final = ("starting", "serving", "stopped", "hung", "draining", "leaving", "killed")
# Reasons of ends that are zero until the first: `increase()` does not see the value with which a series begins.
END_REASONS: Final = (
    "timeout", "not ready", "recycled", "reload", "fewer workers", "killed by SIGSEGV (a crash)",
    "killed by SIGABRT (a crash)", "killed by SIGBUS (a crash)", "killed by SIGKILL (sent by the kernel)",
    "killed by SIGKILL (sent by the master)", "killed by SIGKILL (sent by another process)",
    "exit status 0 (by itself)", "exit status 1 (by itself)",
)  # fmt: skip
SERVICE_STATES: Final = ("starting", "serving", "reloading", "broken", "draining", "stopping")
_COUNTERS: Final = {
    "request_bytes": ("forkserver_request_body_bytes", "Bytes of the bodies of requests that were answered."),
    "answer_bytes": ("forkserver_answer_body_bytes", "Bytes of the bodies of answers."),
    "accepted": ("forkserver_accepted_connections", "Connections that workers have accepted."),
    "handed_on": ("forkserver_handed_on_connections", "Connections that a worker has handed on to another."),
}
_HISTOGRAMS: Final = {
    "application_seconds": ("forkserver_application_seconds", "How long calls of the application lasted."),
    "waiting_seconds": ("forkserver_waiting_seconds", "How long whole requests waited for the application."),
}


def of_status(status: Mapping[str, Any]) -> Iterator[Metric]:
    """The metrics of ``status``, as ``forkserverctl status --json`` has it."""
    yield from _of_requests(status["figures"])
    yield from _of_workers(status)
    yield from _of_service(status)


def _of_requests(figures: Mapping[str, Any]) -> Iterator[Metric]:
    answers = CounterMetricFamily("forkserver_answers", "Answers by the first digit of their status.", labels=["class"])
    for name, count in figures["answers"].items():
        answers.add_metric([name], count)
    yield answers
    for key, (name, text) in _COUNTERS.items():
        yield CounterMetricFamily(name, text, value=figures[key])
    for key, (name, text) in _HISTOGRAMS.items():
        yield _histogram(name, text, figures["bounds"], figures[key])


def _histogram(name: str, text: str, bounds: list[float], found: Mapping[str, Any]) -> Metric:
    buckets, total = [], 0
    for bound, count in zip((*map(str, bounds), "+Inf"), found["buckets"], strict=True):
        total += count
        buckets.append((bound, float(total)))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=found["sum"])


def _of_workers(status: Mapping[str, Any]) -> Iterator[Metric]:
    workers = status["workers"]
    states = Counter(each["state"] for each in workers)
    by_state = GaugeMetricFamily("forkserver_workers", "Workers by state.", labels=["state"])
    for state in dict.fromkeys((*WORKER_STATES, *states)):
        by_state.add_metric([state], states[state])
    yield by_state
    yield _gauge("workers_wanted", "Workers that there are to be.", status["wanted"])
    yield _gauge("threads", "Threads of workers that serve.", status["serving"] * status["threads"])
    busy = sum(len(each["busy"]) for each in workers)
    yield _gauge("busy_threads", "Threads that are in a call of the application.", busy)
    waiting = sum(each["waiting"] for each in workers)
    yield _gauge("waiting_requests", "Whole requests that no free thread has taken yet.", waiting)
    connections = GaugeMetricFamily(
        "forkserver_connections",
        "Open connections: parked between two requests, with an answer that its client has not taken, or active.",
        labels=["state"],
    )
    open_ones, parked, unsent = (sum(each[key] for each in workers) for key in ("held", "parked", "unsent"))
    for state, count in (("parked", parked), ("unsent", unsent), ("active", max(0, open_ones - parked - unsent))):
        connections.add_metric([state], count)
    yield connections
    yield _memory(status)
    ends = CounterMetricFamily("forkserver_worker_ends", "Workers that have ended, by reason.", labels=["reason"])
    for reason in dict.fromkeys((*END_REASONS, *status["ends"])):
        ends.add_metric([reason], status["ends"].get(reason, 0))
    yield ends


def _memory(status: Mapping[str, Any]) -> Metric:
    """By number of the worker, which outlives a worker; while one is replaced, both count."""
    memory: Counter[str] = Counter({"master": status["master"]["memory"]})
    for each in status["workers"]:
        memory[f"worker {each['worker']}"] += each["memory"]
    family = GaugeMetricFamily("forkserver_memory_bytes", "Resident set of a process.", labels=["process"])
    for process, size in memory.items():
        family.add_metric([process], size)
    return family


def _of_service(status: Mapping[str, Any]) -> Iterator[Metric]:
    backlog = GaugeMetricFamily("forkserver_backlog", "Connections that wait to be accepted.", labels=["listener"])
    for name, count in _by_name(status).items():
        backlog.add_metric([name], count)
    yield backlog
    reloads = CounterMetricFamily("forkserver_reloads", "Reloads by their outcome.", labels=["outcome"])
    for outcome, count in status["reloads"].items():
        reloads.add_metric([outcome], count)
    yield reloads
    yield CounterMetricFamily(
        "forkserver_lost_log_lines", "Lines that could not be written to the logs.", value=status["lost_log_lines"]
    )
    yield _gauge("generation", "Number of the generation that serves; 0 before the first.", status["generation"])
    if status["generation_seconds"] is not None:
        yield _gauge("generation_age_seconds", "Since that generation serves.", status["generation_seconds"])
    yield _gauge("uptime_seconds", "Since the service was started; an upgrade in place goes on.", status["seconds"])
    yield _gauge("maintenance", "Whether 503 is answered in place of the application.", status["maintenance"])
    yield _gauge(
        "files_changed", "Whether files on disk are not what serves: a crash would load them.", status["files_changed"]
    )
    state = GaugeMetricFamily("forkserver_state", "What the service does: 1 for its state.", labels=["state"])
    for each in SERVICE_STATES:
        state.add_metric([each], each == status["state"])
    yield state
    labels = {"version": status["version"], "app": status["app"] or "", "accelerator": str(status["accelerator"])}
    yield InfoMetricFamily("forkserver", "The program that serves, and the application.", value=labels)


def _by_name(status: Mapping[str, Any]) -> Counter[str]:
    found: Counter[str] = Counter()
    for name, count in zip(status["listeners"], status["backlogs"], strict=False):
        found[name] += count or 0
    return found


def _gauge(name: str, text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(f"forkserver_{name}", text, value=float(value or 0))
