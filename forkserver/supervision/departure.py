"""How the service ends: gracefully after a delay, gracefully, or at once.

It promises that a second request to stop is quick, that nobody who has begun to connect is reset by a graceful one, and
that draining goes on until a stop. It refuses to end a process: the plan does that, once the roster knows.
"""

from __future__ import annotations

from forkserver.supervision.effects import Effects
from forkserver.supervision.herald import Herald
from forkserver.supervision.listeners import SYN_SECONDS
from forkserver.supervision.lives import NEVER
from forkserver.supervision.resources import Resources
from forkserver.supervision.roster import Roster


class Departure:
    """What begins a stop, and what must be done on the way."""

    def __init__(self, resources: Resources, facts: Roster, herald: Herald, effects: Effects) -> None:
        self._resources = resources
        self._facts = facts
        self._herald = herald
        self._effects = effects

    def ask(self, who: str, now: float) -> None:
        """The first stops gracefully, after ``drain_delay``, so that load balancers notice; the second quickly."""
        facts, delay = self._facts, self._resources.settings.drain_delay
        if facts.stopping or facts.stop_at < NEVER:
            self.quickly(f"second {who}", now)
        elif delay and facts.serving_generation and not facts.draining:
            self._herald.draining(who, delay)
            facts.drain(now + delay)
            self._effects.drain()
        else:
            self._herald.finishing(who)
            self._begin(now)

    def quickly(self, why: str, now: float) -> None:
        """Stop at once."""
        if not self._facts.quick:
            self._herald.stopping(f"{why}; at once")
            self._facts.stop_quickly(now)

    def drain(self, who: str) -> None:
        """Serve on with ``Connection: close``, until somebody asks to stop."""
        self._facts.drain(NEVER)
        self._effects.drain()
        self._herald.serving_on(who)

    def proceed(self, now: float) -> bool:
        """Begin the stop that was put off, when its time has come; whether everyone is to leave now."""
        facts = self._facts
        if now >= facts.stop_at:
            self._herald.drained()
            self._begin(now)
        leaving = facts.stopping and (facts.quick or now >= facts.retire_at)
        if leaving:
            self._resources.refuse_arrivals(unix=True)
        return leaving

    def _begin(self, now: float) -> None:
        # Who has begun to connect gets into a queue and is served; closing under them would be a reset.
        filtered = self._resources.refuse_arrivals(unix=False)
        self._facts.stop(now, now + SYN_SECONDS if filtered else now)
