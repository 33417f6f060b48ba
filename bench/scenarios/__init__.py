"""The table of scenarios, in the order in which they are run and shown."""

from __future__ import annotations

from bench.scenario import Scenario
from bench.scenarios import bodies, rates, reloads, resources, waits

SCENARIOS: dict[str, Scenario] = {
    each.name: each
    for each in (
        *rates.MAIN,
        *waits.MAIN,
        *reloads.MAIN,
        *rates.MORE,
        *bodies.ALL,
        *waits.MORE,
        *reloads.MORE,
        *resources.ALL,
    )
}
MAIN = tuple(name for name, each in SCENARIOS.items() if each.main)
