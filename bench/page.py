"""docs/performance.md: what stands between two markers is made from the last results; the rest is written by hand."""

from __future__ import annotations

import re
from pathlib import Path

from bench import machine, plots, results
from bench.results import Result
from bench.scenarios import SCENARIOS

PAGE = machine.TOP / "docs" / "performance.md"
BESIDE = PAGE.with_name("performance")  # plots


def put() -> list[str]:
    """Write every saved result into the page; the names of the scenarios that were put there."""
    text = PAGE.read_text()
    BESIDE.mkdir(exist_ok=True)
    written = []
    for result in results.saved():
        text = replaced(text, result.scenario.name, part(result))
        written.append(result.scenario.name)
    PAGE.write_text(text)
    return written


def replaced(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between the markers of ``name``; ValueError where it does not have them once each."""
    begin, end = markers(name)
    pattern = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"{PAGE.name} must have {begin} and {end} once each, on lines of their own")
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


def markers(name: str) -> tuple[str, str]:
    return f"<!-- bench: {name} -->", f"<!-- end: {name} -->"


def missing() -> list[str]:
    """Scenarios that the page has no markers for."""
    text = PAGE.read_text()
    return [name for name in SCENARIOS if not all(marker in text for marker in markers(name))]


def part(result: Result) -> str:
    """What stands between the markers: plot, table, and where both are from."""
    name = result.scenario.name
    plot = BESIDE / f"{name}.svg"
    picture = f"![{result.scenario.title}]({_link(plot)})\n\n" if plots.draw(result, plot) else ""
    about = f"{result.scenario.about}\n\n"
    return f"{about}{picture}{results.table(result)}\n\n{results.footnote(result)}."


def _link(path: Path) -> str:
    return path.relative_to(PAGE.parent).as_posix()
