"""What a report, or an end, means for the model; and what a process that lies about itself comes to."""

from __future__ import annotations

import signal

import pytest

from forkserver.ipc import messages
from forkserver.master.dispatch import MOST_AT_ONCE, REASON_CHARACTERS
from forkserver.master.model.lifecycle import NEVER, State
from forkserver.master.model.transitions import LEAVE_SECONDS, UNENDED_SECONDS
from harness.master import Child, MakeService, Service

STOPPED, CONTINUED = 0x7F | signal.SIGSTOP << 8, 0xFFFF


@pytest.fixture
def ordered(make_service: MakeService) -> Service:
    """A template has loaded and was told to fork two workers; nothing is heard of these."""
    made = make_service()
    made.obedient = False
    made.until(lambda: made.templates)
    made.templates[0].report(messages.Loaded())
    made.until(lambda: len(made.workers) == 2)
    return made


def killed(service: Service, child: Child) -> bool:
    return (child.pid, signal.SIGKILL) in service.children.sent


def test_a_pid_counts_once_the_kernel_has_confirmed_it(ordered: Service) -> None:
    (template, worker) = ordered.templates[0], ordered.workers[0]
    ordered.children.strangers.add(worker.pid)
    template.report(messages.Forked(worker.row or 0, worker.pid))
    ordered.turn()
    assert ordered.pids() == [0, 0]
    ordered.children.strangers.clear()
    worker.report(messages.Hello())
    ordered.turn()
    assert ordered.pids() == [worker.pid, 0]


def test_a_hello_of_a_process_that_is_no_child_of_ours_kills_nothing(ordered: Service) -> None:
    """A template may name any pid of the machine."""
    template, worker = ordered.templates[0], ordered.workers[0]
    ordered.children.strangers.add(worker.pid)
    template.report(messages.Forked(worker.row or 0, worker.pid))
    worker.report(messages.Hello())
    ordered.turn()
    assert ordered.children.sent == []
    assert f"did not start: Hello of a worker that is none of ours: pid {worker.pid} is no child" in ordered.said()


def test_the_template_itself_is_no_worker(ordered: Service) -> None:
    template = ordered.templates[0]
    template.report(messages.Forked(ordered.workers[0].row or 0, template.pid))
    ordered.workers[0].report(messages.Hello())
    ordered.turn()
    assert f"pid {template.pid} has another role" in ordered.said()


def test_a_worker_that_died_before_it_was_named_has_its_own_end(ordered: Service) -> None:
    """Its end is learnt first, and its template may name it in a later turn."""
    template, worker = ordered.templates[0], ordered.workers[0]
    ordered.children.changed.append((worker.pid, 256))
    ordered.turn()
    template.report(messages.Forked(worker.row or 0, worker.pid))
    ordered.turn()
    assert f"worker=1 gen=1 pid={worker.pid} did not start: exit status 1, by itself" in ordered.said()


def test_a_worker_that_hangs_up_before_it_was_named_never_came(ordered: Service) -> None:
    ordered.workers[0].close()
    ordered.turn()
    assert "worker=1 gen=1 pid=? did not start: it was ordered and has not come to life" in ordered.said()


def test_a_fork_that_the_kernel_refuses_is_waited_for(ordered: Service) -> None:
    ordered.templates[0].report(messages.ForkFailed(ordered.workers[0].row or 0, "Resource temporarily unavailable"))
    ordered.turn()
    assert len(ordered.fleet.workers) == 1
    assert ordered.fleet.forks.retry_at > ordered.now
    assert "no new process: cannot fork a worker: Resource temporarily unavailable" in ordered.said()


def test_a_hello_is_of_no_account_once_its_template_has_given_the_worker_up(ordered: Service) -> None:
    """Both are there in the same turn, and the worker is heard first: what it says has its template heard."""
    template, worker = ordered.templates[0], ordered.workers[0]
    worker.report(messages.Hello())
    template.report(messages.ForkFailed(worker.row or 0, "Resource temporarily unavailable"))
    ordered.master._learn([each for each in ordered.fleet.workers if each.row == worker.row])
    assert len(ordered.fleet.workers) == 1
    assert "no new process: cannot fork a worker: Resource temporarily unavailable" in ordered.said()
    assert "none of ours" not in ordered.said()


def test_a_hello_is_of_no_account_where_its_template_names_a_worker_that_has_ended(ordered: Service) -> None:
    template, worker = ordered.templates[0], ordered.workers[0]
    ordered.children.changed.append((worker.pid, 256))
    ordered.turn()
    worker.report(messages.Hello())
    template.report(messages.Forked(worker.row or 0, worker.pid))
    ordered.master._learn([each for each in ordered.fleet.workers if each.row == worker.row])
    assert f"worker=1 gen=1 pid={worker.pid} did not start: exit status 1, by itself" in ordered.said()
    assert "is broken" not in ordered.said()


def test_a_template_that_names_another_pid_for_a_worker_is_killed(service: Service) -> None:
    template, worker = service.templates[0], service.workers[0]
    template.report(messages.Forked(worker.row or 0, worker.pid + 1000))
    service.turn()
    assert killed(service, template)
    assert not killed(service, worker)


@pytest.mark.parametrize(
    "report", [messages.Ready(), messages.Forked(0, 1), messages.Hello(), messages.InDebugger(True)]
)
def test_a_worker_that_reports_what_has_no_place_in_its_life_is_killed(
    service: Service, report: messages.Message
) -> None:
    worker = service.workers[0]
    worker.report(report)
    service.until(lambda: killed(service, worker))
    service.until(lambda: service.rollout.whole() and len(service.workers) == 3)
    assert "is broken, the master kills it" in service.said()
    assert "sent by the master: it is broken" in service.said()


def test_a_debugger_holds_reloads_where_the_setting_allows_one(make_service: MakeService) -> None:
    service = make_service(debugger="on")
    service.serve()
    worker = service.workers[0]
    worker.report(messages.InDebugger(True))
    service.until(lambda: service.fleet.in_debugger)
    assert not killed(service, worker)


def test_one_that_reports_without_end_does_not_keep_the_others_waiting(service: Service) -> None:
    loud, other = service.workers
    for _ in range(MOST_AT_ONCE):
        loud.report(messages.Stacks(999, "of no question"))
    loud.report(messages.AskedToLeave(signal.SIGTERM))
    other.report(messages.AskedToLeave(signal.SIGTERM))
    service.master._learn(service.master._wait())
    asked = f"worker=1 gen=1 pid={loud.pid} was sent SIGTERM", f"worker=2 gen=1 pid={other.pid} was sent SIGTERM"
    assert [each in service.said() for each in asked] == [False, True]


def test_a_reason_that_a_worker_gives_is_cut_short(service: Service) -> None:
    service.workers[0].report(messages.RecyclingDue("x" * 5000))
    service.turn()
    (why,) = [each.recycle_why for each in service.fleet.workers if each.recycle_why]
    assert len(why) == REASON_CHARACTERS + 1


def test_a_worker_that_is_asked_to_leave_again_and_again_is_heard_once(service: Service) -> None:
    worker = service.workers[0]
    for _ in range(3):
        worker.report(messages.AskedToLeave(signal.SIGTERM))
    service.turn()
    assert service.said().count("was sent SIGTERM") == 1


def test_a_worker_that_a_signal_has_stopped_has_a_deadline_until_it_goes_on(service: Service) -> None:
    child = service.workers[0]
    worker = service.worker(child.pid)
    service.children.changed.append((child.pid, STOPPED))
    service.turn()
    assert worker.deadline < NEVER
    assert f"kill -CONT {child.pid} lets it go on" in service.said()
    service.children.changed.append((child.pid, CONTINUED))
    service.turn()
    assert worker.deadline == NEVER


def test_a_template_that_dies_is_replaced_while_its_workers_serve_on(service: Service) -> None:
    service.end(service.templates[0], signal.SIGKILL)
    service.until(lambda: len(service.templates) == 2)
    assert [worker.state for worker in service.fleet.workers] == [State.SERVING] * 2
    assert "died (killed by SIGKILL); its workers serve on" in service.said()


def test_an_orphan_of_the_application_ends_without_a_word(service: Service) -> None:
    before = service.said()
    service.children.changed.append((4711, signal.SIGSEGV))
    service.turn()
    assert service.said() == before
    assert service.master._dispatch._pids.take_end(4711) is None, "no worker to come can have its pid"


def test_a_crash_is_told_with_the_request_that_was_being_served(service: Service) -> None:
    worker = service.workers[0]
    service.busy(worker, b"GET /crash", 2.0)
    service.end(worker, signal.SIGSEGV)
    service.turn()
    assert "killed by SIGSEGV, a crash; it was serving GET /crash (2.0 s); it is replaced" in service.said()


def test_a_worker_that_does_not_load_is_told_with_its_traceback(make_service: MakeService) -> None:
    service = make_service(preload="off")
    service.obedient = False
    service.until(lambda: service.templates)
    service.templates[0].report(messages.Loaded())
    service.until(lambda: service.workers)
    worker = service.workers[0]
    service.templates[0].report(messages.Forked(worker.row or 0, worker.pid))
    worker.report(messages.Hello())
    worker.report(messages.LoadFailed(4, "no module named 'm'", "Traceback of it"))
    service.turn()
    assert f"pid={worker.pid} did not start: no module named 'm'" in service.said()
    assert "Traceback of it" in service.said()


def held(service: Service, child: Child) -> None:
    """``child`` has closed its channel, is killed for that, and does not end."""
    service.held.add(child.pid)
    service.master._transitions.worker_unreachable(service.worker(child.pid), service.now)
    service.now += LEAVE_SECONDS
    service.until(lambda: killed(service, child))
    service.now += UNENDED_SECONDS


def test_a_worker_that_a_kill_does_not_end_is_told_once_and_counts_no_longer(service: Service) -> None:
    child = service.workers[0]
    held(service, child)
    service.until(lambda: child.pid not in service.pids())
    service.turn()
    said = service.said()
    assert said.count(f"pid={child.pid} has not ended 5 s after SIGKILL: its state cannot be read; from now on") == 1
    assert f"pid={child.pid} counts as ended: killed by SIGKILL, sent by the master" in said
    assert f"1 killed process has not ended, pid {child.pid}" in service.master._reporter.status()


def test_its_late_end_is_told_and_changes_nothing_else(service: Service) -> None:
    child = service.workers[0]
    held(service, child)
    service.until(lambda: child.pid not in service.pids() and service.rollout.whole())
    before = service.pids()
    service.children.changed.append((child.pid, signal.SIGKILL))
    service.turn()
    assert f"pid={child.pid}, which was killed before, has ended at last" in service.said()
    assert service.pids() == before
    assert "not ended" not in service.master._reporter.status()
    assert service.master._dispatch._pids.take_end(child.pid) is None


def test_a_broken_worker_that_a_kill_does_not_end_is_given_up_too(service: Service) -> None:
    child = service.workers[0]
    service.held.add(child.pid)
    child.report(messages.Hello())
    service.until(lambda: killed(service, child))
    service.now += LEAVE_SECONDS
    service.turn()
    service.now += UNENDED_SECONDS
    service.until(lambda: child.pid not in service.pids())
    assert f"pid={child.pid} counts as ended: killed by SIGKILL, sent by the master: it " in service.said()
