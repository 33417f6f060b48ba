"""What a scenario is, and how all of them are run: in rounds, in each of them one peer after the other.

The machine drifts; what is measured within a minute of each other can be compared, and a median leaves the outliers
out. A peer that fails is measured no more in that scenario, and its message is kept in place of figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

import psutil

from bench import servers
from bench.peers import PEERS, USUAL, Peer, PeerError, Setup, UnableError
from bench.servers import Server

Figures = dict[str, float]


@dataclass(frozen=True)
class Figure:
    """A column: what it is called, how it is written, and how the figures of several rounds become one."""

    key: str
    heading: str
    form: str = "{:,.0f}"
    over: Callable[[list[float]], float] = statistics.median
    less_is_better: bool = True


RATE = Figure("rate", "requests/s", less_is_better=False)
CPU = Figure("cpu", "CPU µs a request", "{:,.1f}")


class Stand:
    """Where one peer shows what it can do: servers of its own, started when they are first wanted."""

    def __init__(self, peer: Peer, stack: ExitStack, seconds: int) -> None:
        self.peer = peer
        self.seconds = seconds  # how long to measure
        self._stack = stack
        self._servers: dict[Setup, Server] = {}

    def server(self, setup: Setup) -> Server:
        """A server that lives until the last round is over."""
        if setup not in self._servers:
            self._servers[setup] = self._stack.enter_context(servers.running(self.peer, setup))
        return self._servers[setup]

    def fresh(self, setup: Setup) -> AbstractContextManager[Server]:
        """A server for this round only."""
        return servers.running(self.peer, setup)

    def starting(self, setup: Setup) -> AbstractContextManager[Server]:
        """The same, as soon as it has been started."""
        return servers.started(self.peer, setup)


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    about: str  # what is measured, in a sentence or two for the table's reader
    figures: tuple[Figure, ...]  # the first one orders the table
    measure: Callable[[Stand], Figures]
    plot: tuple[str, ...]  # the keys of the figures that are drawn
    main: bool = False  # one of the five that matter
    rounds: int = 3
    seconds: int = 3
    peers: tuple[str, ...] = USUAL
    logarithmic: bool = False  # the plot's axis


@dataclass
class Outcome:
    """What became of one peer."""

    name: str
    version: str = ""
    rounds: list[Figures] = field(default_factory=list)
    failing: str = ""  # why there are no figures

    def figure(self, figure: Figure) -> float | None:
        values = [each[figure.key] for each in self.rounds if figure.key in each]
        return figure.over(values) if values and not self.failing else None


def run(
    scenario: Scenario, names: Iterable[str], rounds: int, seconds: int, say: Callable[[str], None]
) -> list[Outcome]:
    outcomes = {name: Outcome(name) for name in names}
    with ExitStack() as stack:
        stands = {name: Stand(PEERS[name], stack, seconds) for name in outcomes}
        for number in range(rounds):
            # The other way round in every second round: whoever comes behind a heavy one shall not always be the same.
            for name, stand in list(stands.items())[:: -1 if number % 2 else 1]:
                if not outcomes[name].failing:
                    _measure(scenario, stand, outcomes[name])
                    say(f"{scenario.name}: round {number + 1} of {rounds}: {brief(scenario, outcomes[name])}")
    return list(outcomes.values())


def _measure(scenario: Scenario, stand: Stand, outcome: Outcome) -> None:
    try:
        outcome.version = stand.peer.version()
        outcome.rounds.append(scenario.measure(stand))
    except UnableError as error:
        outcome.failing = str(error)
    except (PeerError, OSError, psutil.Error) as error:
        outcome.failing = f"fails: {str(error) or type(error).__name__}"


def brief(scenario: Scenario, outcome: Outcome) -> str:
    """The last round in a line for whoever waits."""
    if outcome.failing:
        return f"{outcome.name}: {outcome.failing}"
    last = outcome.rounds[-1]
    told = [f"{each.form.format(last[each.key])} {each.heading}" for each in scenario.figures if each.key in last]
    return f"{outcome.name}: {', '.join(told)}"


def worst(values: list[float]) -> float:
    return max(values)


def total(values: list[float]) -> float:
    return sum(values)
