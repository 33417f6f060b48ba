"""What a run found, as raw figures (JSON) and as a table (Markdown), with what is needed to make it again."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any, NamedTuple

from bench import machine
from bench.peers import OWN
from bench.scenario import Figure, Outcome, Scenario
from bench.scenarios import SCENARIOS

RESULTS = machine.TOP / "build" / "bench"


class Result(NamedTuple):
    scenario: Scenario
    rounds: int
    seconds: int
    command: str  # that makes it again
    machine: str
    revision: str
    day: str
    outcomes: list[Outcome]

    def figure_of(self, name: str) -> Figure:
        return next(each for each in self.scenario.figures if each.key == name)

    def sorted(self) -> list[Outcome]:
        """The best by the first figure first, those that fail last."""
        first = self.scenario.figures[0]
        sign = 1 if first.less_is_better else -1

        def place(outcome: Outcome) -> tuple[bool, float]:
            value = outcome.figure(first)
            return value is None, sign * (value or 0.0)

        return sorted(self.outcomes, key=place)


def of_run(scenario: Scenario, rounds: int, seconds: int, command: str, outcomes: list[Outcome]) -> Result:
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Result(scenario, rounds, seconds, command, machine.description(), machine.revision(), day, outcomes)


def save(result: Result) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{result.scenario.name}.json"
    raw = {name: value for name, value in result._asdict().items() if name not in ("scenario", "outcomes")}
    outcomes = [dataclasses.asdict(each) for each in result.outcomes]
    path.write_text(json.dumps({"scenario": result.scenario.name} | raw | {"outcomes": outcomes}, indent=1) + "\n")
    return path


def load(path: Path) -> Result:
    raw: dict[str, Any] = json.loads(path.read_text())
    scenario = SCENARIOS[raw.pop("scenario")]
    outcomes = [Outcome(**each) for each in raw.pop("outcomes")]
    return Result(scenario=scenario, outcomes=outcomes, **raw)


def saved() -> list[Result]:
    """The last result of each scenario that has one, in the order of the scenarios."""
    paths = [RESULTS / f"{name}.json" for name in SCENARIOS]
    return [load(path) for path in paths if path.exists()]


def table(result: Result) -> str:
    """A row for each peer, the best first; where there is CPU per request, with how much of it forkserver takes."""
    figures = result.scenario.figures
    own = next((each for each in result.outcomes if each.name == OWN), None)
    compared = next((each for each in figures if each.key == "cpu" and own and own.figure(each) is not None), None)
    heads = ["server", *(each.heading for each in figures), *([f"{OWN} takes, of its CPU"] if compared else [])]
    lines = [f"| {' | '.join(heads)} |", f"|---{'|--:' * (len(heads) - 1)}|"]
    for outcome in result.sorted():
        named = f"**{outcome.name}**" if outcome.name == OWN else f"{outcome.name} {outcome.version}".strip()
        cells = [_cell(outcome, each) for each in figures]
        if outcome.failing:
            cells = [_plain(outcome.failing), *[""] * (len(figures) - 1)]
        lines.append(f"| {' | '.join([named, *cells, *_share(own, outcome, compared)])} |")
    return "\n".join(lines)


def _cell(outcome: Outcome, figure: Figure) -> str:
    value = outcome.figure(figure)
    return "" if value is None else figure.form.format(value)


def _share(own: Outcome | None, outcome: Outcome, compared: Figure | None) -> list[str]:
    if compared is None or own is None:
        return []
    theirs, ours = outcome.figure(compared), own.figure(compared)
    return ["" if not theirs or ours is None or outcome is own else f"{ours / theirs:.2f}"]


def _plain(message: str) -> str:
    """Without what would end a cell of the table, or fill the page."""
    line = " ".join(message.split()).replace("|", "\\|")
    return line if len(line) <= 160 else line[:159] + "…"


def footnote(result: Result) -> str:
    """Where the figures are from, and the command that makes them again."""
    own = next((each.version for each in result.outcomes if each.name == OWN), "")
    version = f"{OWN} {own} ({result.revision})" if result.revision else f"{OWN} {own}"
    rounds = "one round" if result.rounds == 1 else f"medians of {result.rounds} rounds"
    return f"{result.machine}; {version}; {result.day}; {rounds} of {result.seconds} s. Again: `{result.command}`"
