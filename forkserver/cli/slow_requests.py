"""What ``forkserverctl slow`` shows a person: the last slow requests, the newest first."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

from forkserver.linux.common.escaping import printable


def table(reply: Mapping[str, Any], width: int) -> str:
    """The answer to ``slow`` in ``width`` columns."""
    calls: Sequence[Mapping[str, Any]] = reply["slow"]
    if calls:
        return "\n".join(line for call in calls for line in _told(call, width))
    if reply["limit"]:
        return f"no call of the application has passed slow_log ({reply['limit']:g} s) yet"
    return "slow_log is off, so no slow requests are noted; set it, such as slow_log = 2, and reload"


def _told(call: Mapping[str, Any], width: int) -> list[str]:
    """A line, and what is known besides below it."""
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(call["time"]))
    age = f"{call['seconds']:.1f} s{' so far' if call['running'] else ''}"
    names = {"client": call["client"], "request": call["request_id"], "at": call["place"]}
    below = ", ".join(f"{name} {value}" for name, value in names.items() if value)
    lines = _wrapped(f"{began}  {age}  worker={call['worker']}  {call['request']}", width, "")
    return [*lines, *_wrapped(below, width, " " * 8)] if below else lines


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        printable(text), width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
    )
