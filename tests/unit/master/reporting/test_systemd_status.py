"""What the service manager hears by itself: it must be true, in time, and cost nothing at rest."""

from __future__ import annotations

from typing import cast

from forkserver.ipc.scoreboard import REQUESTS, Scoreboard
from forkserver.linux.systemd import Notifier
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import MARGIN_SECONDS, Purpose, Times
from forkserver.master.model.lifecycle import NEVER, Worker
from forkserver.master.model.rollout import Rollout
from forkserver.master.monitoring.statistics import Statistics
from forkserver.master.reporting.systemd_status import (
    FIGURES_SECONDS,
    StartTimeoutExtension,
    StatusLine,
    SystemdStatus,
    Watchdog,
    healthy,
)
from harness.model import Model

NOW = 1000.0
TIMES = Times(boot=60.0, graceful=30.0)
BOARD = Scoreboard(rows=8)


class Service(Model):
    """A model that lives as a master's does, and its scoreboard."""

    def __init__(self, wanted: int = 2) -> None:
        super().__init__(Rollout(Fleet(wanted)))
        self.pid = 100
        for row in BOARD:
            row.clear()

    def begin(self, purpose: Purpose = Purpose.START) -> None:
        self.pid += 1
        number = self.rollout.begin(purpose, self.fleet.wanted, TIMES, shares=True)
        self.template = self.transitions.template_started(number, self.pid, NOW)

    def load(self) -> None:
        self.transitions.template_loaded(self.template, 0.0)

    def spawn(self, slot: int) -> Worker:
        self.pid += 1
        worker = self.transitions.worker_ordered(slot, self.template.generation, self.pid % len(BOARD), NOW)
        self.transitions.worker_announced(worker, self.pid, NOW)
        self.transitions.worker_ready(worker, NOW)
        return worker

    def serving(self) -> list[Worker]:
        self.begin()
        self.load()
        return [self.spawn(slot) for slot in range(self.fleet.wanted)]


# The watchdog


def test_a_ping_comes_every_half_of_the_time() -> None:
    watchdog = Watchdog(10.0)
    assert watchdog.due(True, NOW)
    assert watchdog.next_look == NOW + 5
    assert not watchdog.due(True, NOW + 4.9)
    assert watchdog.due(True, NOW + 5)


def test_none_comes_while_nobody_is_well_and_one_soon_after() -> None:
    watchdog = Watchdog(10.0)
    assert not watchdog.due(False, NOW)
    assert NOW < watchdog.next_look < NOW + 5
    assert watchdog.due(True, watchdog.next_look)


def test_without_a_watchdog_nobody_is_woken() -> None:
    watchdog = Watchdog(None)
    assert watchdog.next_look == NEVER
    assert not watchdog.due(True, NOW)


def test_a_start_is_well_until_its_own_limits_end_it() -> None:
    service = Service()
    service.begin()
    assert healthy(service.rollout)


def test_one_worker_that_serves_is_enough_and_none_is_too_few() -> None:
    service = Service()
    first, second = service.serving()
    service.transitions.worker_stopped(first, NOW + 30)
    assert healthy(service.rollout)
    service.transitions.worker_hung(second, NOW)
    assert not healthy(service.rollout), "one is stopped, and the other in a call that lasts too long"
    service.transitions.worker_continued(first)
    assert healthy(service.rollout)


def test_a_stop_is_well_though_nobody_serves() -> None:
    service = Service(1)
    (worker,) = service.serving()
    service.rollout.stop(NOW, NOW)
    service.transitions.worker_retiring(worker, NOW)
    assert healthy(service.rollout)


# More time


def test_each_step_of_a_start_asks_for_its_own_limit_once() -> None:
    service, start_timeout = Service(), StartTimeoutExtension()
    limit = sum(TIMES) + MARGIN_SECONDS
    service.begin()
    service.load()
    assert start_timeout.more(service.rollout) == limit
    assert start_timeout.more(service.rollout) == 0
    service.spawn(0)
    assert start_timeout.more(service.rollout) == limit
    assert start_timeout.more(service.rollout) == 0


def test_what_starts_again_and_again_gets_no_more_time() -> None:
    """A worker that dies and is replaced is no progress: the manager's own limit has to end that."""
    service, start_timeout = Service(), StartTimeoutExtension()
    service.begin()
    service.load()
    worker = service.spawn(0)
    assert start_timeout.more(service.rollout)
    service.transitions.worker_exited(worker, "killed", NOW)
    service.spawn(0)
    assert start_timeout.more(service.rollout) == 0


def test_a_first_failure_is_a_step_of_a_start_and_a_second_is_none() -> None:
    """The next worker may begin to import, and has its own boot_timeout."""
    service, start_timeout = Service(), StartTimeoutExtension()
    service.begin()
    service.load()
    assert start_timeout.more(service.rollout)
    for more in (True, False):
        service.pid += 1
        worker = service.transitions.worker_ordered(0, 1, 0, NOW)
        service.transitions.worker_announced(worker, service.pid, NOW)
        service.transitions.worker_exited(worker, "killed", NOW)
        assert bool(start_timeout.more(service.rollout)) == more
    service.spawn(0)
    assert start_timeout.more(service.rollout) == 0, "it has been counted"


def test_at_rest_nothing_is_asked_for() -> None:
    """While the service runs, the datagram would prolong RuntimeMaxSec=."""
    service, start_timeout = Service(), StartTimeoutExtension()
    service.serving()
    assert start_timeout.more(service.rollout) == 0


def test_a_reload_may_ask_and_a_dead_templates_successor_may_not() -> None:
    service, start_timeout = Service(), StartTimeoutExtension()
    service.serving()
    service.begin(Purpose.RELOAD)
    assert start_timeout.more(service.rollout)
    other = Service()
    other.serving()
    other.begin(Purpose.REPLACE)
    assert start_timeout.more(other.rollout) == 0


class Manager:
    """What a service manager with a watchdog hears, in its order."""

    enabled, watchdog_seconds = True, 10.0

    def __init__(self) -> None:
        self.heard: list[str] = []

    def alive(self) -> None:
        self.heard.append("alive")

    def extend(self, seconds: float) -> None:
        self.heard.append("more time")

    def status(self, status: str) -> None:
        """Others look at that."""


def test_more_time_for_a_step_is_none_for_the_watchdog() -> None:
    """systemd gives it as much; a master that hangs a moment after a reload would be found in minutes."""
    service, manager = Service(1), Manager()
    statistics = Statistics(service.fleet, lambda worker: BOARD[worker.row])
    pulse = SystemdStatus(cast("Notifier", manager), service.rollout, statistics, lambda figures: figures)
    service.serving()
    pulse.beat(NOW)
    service.begin(Purpose.RELOAD)
    manager.heard.clear()
    pulse.beat(NOW + 1)
    assert manager.heard == ["more time", "alive"]
    pulse.beat(NOW + 1)
    assert manager.heard == ["more time", "alive"]
    assert pulse.next_look <= NOW + 1 + manager.watchdog_seconds / 2


# The status


def status_line(service: Service) -> StatusLine:
    statistics = Statistics(service.fleet, lambda worker: BOARD[worker.row])
    return StatusLine(
        service.rollout, statistics, lambda figures: f"{len(service.fleet.serving())} serve {figures}".strip()
    )


def test_a_change_is_told_at_once_and_the_next_a_second_later() -> None:
    service = Service()
    told = status_line(service)
    service.begin()
    service.load()
    service.spawn(0)
    assert told.line(NOW) == "1 serve"
    service.spawn(1)
    assert told.line(NOW + 0.1) is None
    assert told.next_look == NOW + 1
    assert told.line(NOW + 1) == "2 serve"
    assert told.next_look == NEVER


def test_at_rest_nobody_is_woken_and_nothing_is_said() -> None:
    service = Service()
    service.serving()
    told = status_line(service)
    assert told.line(NOW) == "2 serve"
    assert told.next_look == NEVER
    assert told.line(NOW + 3600) is None
    assert told.next_look == NEVER


def test_while_requests_come_they_are_counted() -> None:
    service = Service()
    first, second = service.serving()
    told = status_line(service)
    told.line(NOW)
    BOARD[first.row].words[REQUESTS] = 500
    BOARD[second.row].begin(b"GET /x")
    later = NOW + FIGURES_SECONDS
    assert told.line(later) == "2 serve 1 busy, 100 requests/s"
    assert told.next_look == later + FIGURES_SECONDS
    BOARD[second.row].end()
    assert told.line(later + FIGURES_SECONDS) == "2 serve"  # one request in five seconds
    assert told.line(later + 2 * FIGURES_SECONDS) is None
    assert told.next_look == NEVER, "no request has come since"


def test_dead_workers_requests_are_not_forgotten() -> None:
    service = Service()
    first, _ = service.serving()
    statistics = Statistics(service.fleet, lambda worker: BOARD[worker.row])
    BOARD[first.row].words[REQUESTS] = 7
    before = first.state
    statistics.ended(first, before, "killed by SIGKILL, sent by another process", ordered=False)
    service.transitions.worker_exited(first, "killed", NOW)
    assert statistics.requests == 7
    assert statistics.ends == {"killed by SIGKILL (sent by another process)": 1}
