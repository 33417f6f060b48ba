"""What is told to the operator and to the service manager, when, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from forkserver.ipc.busy_call import Busy
from forkserver.linux import systemd
from forkserver.logs.error_log import ErrorLog
from forkserver.master.model.events import Event, EventKind, Failure
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.reporting.crash_reports import LINES_AT_ONCE
from forkserver.worker.loading import late_modules
from harness.master_parts import BROKEN, NOW, Parts, Unshared


def test_no_next_try_is_named_where_none_waits(parts: Parts, capfd: pytest.CaptureFixture[str]) -> None:
    """It said a time in the past: next try in -28072.9 s."""
    parts.reporter.no_process("cannot hold a worker: Too many open files", NOW)
    assert capfd.readouterr().err.endswith("no new process: cannot hold a worker: Too many open files\n")


def test_a_module_that_is_needed_later_does_not_end_a_service_that_serves(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its environment may be removed while the application is imported, and descriptors may be short."""

    def load(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'tomllib'")

    monkeypatch.setattr(late_modules, "load_for_master", load)
    parts.rollout.current = 1
    parts.reporter.tell(Event(EventKind.READY, 1, Failure("")), NOW)
    assert "cannot be loaded: No module named 'tomllib'; a reload or a command may fail" in capfd.readouterr().err


@pytest.mark.parametrize(("reload_again", "said"), [(False, "READY=1"), (True, "STATUS=reload failed")])
def test_a_refused_reload_is_not_the_end_of_the_next(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, reload_again: bool, said: str
) -> None:
    """RELOADING=1 was said of that already, and READY=1 would say that it is over."""
    sent: list[str] = []
    monkeypatch.setattr(systemd.Notifier, "_send", lambda _, message, **__: sent.append(message))
    parts.rollout.serving_generation = 1
    if reload_again:
        parts.launcher.begin(Purpose.RELOAD, parts.settings)
    else:
        parts.rollout.coming = None
    parts.reporter.tell(Event(EventKind.REFUSED, 1, Failure("it is broken")), NOW)
    assert len(sent) == 1
    assert sent[0].startswith(said)


def test_systemd_is_told_once_which_generation_is_loading(parts: Parts, told: list[str]) -> None:
    parts.rollout.serving_generation = 1
    generation = parts.launcher.begin(Purpose.RELOAD, parts.settings)
    parts.reporter.reloading(generation)
    assert [each.count(f"loading generation {generation}; ") for each in told] == [1]


def test_a_reload_that_wrong_settings_refuse_begins_and_ends_for_systemd(parts: Parts, told: list[str]) -> None:
    """With Type=notify-reload it waits for RELOADING=1, and a READY=1 before that ends nothing (systemd.service(5))."""
    parts.rollout.serving_generation, parts.rollout.coming = 1, None
    parts.reporter.settings_refused("workers 'x': not a number")
    assert [each.partition("\n")[0] for each in told] == ["RELOADING=1", "READY=1"]
    assert "not a number" in told[1]


def test_a_hup_while_the_service_drains_begins_and_ends_for_systemd(parts: Parts, told: list[str]) -> None:
    """With Type=notify-reload, `systemctl reload` waited until its timeout for a reload that does not come."""
    parts.rollout.serving_generation, parts.rollout.coming = 1, None
    parts.rollout.drain(NEVER)
    parts.reporter.asked_to_reload("SIGHUP from pid 1")
    parts.rollout.want_reload()
    assert [each.partition("\n")[0] for each in told] == ["RELOADING=1", "READY=1"]
    assert "STATUS=no reload: the service is draining, and only a stop may follow: 0 workers; draining" in told[1]
    assert not parts.rollout.reload_wanted


@pytest.mark.parametrize("seconds", [0.0, 10.0], ids=["stopping", "drain_delay"])
def test_a_hup_after_stopping_was_said_says_nothing_more_to_systemd(
    parts: Parts, told: list[str], seconds: float
) -> None:
    parts.rollout.serving_generation, parts.rollout.coming = 1, None
    if seconds:
        parts.rollout.drain(NOW + seconds)
    else:
        parts.rollout.stop(NOW, NOW)
    parts.reporter.asked_to_reload("SIGHUP from pid 1")
    parts.rollout.want_reload()
    assert told == []
    assert not parts.rollout.reload_wanted
    assert not parts.rollout.settled


def test_a_caller_that_waits_for_a_reload_hears_its_cost(parts: Parts, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[dict[str, Any]] = []
    parts.reporter.reloads.wait(heard.append)
    parts.reporter.reloads.began(2)
    parts.reporter.tell(Event(EventKind.COSTLY, 2, Failure("out of memory: the kernel killed worker=1")), NOW)
    (answer,) = heard
    assert not answer["ok"]
    assert answer["error"] == "generation 2 has taken over, at a cost: out of memory: the kernel killed worker=1"
    assert answer["error"] in capfd.readouterr().err


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_reload_that_took_over_and_lost_its_workers_says_what_serves(
    unshared: Unshared, capfd: pytest.CaptureFixture[str], kept: int
) -> None:
    parts = unshared.parts
    for worker in unshared.workers[kept:]:
        parts.transitions.worker_exited(worker, "exit status 0", NOW)
    parts.rollout.current, parts.rollout.rolling = 2, None
    parts.reporter.tell(Event(EventKind.MIXED, 2, Failure("no database")), NOW)
    serves = ("no worker serves", "1 worker of before serves on", "2 workers of before serve on")[kept]
    line = f"reload failed: no database; generation 2 had taken over, and has lost workers; {serves}; fix the cause"
    assert line in capfd.readouterr().err


def test_a_failure_that_leaves_both_serving_says_so(unshared: Unshared, capfd: pytest.CaptureFixture[str]) -> None:
    parts = unshared.parts
    parts.rollout.limit_surplus(2, 1)
    unshared.serving(0, 2)
    parts.transitions.worker_retiring(unshared.workers[0], NOW)
    parts.transitions.worker_exited(unshared.workers[0], "exit status 0", NOW)
    failing, why = unshared.starting(1, 2), Failure("no database", "Traceback")
    parts.transitions.worker_load_failed(failing, why, NOW)
    parts.reporter.worker_failed(failing, why, NOW)
    for news in parts.rollout.take_events():
        parts.reporter.tell(news, NOW)
    said = capfd.readouterr().err
    assert (
        "reload failed: no database; generation 1 serves beside 1 worker of generation 2, because others of it" in said
    )
    assert "of it had ended; fix the cause and reload" in said, "which need not be the code"
    assert said.count("Traceback") == 1
    assert "until a reload succeeds no worker is recycled" in said
    assert "a crash would load the files on disk" in parts.reporter.status()


def test_a_failure_that_leaves_only_new_code_says_so(unshared: Unshared, capfd: pytest.CaptureFixture[str]) -> None:
    """In a storm of crashes every worker of before may have ended when the reload is given up."""
    parts = unshared.parts
    unshared.serving(0, 2)
    for worker in unshared.workers:
        parts.transitions.worker_exited(worker, "killed by SIGSEGV", NOW)
    parts.rollout.go_back(Failure("2 of its workers ended"), NOW)
    for news in parts.rollout.take_events():
        parts.reporter.tell(news, NOW)
    expected = "1 worker of generation 2 serves, because those of generation 1 had ended; fix the cause and reload"
    assert f"reload failed: 2 of its workers ended; {expected}" in capfd.readouterr().err


def test_an_operator_that_changes_workers_after_a_failed_reload_is_told_what_they_load(
    unshared: Unshared, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = unshared.parts
    parts.transitions.worker_load_failed(unshared.starting(0, 2), BROKEN, NOW)
    parts.rollout.want_workers(1)
    parts.reporter.resized()
    parts.reporter.asked_to_leave(unshared.workers[1], "SIGTERM")
    parts.transitions.worker_exited(unshared.workers[0], "killed by SIGSEGV", NOW)
    parts.reporter.worker_ended(unshared.workers[0], "killed by SIGSEGV", "", NOW)
    said = capfd.readouterr().err
    assert "workers wanted: 3; a worker that is added loads the files on disk" in said
    assert "stays until a reload succeeds" in said
    assert "it is replaced by one that loads the files on disk" in said


def test_ctrl_c_after_a_failed_reload_is_told_as_the_stop_alone(
    unshared: Unshared, capfd: pytest.CaptureFixture[str]
) -> None:
    """A terminal sends SIGINT to the workers, too, and one of them may report it before the master has seen its own."""
    parts = unshared.parts
    parts.transitions.worker_load_failed(unshared.starting(0, 2), BROKEN, NOW)
    parts.reporter.asked_to_leave(unshared.workers[1], "SIGINT")
    assert "stays until a reload succeeds" not in capfd.readouterr().err


def test_a_worker_that_is_killed_for_what_it_holds_is_a_warning(
    unshared: Unshared, capfd: pytest.CaptureFixture[str]
) -> None:
    """An operator has set graceful_timeout, and it was kept."""
    (worker, _) = unshared.workers
    unshared.parts.transitions.worker_retiring(worker, NOW)
    worker.sentence = "it had not left within graceful_timeout (30 s)"
    unshared.parts.reporter.worker_ended(worker, "killed by SIGKILL", "it was serving GET /", NOW)
    assert "warning test " in capfd.readouterr().err


def test_a_death_is_found_by_the_id_of_the_one_request_that_it_cost(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In formats with fields; where there were several calls, their ids stand in the message alone."""
    ids: list[str] = []
    monkeypatch.setattr(ErrorLog, "error", lambda _log, _text, _details="", request_id="": ids.append(request_id))
    one, other = Busy(1, "GET /pay", 0, request_id="an-id"), Busy(2, "GET /", 0, request_id="another")
    for calls in ([one], [one, other], []):
        unshared.parts.reporter.worker_ended(unshared.workers[0], "killed by SIGSEGV", "", NOW, calls)
    assert ids == ["an-id", "", ""]


def test_a_crash_that_is_only_counted_has_its_line_at_level_debug(
    unshared: Unshared, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(LINES_AT_ONCE + 1):
        unshared.parts.reporter.worker_ended(unshared.workers[0], "killed by SIGSEGV", "", NOW)
    lines = [line for line in capfd.readouterr().err.splitlines() if "killed by SIGSEGV" in line]
    assert [line.split()[1] for line in lines] == ["error"] * LINES_AT_ONCE + ["debug"]


def test_a_generation_without_a_worker_is_not_said_to_serve(parts: Parts, capfd: pytest.CaptureFixture[str]) -> None:
    """In a storm of crashes the last worker of the old code may end before one of the new code is there again."""
    parts.rollout.fleet.want(2)
    parts.reporter.tell(Event(EventKind.SERVES, 2, Failure("")), NOW)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "generation 2" in line]
    assert " warning " in line
    assert "generation 2 is loaded, but no worker serves" in line


def test_a_first_start_says_what_it_waits_for(parts: Parts) -> None:
    """It may be tried for minutes, until the manager's limit ends it, and "starting" alone tells nothing."""
    events = parts.transitions
    events.template_loaded(events.template_started(1, 9001, NOW), NOW)
    worker = events.worker_ordered(0, 1, 0, NOW)
    events.worker_forked(worker, 9002)
    events.worker_announced(worker, 9002, NOW)
    assert parts.reporter.status() == "starting"
    events.worker_exited(worker, "exit status 5, by itself", NOW)
    parts.reporter.worker_failed(worker, Failure("exit status 5, by itself"), NOW)
    assert parts.reporter.status() == "starting; worker 1: exit status 5, by itself"


def test_a_missing_worker_is_named_with_its_reason(unshared: Unshared) -> None:
    parts, reporter = unshared.parts, unshared.parts.reporter
    unshared.parts.transitions.worker_load_failed(unshared.starting(0, 2), BROKEN, NOW)
    parts.transitions.worker_exited(unshared.workers[1], "killed by SIGKILL", NOW)
    failing = unshared.starting(1, 1)
    parts.transitions.worker_load_failed(failing, Failure("no database"), NOW)
    reporter.worker_failed(failing, Failure("no database"), NOW)
    assert ": 1 of 2 workers; worker 2: no database; a crash would load" in reporter.status()


def not_replaced(parts: Parts, why: Failure) -> None:
    """A dead template's successor does not load."""
    generation = parts.launcher.begin(Purpose.REPLACE, parts.settings)
    parts.rollout.generation_failed(generation, why, NOW)
    for news in parts.rollout.take_events():
        parts.reporter.tell(news, NOW)


def test_why_a_dead_template_has_no_successor_is_told_once_and_then_counted(
    unshared: Unshared, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is tried again every half minute, for as long as the code is broken."""
    capfd.readouterr()
    for _ in range(3):
        not_replaced(unshared.parts, BROKEN)
    told = capfd.readouterr().err
    assert told.count("no new template: it is broken; living workers serve on") == 1
    assert told.count("Traceback") == 1
    assert "no new template: the same again, 1 time; living workers serve on" in told
    assert "no new template: the same again, 2 times; living workers serve on" in told
    not_replaced(unshared.parts, Failure("it is broken in another way", "Traceback"))
    assert capfd.readouterr().err.count("Traceback") == 1


def test_why_there_is_no_template_is_told_whole_again_once_one_has_loaded(
    unshared: Unshared, capfd: pytest.CaptureFixture[str]
) -> None:
    not_replaced(unshared.parts, BROKEN)
    parts = unshared.parts
    template = parts.transitions.template_started(
        unshared.parts.launcher.begin(Purpose.REPLACE, unshared.parts.settings), 4711, NOW
    )
    parts.transitions.template_loaded(template, NOW)
    capfd.readouterr()
    not_replaced(unshared.parts, BROKEN)
    assert "no new template: it is broken; living workers serve on" in capfd.readouterr().err


def test_what_ends_a_first_start_is_told_once(parts: Parts, capfd: pytest.CaptureFixture[str]) -> None:
    """Of the last worker that fails only with what follows from that: the end, or the wait for a file to change."""
    parts.fleet.generations[1].shares = False
    parts.transitions.template_loaded(parts.transitions.template_started(1, 9000, NOW), NOW)
    for slot in (0, 1):
        worker = parts.transitions.worker_ordered(slot, 1, 0, NOW)
        parts.transitions.worker_announced(worker, 9001 + slot, NOW)
        parts.transitions.worker_load_failed(worker, BROKEN, NOW)
        parts.reporter.worker_failed(worker, BROKEN, NOW)
    (event,) = parts.rollout.take_events()
    assert event == Event(EventKind.NEVER_STARTED, 1, BROKEN)
    said = capfd.readouterr().err
    assert said.count("did not start") == 1
    assert "worker=1" in said
