"""A profile in a terminal: the functions that most of the time was spent in, by themselves and with what they call."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from forkserver.cli.profile.profile import Function, StackTimes

MOST_SHOWN: Final = 15
_LABEL: Final = 60  # characters of a function's


def summary(times: StackTimes, paths: bool, width: int) -> str:
    """The text, in ``width`` columns."""
    total = times.total
    if not total:
        return "no thread was at work: all waited for requests"
    own, whole = times.own(), times.whole()
    ours = sum(weight for function, weight in own.items() if function.ours)
    lines = []
    if paths:
        by_path = times.by_first()
        lines += ["by path:", *_rows(by_path, by_path, total, width), ""]
        whole = Counter({function: weight for function, weight in whole.items() if function.module})
    lines += ["by own time:", *_rows(own, whole, total, width), ""]
    application = Counter({function: weight for function, weight in whole.items() if not function.ours})
    lines += ["by time with what they call:", *_rows(application, own, total, width, own_first=False), ""]
    lines.append(f"the server itself: {_share(ours, total).strip()}")
    return "\n".join(lines)


def _rows(
    order: Counter[Function], other: Counter[Function], total: int, width: int, own_first: bool = True
) -> list[str]:
    """Rows of own share, whole share and function, in the order of ``order``."""
    rows = ["     OWN    TOTAL  FUNCTION"] if order is not other else ["   TOTAL  PATH"]
    for function, weight in order.most_common(MOST_SHOWN):
        shares = [weight] if order is other else [weight, other[function]] if own_first else [other[function], weight]
        left = " ".join(_share(each, total) for each in shares)
        label = function.label if len(function.label) <= _LABEL else f"…{function.label[1 - _LABEL :]}"
        place = f"  {function.place}" if function.place else ""
        row = f"{left}  {label}{place}"
        rows.append(row if len(row) <= width else f"{left}  {label}"[:width])
    return rows


def _share(weight: int, total: int) -> str:
    return f"{100 * weight / total:6.1f} %"


def as_json(times: StackTimes) -> dict[str, Any]:
    """What the summary shows, and the rest of the functions, for programs; times are seconds."""
    own, whole = times.own(), times.whole()
    functions = [
        {
            "module": function.module,
            "name": function.name,
            "file": function.file,
            "line": function.line,
            "own_seconds": round(own[function] / 1e9, 6),
            "total_seconds": round(weight / 1e9, 6),
        }
        for function, weight in whole.most_common()
    ]
    return {"samples": times.samples, "seconds_at_work": round(times.total / 1e9, 6), "functions": functions}
