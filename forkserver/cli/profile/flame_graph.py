"""A flame graph as one SVG file: no script, no style or font from elsewhere; the pointer shows a function's title.

Each box is a function in a stack, as wide as its share of the time, above the function that has called it. Boxes of one
module have one colour; those of the server itself are grey, and those of paths blue.

Source: https://www.brendangregg.com/flamegraphs.html, SVG 1.1.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from html import escape
from typing import Final

from forkserver.cli.profile.profile import Function, StackTimes

WIDTH: Final = 1200
_ROW: Final = 18
_MARGIN: Final = 10
_TOP: Final = 64
_LETTER: Final = 6.7  # px of the widest plain letters, about
_LEAST: Final = 0.2  # px of a box that is drawn
_STYLE: Final = (
    "text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#111;pointer-events:none}"
    ".t{font:bold 15px system-ui,sans-serif}.n{font:12px system-ui,sans-serif;fill:#555}"
    "rect{stroke:#fff;stroke-width:.5}g:hover>rect{stroke:#000;stroke-width:1}"
)


class Box:
    """A function in one place of the graph, with what it has called by the functions."""

    __slots__ = ("above", "function", "weight")

    def __init__(self, function: Function) -> None:
        self.function = function
        self.weight = 0
        self.above: dict[Function, Box] = {}

    def box(self, function: Function) -> Box:
        return self.above.get(function) or self.above.setdefault(function, Box(function))


def flame_graph(title: str, note: str, times: StackTimes) -> str:
    """The text of the file; ``note`` stands below the ``title``."""
    root = _tree(times)
    drawn = list(_boxes(root, root.weight)) if root.weight else []
    depth = 1 + max((level for _, level, _, _ in drawn), default=0)
    height = _TOP + depth * _ROW + _MARGIN
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text class="t" x="{_MARGIN}" y="26">{_text(title)}</text>',
        f'<text class="n" x="{_MARGIN}" y="46">{_text(note)}</text>',
    ]
    floor = height - _MARGIN
    lines += (_drawn(box, floor - (level + 1) * _ROW, x, width, root.weight) for box, level, x, width in drawn)
    return "\n".join([*lines, "</svg>", ""])


def _tree(times: StackTimes) -> Box:
    root = Box(Function("", "all"))
    for stack, weight in times.weights.items():
        box = root
        root.weight += weight
        for function in stack:
            box = box.box(function)
            box.weight += weight
    return root


def _boxes(root: Box, total: int) -> Iterator[tuple[Box, int, float, float]]:
    """Each box that is wide enough: itself, its level from 0, where it begins, and its width."""
    scale = (WIDTH - 2 * _MARGIN) / total
    waiting = [(root, 0, float(_MARGIN))]
    while waiting:
        box, level, x = waiting.pop()
        width = box.weight * scale
        if width < _LEAST:
            continue
        yield box, level, x, width
        for above in sorted(box.above.values(), key=lambda each: each.function):
            waiting.append((above, level + 1, x))
            x += above.weight * scale


def _drawn(box: Box, y: int, x: float, width: float, total: int) -> str:
    function = box.function
    told = f"{function.label}  {box.weight / 1e9:.3f} s, {100 * box.weight / total:.1f} %"
    title = f"{told}\n{function.place}" if function.place else told
    letters = int((width - 6) / _LETTER)
    label = function.label if len(function.label) <= letters else f"{function.label[: letters - 1]}…"
    text = f'<text x="{x + 3:.1f}" y="{y + 13}">{_text(label)}</text>' if letters >= 3 else ""
    shape = f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 1}" rx="1" fill="{_colour(function)}"/>'
    return f"<g><title>{_text(title)}</title>{shape}{text}</g>"


def _colour(function: Function) -> str:
    if function.ours:
        return "#cfcfcf"
    if not function.module:
        return "#b9d4ef"
    hue = zlib.crc32(function.module.partition(".")[0].encode()) % 360
    return f"hsl({hue},62%,{70 + zlib.crc32(function.module.encode()) % 12}%)"


def _text(text: str) -> str:
    """``text`` as XML has it: printable text has nothing else that it may not hold."""
    return escape(text)
