"""The figures of a service: what clients were answered, and how long it took, over all that happens to its workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from harness.controlled import ControlledProgram, StartControlled
from harness.load import Load
from harness.upgrading import upgrade

SITE = """
import time
from raw import app as raw

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.03)
    if environ["PATH_INFO"] == "/missing":
        start_response("404 Not Found", [("Content-Length", "4")])
        return [b"gone"]
    return raw(environ, start_response)
"""


@pytest.fixture
def service(controlled: StartControlled, tmp_path: Path) -> ControlledProgram:
    (tmp_path / "mysite.py").write_text(SITE)
    return controlled("mysite:app", "-w", "2", "--limit-request-fields", "20")


def figures_of(service: ControlledProgram, answers: int) -> dict[str, Any]:
    """The figures when so many answers are counted: a client may read one before its worker counts it."""
    service.program.until(lambda: sum(service.do("status")["figures"]["answers"].values()) >= answers, "the count")
    found: dict[str, Any] = service.do("status")["figures"]
    return found


def test_answers_are_counted_by_class_with_their_bytes_and_times(service: ControlledProgram) -> None:
    with service.program.connect() as wire:
        assert wire.get("/slow").status == 200
        assert wire.get("/missing").status == 404
        assert wire.get("/fail").status == 500
    with service.program.connect() as wire:
        assert wire.get("/", headers="X: y\r\n" * 30).status == 431
    figures = figures_of(service, 4)
    assert figures["answers"] == {"other": 0, "1xx": 0, "2xx": 1, "3xx": 0, "4xx": 2, "5xx": 1}
    assert figures["answer_bytes"] > 4
    for name in ("application_seconds", "waiting_seconds"):
        assert figures[name]["count"] == sum(figures[name]["buckets"]) == 3, (
            "the application was not asked for the last"
        )
    assert figures["application_seconds"]["sum"] >= 0.03
    first = next(number for number, bound in enumerate(figures["bounds"]) if bound >= 0.03)
    assert sum(figures["application_seconds"]["buckets"][first:]) >= 1


def test_bodies_of_requests_are_counted(service: ControlledProgram) -> None:
    with service.program.connect() as wire:
        wire.ask("/hello", method="POST", body=bytes(1000))
        assert wire.answer().status == 200
    assert figures_of(service, 1)["request_bytes"] == 1000


def _sums(figures: dict[str, Any]) -> list[float]:
    histograms = [figures[name] for name in ("application_seconds", "waiting_seconds")]
    return [
        *figures["answers"].values(),
        *(figures[name] for name in ("accepted", "handed_on", "request_bytes", "answer_bytes")),
        *(each[name] for each in histograms for name in ("sum", "count")),
        *(bucket for each in histograms for bucket in each["buckets"]),
    ]


def test_no_figure_falls_over_deaths_reloads_and_an_upgrade(service: ControlledProgram, tmp_path: Path) -> None:
    program = service.program
    before = _sums(service.do("status")["figures"])

    def rises() -> None:
        nonlocal before
        now = _sums(service.do("status")["figures"])
        assert all(earlier <= later for earlier, later in zip(before, now, strict=True)), (before, now)
        before = now

    with Load(program.address, clients=2) as load:
        program.reload()
        rises()
        victim = program.workers()[0].pid
        os.kill(victim, signal.SIGKILL)
        program.log.wait(rf"pid={victim} ended")
        rises()
        (tmp_path / "mysite.py").write_text("raise RuntimeError('broken')\n")
        since = program.log.mark()
        program.send(signal.SIGHUP)
        program.log.wait("reload failed", since)
        (tmp_path / "mysite.py").write_text(SITE)
        rises()
        upgrade(program)
        rises()
    status = service.do("status")
    assert status["reloads"] == {"done": 2, "refused": 1}, "an upgrade brings a generation, too"
    assert 0 <= status["generation_seconds"] <= status["seconds"]
    # The killed worker may have answered both clients, and counted neither.
    figures_of(service, len(load.answers) - 2)


def test_the_connections_that_no_worker_has_accepted_yet_are_told(service: ControlledProgram) -> None:
    status = service.do("status")
    assert status["backlogs"] == [0]
    assert len(status["backlogs"]) == len(status["listeners"])
