"""What the master does when the system refuses it something: it waits, says so once, and nothing is left open."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forkserver.config import loading, settings
from forkserver.config.invocation import Environment
from forkserver.ipc.channel import MasterChannel
from forkserver.ipc.channel_poller import ChannelPoller
from forkserver.ipc.scoreboard import FREE, STARTING, STATE, Scoreboard
from forkserver.linux import syscalls, systemd
from forkserver.linux.terminal import Terminal
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.master.actions import Actions
from forkserver.master.control.handlers import CommandHandlers
from forkserver.master.model import model as master_model
from forkserver.master.model.events import Event, EventKind, Failure
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import Purpose
from forkserver.master.model.lifecycle import NEVER, Process, Worker
from forkserver.master.model.plan import AskForLastWords, AskForStacks, Reload, StartTemplate
from forkserver.master.model.rollout import Rollout
from forkserver.master.monitoring import memory_headroom
from forkserver.master.monitoring.memory import MIB
from forkserver.master.monitoring.statistics import Statistics
from forkserver.master.processes.children import Children
from forkserver.master.processes.launcher import Launcher
from forkserver.master.processes.processes import Processes
from forkserver.master.processes.system import System
from forkserver.master.processes.worker_pids import WorkerPids
from forkserver.master.processes.worker_table import WorkerTable
from forkserver.master.reporting.crash_reports import LINES_AT_ONCE
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources.open_files import OpenFiles
from forkserver.master.resources.resources import Resources
from forkserver.master.shutdown import Shutdown
from forkserver.worker.loading import late_modules
from forkserver.worker.template import OOM_MORE
from harness.model import Model

NOW = 1000.0
BROKEN = Failure("it is broken", "Traceback")


class Hands(Model):
    """A master's hands without a master."""

    def __init__(self) -> None:
        self.wake_up, self._woken = os.pipe()
        self.settings = loading.load(["raw:app", "-w", "2"], {})
        self.board = Scoreboard(rows=8)
        log = ErrorLog("-", "debug", "test")
        resources = SimpleNamespace(
            settings=self.settings, directory=os.getcwd(), started_in=os.getcwd(), board=self.board, listeners=[],
            tls=None, log=log, access=AccessLog(None, log.warning), log_files=(False, False), open_files=OpenFiles(),
            environment=Environment(sys.prefix, sys.prefix),
        )  # fmt: skip
        held = cast("Resources", resources)
        super().__init__(Rollout(Fleet(2)))
        rollout, transitions = self.rollout, self.transitions
        self.links: ChannelPoller[Process] = ChannelPoller(self.wake_up)
        self.children = Children()
        self.table = WorkerTable(held, rollout)
        statistics = Statistics(rollout.fleet, self.table.__getitem__)
        self.reporter = Reporter(held, rollout, systemd.Notifier({}), statistics)
        self.processes = Processes(self.links, self.children, WorkerPids(rollout.fleet, self.children), self.table)
        self.system = System(cast("Any", None), Terminal(False), systemd.Notifier({}), self.children)
        self.model = master_model.Model(rollout.fleet, rollout, transitions)
        self.launcher = Launcher(held, self.model, self.processes, self.reporter, self.system)
        self.actions = Actions(held, self.model, self.processes, self.launcher, self.reporter)
        self.launcher.begin(Purpose.START, self.settings)

    def handlers(self) -> CommandHandlers:
        return CommandHandlers(
            self.actions._resources,
            self.model,
            self.table,
            self.reporter,
            self.actions,
            cast("Any", None),
            cast("Any", None),
        )

    def stop(self) -> Shutdown:
        return Shutdown(self.actions._resources, self.rollout, self.reporter, self.actions, self.table)

    def act(self, now: float) -> None:
        for step in self.plan(now):
            self.actions.act(step, now)

    def close(self) -> None:
        self.links.close()
        for end in self.launcher.handoff:
            os.close(end)
        os.close(self.board.fd)
        os.close(self.wake_up)
        os.close(self._woken)
        self.__dict__.clear()  # the scoreboard's memory goes with the last who knows it


@pytest.fixture
def house() -> Iterator[Hands]:
    made = Hands()
    yield made
    made.close()


def refuse(number: int) -> Callable[[], Any]:
    def refused() -> Any:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the service manager is told."""
    sent: list[str] = []
    monkeypatch.setattr(systemd.Notifier, "_send", lambda _, message, **__: sent.append(message))
    return sent


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_template_that_cannot_be_forked_is_tried_again(
    house: Hands, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    """The machine is full for a moment; neither the start nor a reload fails by that."""
    monkeypatch.setattr(syscalls, "fork", refuse(number))
    before = open_descriptors()
    now = NOW
    for _ in range(3):
        house.act(now)
        assert house.plan(now) == []
        now = house.wake_at(now)
    assert open_descriptors() == before
    assert house.rollout.take_events() == []
    assert house.rollout.coming == 1
    said = capfd.readouterr().err
    assert said.count(f"cannot fork a template: {os.strerror(number)}") == 1
    assert said.count("; next try in 0.5 s") == 1
    assert "the same again, 1 time; next try in 1.0 s" in said
    assert "the same again, 2 times; next try in 2.0 s" in said


def test_a_channel_that_cannot_be_had_is_waited_for(
    house: Hands, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MasterChannel, "pair", refuse(errno.EMFILE))
    house.act(NOW)
    assert house.plan(NOW) == []
    assert "no channel for a template: Too many open files (RLIMIT_NOFILE is" in capfd.readouterr().err


def test_a_worker_that_cannot_be_ordered_gives_its_row_back(
    house: Hands, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    template = house.transitions.template_started(1, 4711, NOW)
    house.transitions.template_loaded(template, NOW)
    monkeypatch.setattr(MasterChannel, "pair", refuse(errno.ENFILE))
    house.act(NOW)
    assert all(house.board[index].words[STATE] == FREE for index in range(len(house.board)))
    assert house.fleet.workers == []
    assert house.plan(NOW) == []
    assert house.wake_at(NOW) == NOW + 0.5
    assert "no channel for a worker" in capfd.readouterr().err


def test_what_serves_is_spared_and_what_is_loaded_beside_it_is_not(
    house: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory runs out during a reload, the kernel is to choose the new generation until it has taken over."""
    scores: dict[int, int] = {}
    monkeypatch.setattr(syscalls, "oom_score", lambda: 5)
    monkeypatch.setattr(syscalls, "set_oom_score", lambda pid, score: scores.update({pid: score}))
    first = house.transitions.template_started(1, 4711, NOW)
    house.actions.template_loaded(first, NOW)
    assert scores.pop(4711) == 5 + OOM_MORE
    old = [house.transitions.worker_ordered(slot, 1, slot, NOW) for slot in (0, 1)]
    for worker in old:
        house.transitions.worker_announced(worker, 50 + worker.slot, NOW)
        house.actions.ready(worker, NOW)
    assert scores == {50: 5 + OOM_MORE, 51: 5 + OOM_MORE}
    scores.clear()
    house.launcher.begin(Purpose.RELOAD, house.settings)
    house.actions.template_loaded(house.transitions.template_started(2, 4712, NOW), NOW)
    assert scores == {}, "it may still have to give way"
    new = house.transitions.worker_ordered(0, 2, 2, NOW)
    house.transitions.worker_announced(new, 60, NOW)
    house.actions.ready(new, NOW)
    assert scores == {60: 5 + OOM_MORE}, "it has taken the slot over"
    house.rollout.current, house.rollout.rolling = 2, None
    house.actions.decided()
    assert scores[4712] == 5 + OOM_MORE


def test_a_score_that_cannot_be_set_is_no_fault(house: Hands, capfd: pytest.CaptureFixture[str]) -> None:
    """A sandbox without a writable /proc, or a process that has just ended."""
    house.actions.template_loaded(house.transitions.template_started(1, 2**30, NOW), NOW)
    assert "oom_score_adj cannot be lowered: No such file or directory" in capfd.readouterr().err


def test_a_generation_keeps_the_scoreboard_that_its_template_was_given(house: Hands) -> None:
    """A reload that is refused may have brought another: rows of that would be read while workers write in this."""
    template = house.transitions.template_started(1, 4711, NOW)
    house.transitions.template_loaded(template, NOW)
    ours, theirs = MasterChannel.pair()
    house.links.add(template, ours)
    other = Scoreboard(rows=8)
    cast("Any", house.actions._resources).board = other
    house.act(NOW)
    assert [row.words[STATE] for row in other] == [FREE] * 8
    assert [row.words[STATE] for row in house.board][:3] == [STARTING, STARTING, FREE]
    for worker in list(house.fleet.workers):
        house.links.drop(worker)
    house.links.drop(template)
    theirs.orders.close()
    os.close(other.fd)


def test_a_wait_may_be_longer_than_the_kernel_counts(house: Hands) -> None:
    """A lifetime of a month, and nothing else to wake for: that must not end the master."""
    os.write(house._woken, b".")
    assert house.links.wait(31 * 86400.0) == []


def test_what_has_come_is_heard_before_its_time_is_judged(house: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A master that was stopped until the end of its wait gets nothing of that, whatever has come (PEP 475)."""
    template = house.transitions.template_started(1, 4711, NOW)
    ours, theirs = MasterChannel.pair()
    house.links.add(template, ours)
    polled = iter([[]])
    epoll = house.links._epoll
    monkeypatch.setattr(
        house.links, "_epoll", SimpleNamespace(poll=lambda *given: next(polled, None) or epoll.poll(*given))
    )
    theirs.orders.close()
    assert house.links.wait(60.0) == [template]
    monkeypatch.undo()
    house.links.drop(template)


def test_no_next_try_is_named_where_none_waits(house: Hands, capfd: pytest.CaptureFixture[str]) -> None:
    """It said a time in the past: next try in -28072.9 s."""
    house.reporter.no_process("cannot hold a worker: Too many open files", NOW)
    assert capfd.readouterr().err.endswith("no new process: cannot hold a worker: Too many open files\n")


def test_a_module_that_is_needed_later_does_not_end_a_service_that_serves(
    house: Hands, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its environment may be removed while the application is imported, and descriptors may be short."""

    def load() -> None:
        raise ModuleNotFoundError("No module named 'tomllib'")

    monkeypatch.setattr(late_modules, "load", load)
    house.rollout.current = 1
    house.reporter.tell(Event(EventKind.READY, 1, Failure("")), NOW)
    assert "cannot be loaded: No module named 'tomllib'; a reload or a command may fail" in capfd.readouterr().err


@pytest.mark.parametrize(("reload_again", "said"), [(False, "READY=1"), (True, "STATUS=reload failed")])
def test_a_refused_reload_is_not_the_end_of_the_next(
    house: Hands, monkeypatch: pytest.MonkeyPatch, reload_again: bool, said: str
) -> None:
    """RELOADING=1 was said of that already, and READY=1 would say that it is over."""
    sent: list[str] = []
    monkeypatch.setattr(systemd.Notifier, "_send", lambda _, message, **__: sent.append(message))
    house.rollout.serving_generation = 1
    if reload_again:
        house.launcher.begin(Purpose.RELOAD, house.settings)
    else:
        house.rollout.coming = None
    house.reporter.tell(Event(EventKind.REFUSED, 1, Failure("it is broken")), NOW)
    assert len(sent) == 1
    assert sent[0].startswith(said)


@pytest.mark.parametrize("fault", [MemoryError, RecursionError, OSError])
def test_a_reload_that_meets_a_fault_is_refused_and_does_not_end_the_service(
    house: Hands, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fault: type[Exception]
) -> None:
    """Another user may own a file that it reads."""

    def reload() -> None:
        raise fault("too much")

    monkeypatch.setattr(house.actions, "settle_listeners", lambda _: None)
    monkeypatch.setattr(house.actions._resources, "reload", reload, raising=False)
    house.rollout.want_reload()
    house.actions.act(Reload(), NOW)
    assert not house.rollout.reload_wanted
    said = capfd.readouterr().err
    assert f"a fault of forkserver's, or of this machine: {fault.__name__}('too much')" in said
    assert "Traceback" in said


def test_keys_that_cannot_be_read_after_an_upgrade_end_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """A renewal may be under way between the trial and the exec, and what serves has its own."""
    held = cast("Any", Resources.__new__(Resources))
    held.settings, held._logs = settings.defaults(), SimpleNamespace(error=ErrorLog("-", "info", "test"))
    assert held.tls_of(settings.defaults(certfile=["/no/such.pem"])) is None
    assert "certfile '/no/such.pem': no such file or directory" in capfd.readouterr().err


def test_no_template_speaks_plainly_where_keys_could_not_be_read(house: Hands) -> None:
    encrypted = settings.defaults(app="raw:app", certfile=["/no/such.pem"])
    house.rollout.coming = None
    house.launcher.begin(Purpose.START, encrypted)
    house.act(NOW)
    (news,) = house.rollout.take_events()
    assert news.kind is EventKind.NEVER_STARTED
    assert "its certificates could not be read at the upgrade; fix them and reload" in news.why.reason
    assert house.fleet.templates == []


def test_a_reload_that_wrong_settings_refuse_begins_and_ends_for_systemd(house: Hands, told: list[str]) -> None:
    """With Type=notify-reload it waits for RELOADING=1, and a READY=1 before that ends nothing (systemd.service(5))."""
    house.rollout.serving_generation, house.rollout.coming = 1, None
    house.reporter.settings_refused("workers 'x': not a number")
    assert [each.partition("\n")[0] for each in told] == ["RELOADING=1", "READY=1"]
    assert "not a number" in told[1]


def test_a_hup_while_the_service_drains_begins_and_ends_for_systemd(house: Hands, told: list[str]) -> None:
    """With Type=notify-reload, `systemctl reload` waited until its timeout for a reload that does not come."""
    house.rollout.serving_generation, house.rollout.coming = 1, None
    house.rollout.drain(NEVER)
    house.reporter.asked_to_reload("SIGHUP from pid 1")
    house.rollout.want_reload()
    assert [each.partition("\n")[0] for each in told] == ["RELOADING=1", "READY=1"]
    assert "STATUS=no reload: the service is draining, and only a stop may follow: 0 workers; draining" in told[1]
    assert not house.rollout.reload_wanted


@pytest.mark.parametrize("wanted", [True, False], ids=["wanted", "under way"])
def test_a_reload_that_a_drain_leaves_unfinished_ends_for_systemd(
    house: Hands, told: list[str], capfd: pytest.CaptureFixture[str], wanted: bool
) -> None:
    """Draining changes nothing any more: neither the reload that is under way, nor one that was to follow, ends."""
    house.rollout.serving_generation, house.rollout.coming = 1, None
    heard: list[dict[str, Any]] = []
    house.reporter.reloads.wait(heard.append)
    if wanted:
        house.rollout.want_reload()
    else:
        house.reporter.reloading(house.launcher.begin(Purpose.RELOAD, house.settings))
    before = len(told)
    house.stop().drain("forkserverctl")
    assert [each.partition("\n")[0] for each in told[before:]] == ["RELOADING=1", "READY=1"]
    assert not house.rollout.reloading
    assert [each["error"] for each in heard] == ["the service is draining, and only a stop may follow"]
    assert "the reload that was under way, or was to follow, is left" in capfd.readouterr().err


def test_a_drain_without_a_reload_is_none_for_systemd(house: Hands, told: list[str]) -> None:
    house.rollout.serving_generation, house.rollout.coming = 1, None
    house.stop().drain("forkserverctl")
    assert [each.partition("=")[0] for each in told] == ["STATUS"]


@pytest.mark.parametrize("seconds", [0.0, 10.0], ids=["stopping", "drain_delay"])
def test_a_hup_after_stopping_was_said_says_nothing_more_to_systemd(
    house: Hands, told: list[str], seconds: float
) -> None:
    house.rollout.serving_generation, house.rollout.coming = 1, None
    if seconds:
        house.rollout.drain(NOW + seconds)
    else:
        house.rollout.stop(NOW, NOW)
    house.reporter.asked_to_reload("SIGHUP from pid 1")
    house.rollout.want_reload()
    assert told == []
    assert not house.rollout.reload_wanted
    assert not house.rollout.settled


def test_who_waits_for_a_reload_hears_what_it_has_cost(house: Hands, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[dict[str, Any]] = []
    house.reporter.reloads.wait(heard.append)
    house.reporter.reloads.began(2)
    house.reporter.tell(Event(EventKind.COSTLY, 2, Failure("out of memory: the kernel killed worker=1")), NOW)
    (answer,) = heard
    assert not answer["ok"]
    assert answer["error"] == "generation 2 has taken over, at a cost: out of memory: the kernel killed worker=1"
    assert answer["error"] in capfd.readouterr().err


# An import that is not shared


class Unshared:
    """Two workers of generation 1 serve, each by its own import, and generation 2 rolls."""

    def __init__(self, house: Hands) -> None:
        self.house = house
        self.house.fleet.generations[1].shares = False
        self.load(1)
        self.workers = [self.serving(slot, 1) for slot in (0, 1)]
        self.house.rollout.take_events()
        house.launcher.begin(Purpose.RELOAD, house.settings)
        self.house.fleet.generations[2].shares = False
        self.load(2)

    def load(self, generation: int) -> None:
        self.house.transitions.template_loaded(self.house.transitions.template_started(generation, 4711, NOW), NOW)

    def starting(self, slot: int, generation: int) -> Worker:
        """A worker that imports. No process: its pid is none that there can be."""
        row = self.house.board.lease()
        assert row is not None
        worker = self.house.transitions.worker_ordered(slot, generation, row.index, NOW)
        self.house.table.put(worker, row)
        self.house.transitions.worker_announced(worker, NO_PROCESS + slot, NOW)
        return worker

    def serving(self, slot: int, generation: int) -> Worker:
        worker = self.starting(slot, generation)
        self.house.actions.ready(worker, NOW)
        return worker


NO_PROCESS = 2**22 + 1  # above pid_max, proc(5)


@pytest.fixture
def unshared(house: Hands) -> Unshared:
    return Unshared(house)


@pytest.mark.parametrize(("left", "beside"), [(100 * MIB, 0), (20 * MIB, 1)])
def test_the_first_new_worker_shows_whether_memory_holds_all(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], left: int, beside: int
) -> None:
    monkeypatch.setattr(memory_headroom, "private", lambda _: 50 * MIB)
    monkeypatch.setattr(memory_headroom, "available", lambda: float(left))
    unshared.serving(0, 2)
    assert unshared.house.fleet.generations[2].beside == beside
    assert ("memory has room for 1 new worker beside" in capfd.readouterr().err) == bool(beside)


def test_a_shared_generation_is_not_measured(unshared: Unshared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers take what they write, which nothing tells before they serve."""
    monkeypatch.setattr(memory_headroom, "available", lambda: pytest.fail("it was measured"))
    unshared.house.fleet.generations[2].shares = True
    unshared.serving(0, 2)


def test_stacks_are_asked_for_once(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(Children, "signal", lambda _, process, __: sent.append(process.pid))
    monkeypatch.setattr(syscalls, "hears", lambda pid, _: True)
    first, second = unshared.starting(0, 2), unshared.starting(1, 2)
    unshared.house.actions.act(AskForStacks(first), NOW)
    unshared.house.actions.act(AskForStacks(second), NOW)
    assert sent == [first.pid]
    assert capfd.readouterr().err.count("its stacks follow") == 1


def test_stacks_that_cannot_come_are_not_announced(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker that a signal has stopped writes nothing before it is killed."""
    monkeypatch.setattr(Children, "signal", lambda _, process, signum: True)
    monkeypatch.setattr(syscalls, "hears", lambda pid, signum: False)
    unshared.house.actions.act(AskForStacks(unshared.starting(0, 2)), NOW)
    said = capfd.readouterr().err
    assert "it cannot write its stacks (stopped, or SIGUSR2 is blocked), then it is killed" in said
    assert "follow" not in said


@pytest.mark.parametrize(("hears", "says"), [(True, "where it stands follows"), (False, "it cannot say")])
def test_last_words_are_announced_where_they_come(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], hears: bool, says: str
) -> None:
    monkeypatch.setattr(Children, "signal", lambda _, process, signum: True)
    monkeypatch.setattr(syscalls, "hears", lambda pid, signum: hears)
    monkeypatch.setattr(unshared.house.transitions, "worker_overdue", lambda worker, now: None)
    unshared.house.actions.act(AskForLastWords(unshared.workers[0]), NOW)
    assert says in capfd.readouterr().err


def test_a_signal_of_the_terminal_is_passed_on_to_each_group(
    unshared: Unshared, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[object, int]] = []
    monkeypatch.setattr(Children, "signal_group", lambda _, process, signum: sent.append((process, signum)))
    unshared.house.actions.pass_on(signal.SIGINT)
    assert sent == [(each, signal.SIGINT) for each in (*unshared.house.fleet.templates, *unshared.house.fleet.workers)]
    assert sent


def test_a_failure_that_leaves_both_serving_says_so(unshared: Unshared, capfd: pytest.CaptureFixture[str]) -> None:
    house = unshared.house
    house.rollout.limit_surplus(2, 1)
    unshared.serving(0, 2)
    house.transitions.worker_retiring(unshared.workers[0], NOW)
    house.transitions.worker_exited(unshared.workers[0], "exit status 0", NOW)
    failing, why = unshared.starting(1, 2), Failure("no database", "Traceback")
    house.transitions.worker_load_failed(failing, why, NOW)
    house.reporter.worker_failed(failing, why, NOW)
    for news in house.rollout.take_events():
        house.reporter.tell(news, NOW)
    said = capfd.readouterr().err
    assert (
        "reload failed: no database; generation 1 serves beside 1 worker of generation 2, because others of it" in said
    )
    assert said.count("Traceback") == 1
    assert "until a reload succeeds no worker is recycled" in said
    assert "a crash would load the files on disk" in house.reporter.status()


def test_whoever_changes_workers_after_a_failed_reload_is_told_what_they_load(
    unshared: Unshared, capfd: pytest.CaptureFixture[str]
) -> None:
    house = unshared.house
    house.transitions.worker_load_failed(unshared.starting(0, 2), BROKEN, NOW)
    house.rollout.want_workers(1)
    house.reporter.resized()
    house.reporter.asked_to_leave(unshared.workers[1], "SIGTERM")
    house.transitions.worker_exited(unshared.workers[0], "killed by SIGSEGV", NOW)
    house.reporter.worker_ended(unshared.workers[0], "killed by SIGSEGV", "", NOW)
    said = capfd.readouterr().err
    assert "workers wanted: 3; a worker that is added loads the files on disk" in said
    assert "stays until a reload succeeds" in said
    assert "it is replaced by one that loads the files on disk" in said


def test_a_worker_that_is_killed_for_what_it_holds_is_a_warning(
    unshared: Unshared, capfd: pytest.CaptureFixture[str]
) -> None:
    """An operator has set graceful_timeout, and it was kept."""
    (worker, _) = unshared.workers
    unshared.house.transitions.worker_retiring(worker, NOW)
    worker.sentence = "it had not left within graceful_timeout (30 s)"
    unshared.house.reporter.worker_ended(worker, "killed by SIGKILL", "it was serving GET /", NOW)
    assert "warning test " in capfd.readouterr().err


def test_a_crash_that_is_only_counted_has_its_line_at_level_debug(
    unshared: Unshared, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(LINES_AT_ONCE + 1):
        unshared.house.reporter.worker_ended(unshared.workers[0], "killed by SIGSEGV", "", NOW)
    lines = [line for line in capfd.readouterr().err.splitlines() if "killed by SIGSEGV" in line]
    assert [line.split()[1] for line in lines] == ["error"] * LINES_AT_ONCE + ["debug"]


def test_a_first_start_says_what_it_waits_for(house: Hands) -> None:
    """It may be tried for minutes, until the manager's limit ends it, and "starting" alone helps nobody."""
    events = house.transitions
    events.template_loaded(events.template_started(1, 9001, NOW), NOW)
    worker = events.worker_ordered(0, 1, 0, NOW)
    events.worker_forked(worker, 9002)
    events.worker_announced(worker, 9002, NOW)
    assert house.reporter.status() == "starting"
    events.worker_exited(worker, "exit status 5, by itself", NOW)
    house.reporter.worker_failed(worker, Failure("exit status 5, by itself"), NOW)
    assert house.reporter.status() == "starting; worker 1: exit status 5, by itself"


def test_a_missing_worker_is_named_with_its_reason(unshared: Unshared) -> None:
    house, reporter = unshared.house, unshared.house.reporter
    unshared.house.transitions.worker_load_failed(unshared.starting(0, 2), BROKEN, NOW)
    house.transitions.worker_exited(unshared.workers[1], "killed by SIGKILL", NOW)
    failing = unshared.starting(1, 1)
    house.transitions.worker_load_failed(failing, Failure("no database"), NOW)
    reporter.worker_failed(failing, Failure("no database"), NOW)
    assert ": 1 of 2 workers; worker 2: no database; a crash would load" in reporter.status()


def test_a_dead_template_of_unshared_code_is_replaced_without_an_import(unshared: Unshared) -> None:
    """The files may be broken by now, and its workers load them themselves."""
    house = unshared.house
    house.transitions.worker_load_failed(unshared.starting(0, 2), BROKEN, NOW)
    assert unshared.house.settings.preload == "auto"
    number = unshared.house.launcher.begin(Purpose.REPLACE, unshared.house.settings)
    assert not house.fleet.generations[number].shares


def test_a_worker_is_not_retired_where_its_successor_would_load_refused_code(unshared: Unshared) -> None:
    house = unshared.house
    answers: list[dict[str, Any]] = []
    handlers = house.handlers()
    house.transitions.worker_load_failed(unshared.starting(0, 2), BROKEN, NOW)
    handlers.ask(b'{"command": "retire", "worker": "worker=2"}', answers.append, NOW)
    assert [answer["ok"] for answer in answers] == [False]
    assert "would load the files on disk" in answers[0]["error"]
    assert unshared.workers[1].recycle_at == NEVER


def test_who_asks_for_workers_is_told_what_they_may_lack(house: Hands) -> None:
    resources: Any = house.actions._resources
    resources.make_room_for = "workers {}: the hard limit is 64".format
    handlers = house.handlers()
    answers: list[dict[str, Any]] = []
    handlers.ask(b'{"command": "scale", "workers": 4}', answers.append, NOW)
    assert house.fleet.wanted == 4
    said = "workers wanted: 4; a reload goes back to the settings\nworkers 4: the hard limit is 64"
    assert answers == [{"ok": True, "text": said}]


# A link that was switched before a template died


@pytest.fixture
def released(unshared: Unshared, tmp_path: Path) -> Path:
    """A generation that was loaded by a link, which leads to another release by now, and has lost its template."""
    house, link = unshared.house, tmp_path / "current"
    for name in ("r1", "r2"):
        (tmp_path / name).mkdir()
    link.symlink_to("r1")
    cast("Any", house.actions._resources).directory = str(link)
    house.rollout.rolling, house.rollout.current = None, house.launcher.begin(Purpose.RELOAD, house.settings)
    link.unlink()
    link.symlink_to("r2")
    house.launcher.begin(Purpose.REPLACE, house.settings)
    return link


def test_a_crash_deploys_nothing(unshared: Unshared, released: Path, capfd: pytest.CaptureFixture[str]) -> None:
    house = unshared.house
    assert house.rollout.coming is not None
    directory, _ = house.launcher._folders(house.rollout.coming)
    assert directory == str(released.parent / "r1")
    assert f"{released} leads to {released.parent}/r2 by now, which only a reload takes" in capfd.readouterr().err
    after = house.launcher.begin(Purpose.RELOAD, house.settings)
    assert house.launcher._folders(after)[0] == str(released)


def test_other_code_is_not_loaded_beside_what_serves(
    unshared: Unshared, released: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where the release of before was removed, too: then a worker that ends has no successor, as the status says."""
    house = unshared.house
    (released.parent / "r1").rmdir()
    generation = house.rollout.coming
    assert generation is not None
    house.actions.act(StartTemplate(generation, shares=True), NOW)
    for news in house.rollout.take_events():
        house.reporter.tell(news, NOW)
    said = f"no new template: {released.parent}/r1, where its code was, is gone, and {released} leads to"
    assert said in capfd.readouterr().err
    house.rollout.serving_generation = 1
    assert f"no template, so no worker is replaced: {released.parent}/r1" in house.reporter.status()
    house.transitions.worker_exited(unshared.workers[0], "killed by SIGKILL", NOW)
    house.reporter.worker_ended(unshared.workers[0], "killed by SIGKILL", "", NOW)
    assert "it is not replaced yet: there is no template" in capfd.readouterr().err


def not_replaced(house: Hands, why: Failure) -> None:
    """A dead template's successor does not load."""
    generation = house.launcher.begin(Purpose.REPLACE, house.settings)
    house.rollout.generation_failed(generation, why, NOW)
    for news in house.rollout.take_events():
        house.reporter.tell(news, NOW)


def test_why_a_dead_template_has_no_successor_is_told_once_and_then_counted(
    unshared: Unshared, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is tried again every half minute, for as long as the code is broken."""
    capfd.readouterr()
    for _ in range(3):
        not_replaced(unshared.house, BROKEN)
    told = capfd.readouterr().err
    assert told.count("no new template: it is broken; living workers serve on") == 1
    assert told.count("Traceback") == 1
    assert "no new template: the same again, 1 time; living workers serve on" in told
    assert "no new template: the same again, 2 times; living workers serve on" in told
    not_replaced(unshared.house, Failure("it is broken in another way", "Traceback"))
    assert capfd.readouterr().err.count("Traceback") == 1


def test_why_there_is_no_template_is_told_whole_again_once_one_has_loaded(
    unshared: Unshared, capfd: pytest.CaptureFixture[str]
) -> None:
    not_replaced(unshared.house, BROKEN)
    house = unshared.house
    template = house.transitions.template_started(
        unshared.house.launcher.begin(Purpose.REPLACE, unshared.house.settings), 4711, NOW
    )
    house.transitions.template_loaded(template, NOW)
    capfd.readouterr()
    not_replaced(unshared.house, BROKEN)
    assert "no new template: it is broken; living workers serve on" in capfd.readouterr().err


def test_where_a_successor_is_loaded_from_is_told_at_its_first_try(
    unshared: Unshared, released: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    house = unshared.house
    assert house.rollout.coming is not None
    house.launcher._folders(house.rollout.coming)
    assert "warning test" in capfd.readouterr().err
    not_replaced(house, BROKEN)
    capfd.readouterr()
    house.launcher._folders(house.launcher.begin(Purpose.REPLACE, house.settings))
    told = capfd.readouterr().err
    assert f"{released} leads to {released.parent}/r2 by now" in told
    assert "warning" not in told


def test_other_code_is_loaded_where_nothing_serves_any_more(
    unshared: Unshared, released: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    house = unshared.house
    (released.parent / "r1").rmdir()
    for worker in unshared.workers:
        house.transitions.worker_exited(worker, "killed by SIGKILL", NOW)
    assert house.rollout.coming is not None
    assert house.launcher._folders(house.rollout.coming)[0] == str(released)
    assert "without a reload: no worker serves, and" in capfd.readouterr().err
