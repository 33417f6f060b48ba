"""A rotation may compress the old log files once no process writes to them, and the master says when that is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from forkserver.ipc import messages
from harness.master import Child, MakeService, Service

DONE = "log files are opened again"


def told(child: Child) -> list[messages.LogFiles]:
    return [each for each in child.orders if isinstance(each, messages.LogFiles)]


def reopen(service: Service) -> None:
    """USR1; no process has answered."""
    service.obedient = False
    service.signals.send(signal.SIGUSR1)
    service.turn()


def test_each_process_gets_the_new_files(service: Service) -> None:
    reopen(service)
    everyone = [*service.templates, *service.workers]
    assert [told(each) for each in everyone] == [[messages.LogFiles(error=True, access=False)]] * 3


def test_the_end_is_told_when_the_last_one_has_answered(service: Service) -> None:
    reopen(service)
    last, *others = (*service.workers, *service.templates)
    for each in others:
        each.report(messages.LogsAdopted())
    service.turn()
    assert DONE not in service.said()
    last.report(messages.LogsAdopted())
    service.turn()
    assert service.said().count(DONE) == 1


def test_a_process_that_ends_writes_to_no_file_any_more(service: Service) -> None:
    reopen(service)
    for each in (*service.workers, *service.templates):
        service.end(each, signal.SIGKILL)
    service.turn()
    assert DONE in service.said()


def test_a_worker_that_has_not_started_is_told_and_not_waited_for(make_service: MakeService) -> None:
    service = make_service()
    service.until(lambda: service.templates)
    reopen(service)
    assert DONE in service.said()
    assert told(service.templates[0])


def test_the_masters_own_lines_go_to_the_new_file(service: Service, tmp_path: Path) -> None:
    Path(service.folder / "error.log").rename(tmp_path / "rotated")
    service.signals.send(signal.SIGUSR1)
    service.turn()
    assert os.fstat(service.resources.log.fileno()).st_ino == (service.folder / "error.log").stat().st_ino


def test_a_file_that_cannot_be_opened_again_is_no_part_of_those_that_are(service: Service, tmp_path: Path) -> None:
    (log := service.folder / "error.log").rename(rotated := tmp_path / "rotated")
    log.mkdir()
    service.signals.send(signal.SIGUSR1)
    service.until(lambda: DONE in rotated.read_text())
    assert "warning" in rotated.read_text()
    assert f"{DONE}, but for 1: the old is written on" in rotated.read_text()
    log.rmdir()
    service.signals.send(signal.SIGUSR1)
    service.turn()
    service.until(lambda: DONE in service.said())
    assert "but for" not in service.said()


def test_what_is_waited_for_is_named_by_place_and_taken_up_again(service: Service) -> None:
    reopening = service.master._dispatch._log_reopening
    processes = service.fleet.processes
    places = {process: place for place, process in enumerate(processes)}
    assert reopening.snapshot(places) is None
    reopen(service)
    service.workers[0].report(messages.LogsAdopted())
    service.turn()
    assert sorted(reopening.snapshot(places) or ()) == [0, 2]
    reopening.restore([1], processes)
    assert reopening.snapshot(places) == [1]
    reopening.restore(None, processes)
    assert reopening.snapshot(places) is None
