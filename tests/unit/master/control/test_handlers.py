"""Each command is carried out or refused with the way out, and its caller is answered once."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from forkserver.ipc import messages
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets.unix_socket import bind_unix
from forkserver.master.control.handlers import KILL_SECONDS, MOST_WAITING, STACKS_SECONDS
from forkserver.master.model.lifecycle import NEVER, State
from forkserver.master.model.transitions import UNENDED_SECONDS
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources.listener_set import _Bound
from harness import processes
from harness.master import MakeService, Service
from harness.master_parts import BROKEN, NOW, Parts, Unshared


class Caller:
    """Asks, and keeps the answers."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.answers: list[dict[str, Any]] = []

    def ask(self, command: str, **fields: object) -> None:
        line = json.dumps({"command": command, **fields}).encode()
        self.service.master._handlers.ask(line, self.answers.append, self.service.now)

    def answer(self, command: str, **fields: object) -> dict[str, Any]:
        """The one answer, which comes at once."""
        self.ask(command, **fields)
        (answer,) = self.answers
        self.answers.clear()
        return answer

    def error(self, command: str, **fields: object) -> str:
        answer = self.answer(command, **fields)
        assert not answer["ok"]
        return str(answer["error"])


@pytest.fixture
def caller(service: Service) -> Caller:
    return Caller(service)


def test_status_has_the_service_and_each_worker(caller: Caller) -> None:
    status = caller.answer("status")
    assert (status["state"], status["wanted"], status["serving"], status["generation"]) == ("serving", 2, 2, 1)
    assert [each["pid"] for each in status["workers"]] == [each.pid for each in caller.service.workers]


def test_status_names_a_listener_whose_file_is_gone_and_the_way_out(caller: Caller, tmp_path: Path) -> None:
    """Nothing else tells: the workers serve, and clients are refused. A reload changes nothing of systemd's sockets."""
    known = processes.children()
    path = tmp_path / "socket"
    listener = bind_unix(str(path), 8, 0o600, Credentials())
    listeners = caller.service.master._handlers._resources.listener_set
    listeners._served.append(_Bound(listener.name, listener))
    assert caller.answer("status")["unreachable"] == []
    path.unlink()
    status = caller.answer("status")
    assert status["unreachable"] == [f"unix:{path}"]
    assert status["unreachable_way_out"] == ["reload to listen there again"]
    listeners.activated, listeners._served[-1] = True, _Bound("app.socket", listener)
    assert caller.answer("status")["unreachable_way_out"] == ["systemctl restart app.socket app.service"]
    listeners._served.pop()
    listener.close()
    processes.await_end_of_new(known)  # one that was left to close it


@pytest.mark.parametrize(("command", "state"), [("reload", "reloading"), ("drain", "draining"), ("stop", "stopping")])
def test_status_says_what_was_ordered(caller: Caller, command: str, state: str) -> None:
    assert caller.answer(command)["ok"]
    assert caller.answer("status")["state"] == state


def test_config_is_what_the_workers_run_by(caller: Caller) -> None:
    assert "workers = 2" in caller.answer("config")["config"]


def test_a_command_that_changes_something_is_logged_and_a_question_is_not(caller: Caller) -> None:
    caller.ask("status")
    caller.ask("scale", workers=3)
    assert "forkserverctl: scale workers=3" in caller.service.said()
    assert "forkserverctl: status" not in caller.service.said()


def test_more_workers_than_there_may_be_are_refused(caller: Caller) -> None:
    most = caller.service.master._dispatch._table.most_workers
    assert f"more than max_workers, {most}" in caller.error("scale", workers=most + 1)
    assert caller.service.fleet.wanted == 2


def test_fewer_workers_are_taken_even_where_there_are_more_than_may_be(caller: Caller) -> None:
    caller.service.rollout.want_workers(1000)
    assert caller.answer("scale", workers=900)["ok"]
    assert caller.service.fleet.wanted == 900


def test_a_worker_retires_once_the_new_one_is_ready(caller: Caller) -> None:
    service, worker = caller.service, caller.service.workers[0]
    assert caller.answer("retire", worker=1)["ok"]
    service.until(lambda: worker.closed)
    assert service.rollout.whole()
    assert f"pid={worker.pid} is recycled: forkserverctl retire" in service.said()


def test_a_worker_that_is_killed_is_replaced_and_its_end_says_what_killed_it(caller: Caller) -> None:
    service = caller.service
    caller.ask("kill", worker="worker=2")
    service.until(lambda: caller.answers)
    assert caller.answers[0]["ok"]
    service.until(lambda: len(service.workers) == 3)
    assert "sent by the master: forkserverctl kill" in service.said()


def test_a_caller_is_told_that_a_killed_worker_has_not_ended_and_it_is_given_up(caller: Caller) -> None:
    service = caller.service
    child = service.workers[1]
    service.held.add(child.pid)
    caller.ask("kill", worker=2)
    service.turn()
    assert caller.answers == []
    service.now += KILL_SECONDS
    service.turn()
    (answer,) = caller.answers
    assert not answer["ok"]
    assert f"pid={child.pid} was sent SIGKILL and has not ended: its state cannot be read" in answer["error"]
    service.now += UNENDED_SECONDS
    service.until(lambda: child.pid not in service.pids())
    assert len(caller.answers) == 1


def test_a_worker_that_is_not_there_is_answered_with_those_that_are(caller: Caller) -> None:
    error = caller.error("kill", worker=9)
    assert "worker=9: no such worker; there are worker=1 gen=1" in error


def test_a_worker_without_a_process_cannot_be_killed(make_service: MakeService) -> None:
    service = make_service()
    service.obedient = False
    service.until(lambda: service.templates)
    service.templates[0].report(messages.Loaded())
    service.until(lambda: service.workers)
    assert "has no process yet; ask again in a moment" in Caller(service).error("kill", worker=1)


def test_the_stacks_of_a_worker_come_when_it_has_reported_them(caller: Caller) -> None:
    caller.ask("stacks", worker=1)
    assert caller.answers == []
    caller.service.until(lambda: caller.answers)
    (answer,) = caller.answers
    assert (answer["worker"], answer["stacks"]) == (1, "Thread main")


def test_stacks_with_another_number_are_answered_to_no_caller(caller: Caller) -> None:
    caller.service.obedient = False
    caller.ask("stacks", worker=1)
    caller.service.workers[0].report(messages.Stacks(999, "Thread other"))
    caller.service.workers[1].report(messages.Stacks(1, "Thread of another worker"))
    caller.service.turn()
    assert caller.answers == []


@pytest.mark.parametrize("ends", [True, False])
def test_a_worker_that_does_not_say_its_stacks_is_told_to_the_caller(caller: Caller, ends: bool) -> None:
    service = caller.service
    service.obedient = False
    caller.ask("stacks", worker=1)
    assert service.master._handlers.next_look == service.now + STACKS_SECONDS
    if ends:
        service.end(service.workers[0], signal.SIGKILL)
    else:
        service.now += STACKS_SECONDS
    service.turn()
    (answer,) = caller.answers
    assert ("has ended" if ends else "does not answer") in answer["error"]


def test_callers_that_wait_are_bounded(caller: Caller) -> None:
    """Callers that ask, go and ask again must not fill the memory."""
    caller.service.obedient = False
    for _ in range(MOST_WAITING):
        caller.ask("stacks", worker=1)
        caller.ask("reload", wait=True)
    assert caller.answers == []
    assert f"{MOST_WAITING} wait for stacks already" in caller.error("stacks", worker=1)
    assert f"{MOST_WAITING} wait for a reload already" in caller.error("reload", wait=True)
    assert caller.answer("reload")["ok"]


def test_a_caller_that_waits_for_a_reload_hears_of_its_end(caller: Caller) -> None:
    caller.ask("reload", wait=True)
    assert caller.answers == []
    caller.service.reload()
    (answer,) = caller.answers
    assert (answer["ok"], answer["generation"]) == (True, 2)


def test_after_drain_only_stop_may_follow(caller: Caller) -> None:
    assert caller.answer("drain")["ok"]
    for command in ("reload", "drain"):
        assert "the service is draining; only stop may follow" in caller.error(command)
    assert caller.answer("stop")["ok"]
    assert "it is stopping already" in caller.error("stop")
    assert caller.answer("stop", now=True)["ok"]


def test_maintenance_is_told_to_every_worker(caller: Caller) -> None:
    service = caller.service
    assert caller.answer("maintenance", on=True)["ok"]
    service.turn()
    assert [each.orders[-1] for each in service.workers] == [messages.Maintain(True)] * 2
    assert caller.answer("status")["maintenance"]


def test_a_fault_in_answering_does_not_end_the_service(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> str:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Reporter, "status", fault)
    assert "a fault of forkserver's: RuntimeError('a bug'); the error log has more" in caller.error("status")


def test_callers_that_wait_are_answered_at_the_end(caller: Caller) -> None:
    caller.service.obedient = False
    caller.ask("stacks", worker=1)
    caller.ask("reload", wait=True)
    caller.service.master._handlers.close("the service has stopped")
    assert [each["error"] for each in caller.answers] == ["the service has stopped"] * 2


def test_a_worker_that_serves_no_more_is_asked_for_nothing(caller: Caller) -> None:
    service = caller.service
    service.obedient = False
    worker = service.worker(service.workers[0].pid)
    service.master._actions._retire(worker, service.now)
    assert worker.state is State.DRAINING
    assert "is draining and need not be told" in caller.error("retire", worker=1)


def test_a_worker_is_not_retired_where_the_new_one_would_load_refused_code(unshared: Unshared) -> None:
    parts = unshared.parts
    answers: list[dict[str, Any]] = []
    handlers = parts.handlers()
    parts.transitions.worker_load_failed(unshared.starting(0, 2), BROKEN, NOW)
    handlers.ask(b'{"command": "retire", "worker": "worker=2"}', answers.append, NOW)
    assert [answer["ok"] for answer in answers] == [False]
    assert "would load the files on disk" in answers[0]["error"]
    assert unshared.workers[1].recycle_at == NEVER


def test_a_caller_that_asks_for_workers_is_told_what_they_may_lack(parts: Parts) -> None:
    resources: Any = parts.actions._resources
    resources.make_room = "workers {1}: the hard limit is 64".format
    handlers = parts.handlers()
    answers: list[dict[str, Any]] = []
    handlers.ask(b'{"command": "scale", "workers": 4}', answers.append, NOW)
    assert parts.fleet.wanted == 4
    said = "workers wanted: 4; a reload goes back to the settings\nworkers 4: the hard limit is 64"
    assert answers == [{"ok": True, "text": said}]


def test_slow_lists_the_calls_that_have_passed_slow_log(make_service: MakeService) -> None:
    service = make_service(slow_log="2s")
    service.serve()
    caller = Caller(service)
    assert caller.answer("slow") == {"ok": True, "limit": 2.0, "slow": []}
    service.busy(service.workers[0], b"GET /slow", 0.0)
    service.now += 3
    service.turn()
    (call,) = caller.answer("slow")["slow"]
    assert (call["request"], call["seconds"], call["running"]) == ("GET /slow", 3.0, True)
    assert "forkserverctl: slow" not in service.said(), "a question changes nothing, and is no event"
