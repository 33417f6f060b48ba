"""The JSON of https://www.speedscope.app: all workers together, and then each by itself.

Source: https://github.com/jlfwong/speedscope/blob/main/src/lib/file-format-spec.ts
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from forkserver.cli.profile.profile import Function, StackTimes
from forkserver.config.version import VERSION

_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"


def speedscope(name: str, parts: Sequence[tuple[str, StackTimes]]) -> str:
    """The text of a file called ``name``, which shows ``parts``, each under its name."""
    frames: dict[Function, int] = {}
    profiles = [_profile(title, times, frames) for title, times in parts]
    file = {
        "$schema": _SCHEMA,
        "name": name,
        "exporter": f"forkserver@{VERSION}",
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(function) for function in frames]},
        "profiles": profiles,
    }
    return json.dumps(file, separators=(",", ":")) + "\n"


def _profile(title: str, times: StackTimes, frames: dict[Function, int]) -> dict[str, Any]:
    ordered = sorted(times.weights.items())
    return {
        "type": "sampled",
        "name": title,
        "unit": "nanoseconds",
        "startValue": 0,
        "endValue": times.total,
        "samples": [[frames.setdefault(each, len(frames)) for each in stack] for stack, _ in ordered],
        "weights": [weight for _, weight in ordered],
    }


def _frame(function: Function) -> dict[str, Any]:
    where = {"file": function.file, "line": function.line} if function.file else {}
    return {"name": function.label, **where}
