"""Bars of a result, as SVG: one group for each server, the best on top. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.peers import OWN
from bench.results import Result

OURS, THEIRS = ("#1a7f5a", "#63b795", "#b5dfcc"), ("#6b7785", "#a3adb8", "#d5dae0")
BAR_INCHES = 0.26


def draw(result: Result, path: Path) -> bool:
    """Write the plot to ``path``; False, where nobody has a figure to show."""
    outcomes = [each for each in result.sorted() if not each.failing]
    if not outcomes:
        return False
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"})
    from matplotlib import pyplot

    keys = result.scenario.plot
    figure, axes = pyplot.subplots(
        figsize=(7, 0.9 + BAR_INCHES * len(outcomes) * (len(keys) + 0.5)), layout="constrained"
    )
    for place, key in enumerate(keys):
        column = result.figure_of(key)
        values = [each.figure(column) or 0.0 for each in outcomes]
        colours = [(OURS if each.name == OWN else THEIRS)[place % 3] for each in outcomes]
        heights = [number + (place - (len(keys) - 1) / 2) * 0.8 / len(keys) for number in range(len(outcomes))]
        bars = axes.barh(heights, values, 0.8 / len(keys), color=colours)
        words = column.heading if len(keys) > 1 else ""
        axes.bar_label(
            bars, [f"{column.form.format(value)} {words}".strip() for value in values], padding=3, fontsize=8
        )
    _dress(axes, result, [each.name for each in outcomes])
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None}, transparent=False)
    pyplot.close(figure)
    return True


def _dress(axes: Any, result: Result, names: list[str]) -> None:
    first = result.figure_of(result.scenario.plot[0])
    direction = "less is better" if first.less_is_better else "more is better"
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    if result.scenario.logarithmic:
        axes.set_xscale("symlog", linthresh=1)
    headings = [result.figure_of(key).heading for key in result.scenario.plot]
    axes.set_title(f"{result.scenario.title}: {', '.join(headings)} ({direction})", loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
