"""Periodic notices to the service manager: the status line, the watchdog's ping, and the extension of start timeouts.

A ping means that the master's loop turns and that a worker serves. More time is asked for only where a start or a
reload has come a step further. For a status line a service at rest does not wake.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from forkserver.linux.common.counted import count_of
from forkserver.linux.systemd import Notifier
from forkserver.master.model.generation import MARGIN_SECONDS, Purpose
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.model.rollout import Rollout
from forkserver.master.monitoring.statistics import Statistics

FIGURES_SECONDS: Final = 5.0  # between two looks at busy workers and requests, while there are requests
_LEAST_SECONDS: Final = 1.0  # between two status lines
_HALF: Final = 0.5  # of the watchdog's time: one ping may be late


def healthy(rollout: Rollout) -> bool:
    """Whether a worker serves: ready, not stopped by a signal, and in no call that lasts too long.

    A start is bounded by boot_timeout, a stop by graceful_timeout: the watchdog has no say in them.
    """
    fleet = rollout.fleet
    if fleet.stopping or not rollout.serving_generation:
        return True
    return any(worker.deadline == NEVER for worker in fleet.serving())


class Watchdog:
    """When to ping, at the latest every half of ``seconds``; NEVER where None."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self.next_look = NEVER if seconds is None else 0.0

    def due(self, well: bool, now: float, early: bool = False) -> bool:
        """Whether to ping ``now``, ``early`` before its time too; where it is not ``well``, look again soon."""
        if self._seconds is None or (now < self.next_look and not early):
            return False
        self.next_look = now + self._seconds * (_HALF if well else _HALF / 4)
        return well


class StartTimeoutExtension:
    """How much more time a start or a reload may ask for: its own limit, once for every step that it gets further."""

    def __init__(self) -> None:
        self._furthest = (0, False, 0)

    def more(self, rollout: Rollout) -> float:
        """Seconds to ask for; 0 where it is no further than before, or nothing of the kind is under way."""
        fleet, number = rollout.fleet, rollout.coming or rollout.rolling or rollout.current
        generation = fleet.generations.get(number)
        under_way = not rollout.serving_generation or rollout.reloading
        if generation is None or not under_way or fleet.stopping or generation.purpose is Purpose.REPLACE:
            return 0.0
        ready = sum(each.generation == number and each.ready_at < NEVER for each in fleet.workers)
        # A worker of a first start that has failed once lets the next one begin; a second failure is no step.
        tried = ready if rollout.serving_generation else ready + len(rollout.failing)
        step = number, fleet.template(number) is not None, tried
        if step <= self._furthest:
            return 0.0
        self._furthest = step
        return sum(generation.times) + MARGIN_SECONDS


class StatusLine:
    """The status line: sent anew when facts change, and every few seconds while requests come."""

    def __init__(self, rollout: Rollout, statistics: Statistics, status: Callable[[str], str]) -> None:
        self._count_at = NEVER
        self._say_at = NEVER  # when to send what came too early after the last one
        self._fleet = rollout.fleet
        self._rollout = rollout
        self._statistics = statistics
        self._status = status
        self._shown: tuple[object, ...] = ()
        self._figures = ""
        self._requests = 0
        self._looked_at = -NEVER
        self._said_at = -NEVER

    @property
    def next_look(self) -> float:
        """When there may be something new to say, or to be said at last."""
        return min(self._count_at, self._say_at)

    def line(self, now: float) -> str | None:
        """What to say ``now``; None where nothing has changed, or it was said a moment ago."""
        if now >= self._looked_at + FIGURES_SECONDS:
            self._count(now)
        fleet, rollout = self._fleet, self._rollout
        shown = (
            *(fleet.serving_count, fleet.wanted, rollout.serving_generation, rollout.reloading),
            *(fleet.draining, fleet.stopping, fleet.maintenance, rollout.files_changed, rollout.failing, self._figures),
            *(rollout.broken, rollout.replace_failures > 0, fleet.forks.failures > 1),
        )
        if shown == self._shown:
            self._say_at = NEVER
            return None
        if now < self._said_at + _LEAST_SECONDS:
            self._say_at = self._said_at + _LEAST_SECONDS
            return None
        self._shown, self._said_at, self._say_at = shown, now, NEVER
        return self._status(self._figures)

    def _count(self, now: float) -> None:
        """Count anew. Where no request has come, the next count waits for another reason to wake."""
        requests, busy = self._statistics.requests, self._statistics.busy
        more = max(0, requests - self._requests)
        rate = more / (now - self._looked_at)
        figures = (f"{busy} busy" if busy else "", f"{count_of(round(rate), 'request')}/s" if rate >= 1 else "")
        self._figures = ", ".join(filter(None, figures))
        self._requests, self._looked_at = requests, now
        self._count_at = now + FIGURES_SECONDS if more else NEVER


class SystemdStatus:
    """Sends all three. ``next_look`` is when ``beat`` has something to say without anything having happened."""

    def __init__(
        self, notifier: Notifier, rollout: Rollout, statistics: Statistics, status: Callable[[str], str]
    ) -> None:
        self._notifier = notifier
        self._rollout = rollout
        self._watchdog = Watchdog(notifier.watchdog_seconds)
        self._start_timeout = StartTimeoutExtension()
        self._status_line = StatusLine(rollout, statistics, status)

    @property
    def next_look(self) -> float:
        """When there may be something to say although nothing has happened."""
        return min(self._watchdog.next_look, self._status_line.next_look)

    def beat(self, now: float) -> None:
        """Say what there is to say."""
        if not self._notifier.enabled:
            return
        seconds = self._start_timeout.more(self._rollout)
        if seconds:
            self._notifier.extend(seconds)
        # The manager gives its watchdog as much, and a ping behind it takes that back: a hang is found as ever.
        if self._watchdog.due(healthy(self._rollout), now, early=seconds > 0):
            self._notifier.alive()
        if line := self._status_line.line(now):
            self._notifier.status(line)
