"""What a master does about code that does not load, while it is written."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from forkserver.errors import ConfigError, LoadError
from forkserver.ipc import messages
from forkserver.master.model.lifecycle import State
from forkserver.master.reporting.status_text import LOADS_FILES, NONE_LEFT
from forkserver.worker.development import waiting
from harness.master import Child, MakeService, Service

FAILED = messages.LoadFailed(LoadError.exit_status, "it is broken", "Traceback")
SHOWN = messages.ShowFailure(True, "it is broken", "Traceback")
DEVELOPMENT = {"dev": "on", "preload": "on", "access_log": "access.log", "workers": "1"}


@pytest.fixture
def service(make_service: MakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Service:
    monkeypatch.chdir(str(tmp_path))
    return make_service(None, **DEVELOPMENT)


def fail(service: Service, report: messages.LoadFailed = FAILED) -> None:
    """The template that is there last does not load."""
    template = service.templates[-1]
    template.report(report)
    service.turn()
    service.end(template, report.exit_status << 8)
    service.turn()


def begin(service: Service) -> None:
    service.until(lambda: service.templates)


def reload(service: Service) -> None:
    before = len(service.templates)
    service.signals.send(signal.SIGHUP)
    service.until(lambda: len(service.templates) > before)


def load(service: Service) -> Child:
    """The template that is there last loads; returns the worker that serves then."""
    service.templates[-1].report(messages.Loaded())
    service.until(lambda: service.rollout.settled and service.rollout.whole())
    (worker,) = (each for each in service.workers if not each.closed)
    service.turn()
    return worker


def shown(worker: Child) -> list[messages.Message]:
    return [order for order in worker.orders if isinstance(order, messages.ShowFailure)]


def test_a_first_start_that_does_not_load_waits_for_its_files(service: Service) -> None:
    begin(service)
    fail(service)
    service.until(lambda: len(service.templates) == 2)
    worker = load(service)
    assert service.rollout.waiting
    assert service.master._dispatch._table.in_force.app == waiting.NAME
    assert shown(worker) == [SHOWN._replace(loaded=False)]
    assert "not loaded: it is broken; waiting until a file of it changes" in service.said()


def test_code_that_loads_takes_over_from_what_waits(service: Service) -> None:
    begin(service)
    fail(service)
    service.until(lambda: len(service.templates) == 2)
    load(service)
    reload(service)
    fail(service)
    assert "reload failed: it is broken; waiting until a file of it changes" in service.said()
    reload(service)
    worker = load(service)
    assert not service.rollout.waiting
    assert service.master._dispatch._table.in_force.app == "m:a"
    assert shown(worker) == []


def status(service: Service) -> dict[str, Any]:
    return service.master._handlers.status(service.now)


def test_the_status_says_that_every_request_is_answered_503_until_code_loads(service: Service) -> None:
    """The worker that answers so is one of the service's own: that it serves would hide an outage."""
    begin(service)
    fail(service)
    service.until(lambda: len(service.templates) == 2)
    worker = load(service)
    told = status(service)
    assert (told["state"], told["last_failure"]) == ("broken", "not loaded: it is broken")
    assert told["text"] == f"not loaded: it is broken; {NONE_LEFT}: 1 worker"
    reload(service)
    assert status(service)["state"] == "broken"
    assert status(service)["text"] == f"loading generation 3; {NONE_LEFT}: 1 worker"
    fail(service, FAILED._replace(message="it is broken otherwise"))
    told = status(service)
    assert told["text"] == (
        f"reload failed: it is broken otherwise; waiting until a file of it changes; {NONE_LEFT}: 1 worker"
    )
    assert (told["state"], told["files_changed"]) == ("broken", False)
    service.said()
    service.end(worker, signal.SIGKILL)
    service.until(lambda: len(service.workers) == 2)
    said = service.said()
    assert "it is replaced" in said
    assert LOADS_FILES not in said, "it loads nothing of the application"
    service.until(service.fleet.serving)
    reload(service)
    load(service)
    assert status(service)["state"] == "serving"
    assert NONE_LEFT not in status(service)["text"]


def test_what_waits_is_told_as_such_also_once_its_template_has_died(service: Service) -> None:
    begin(service)
    fail(service)
    service.until(lambda: len(service.templates) == 2)
    worker = load(service)
    service.end(service.templates[-1], signal.SIGKILL)
    service.until(lambda: len(service.templates) == 3)
    service.templates[-1].report(messages.Loaded())
    service.turn()
    service.end(worker, signal.SIGKILL)
    service.until(lambda: service.rollout.serving_generation == 3)
    told = status(service)
    assert (told["state"], told["text"]) == ("broken", f"not loaded: it is broken; {NONE_LEFT}: 1 worker")
    reload(service)
    fail(service, FAILED._replace(message="it is broken otherwise"))
    assert status(service)["state"] == "broken"
    assert "waiting until a file of it changes" in status(service)["text"]
    service.turn()
    last = SHOWN._replace(loaded=False, reason="it is broken otherwise")
    assert shown(service.workers[-1])[-1] == last, "no code of the application serves"
    reload(service)
    load(service)
    assert status(service)["state"] == "serving"


def test_what_serves_shows_why_a_reload_has_failed(service: Service) -> None:
    begin(service)
    worker = load(service)
    reload(service)
    fail(service)
    assert shown(worker) == [SHOWN]
    reload(service)
    fail(service, FAILED._replace(message="it is broken otherwise"))
    assert shown(worker)[1:] == [SHOWN._replace(reason="it is broken otherwise")]


def test_what_serves_shows_what_is_wrong_with_the_settings_until_newer_code_serves(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of settings is saved with a mistake as code is."""
    begin(service)
    worker = load(service)

    def refuse() -> None:
        raise ConfigError("forkserver.toml: line 2: no such setting")

    with monkeypatch.context() as patched:
        patched.setattr(service.resources, "reload", refuse)
        for _ in range(2):
            service.signals.send(signal.SIGHUP)
            service.turn()
    reason = "the settings cannot be loaded: forkserver.toml: line 2: no such setting"
    assert {order.reason for order in shown(worker) if isinstance(order, messages.ShowFailure)} == {reason}
    assert service.said().count("reload failed: forkserver.toml: line 2: no such setting") == 2
    reload(service)
    newer = load(service)
    assert shown(newer) == []


def test_a_worker_that_comes_later_shows_it_too(service: Service) -> None:
    begin(service)
    worker = load(service)
    reload(service)
    fail(service)
    service.end(worker, signal.SIGSEGV)
    service.until(lambda: len(service.workers) == 2)
    service.until(lambda: [each.state for each in service.fleet.workers] == [State.SERVING])
    service.turn()
    assert shown(service.workers[-1]) == [SHOWN]


def test_a_name_that_leads_nowhere_is_a_fault_of_the_command(service: Service) -> None:
    begin(service)
    fail(service, FAILED._replace(exit_status=ConfigError.exit_status))
    service.until(lambda: service.fleet.finished)
    with pytest.raises(ConfigError, match="it is broken"):
        service.master.run()


def test_nothing_waits_and_nothing_is_shown_where_no_file_is_watched(make_service: MakeService) -> None:
    service = make_service(workers="1")
    begin(service)
    fail(service)
    service.until(lambda: service.fleet.finished)
    with pytest.raises(LoadError, match="it is broken"):
        service.master.run()


def test_a_service_that_is_not_being_written_shows_nothing(make_service: MakeService) -> None:
    service = make_service(workers="1", reload_on_change="on")
    begin(service)
    worker = load(service)
    reload(service)
    fail(service)
    assert shown(worker) == []
