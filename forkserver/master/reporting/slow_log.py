"""Lines about slow requests that the master writes itself: of those that no worker has shown, or was asked to show.

A worker that hears logs its slow calls with their stacks (worker/serving.py).
"""

from __future__ import annotations

from forkserver.linux.common.counted import count_of
from forkserver.master.monitoring.slow_requests import SUMMARY_SECONDS, SlowRequest


def unseen(call: SlowRequest) -> str:
    """Why the stack of ``call`` is not in the log, in words."""
    worker = f"worker={call.worker} gen={call.generation} pid={call.pid}"
    age = f"{call.seconds:.1f} s{' so far' if call.running else ''}"
    facts = f"{age}, request {call.request_id}" if call.request_id else age
    told = f"slow request: {worker}: {call.request} ({facts})"
    if not call.running:
        return f"{told}: it was over before its stack could be written"
    why = "a signal has stopped it, or it is in C code that holds the interpreter (GIL)"
    if call.in_hook or call.request.startswith("hook "):
        why = "it hears no orders in this hook"
    return (
        f"{told}: where it stands cannot be seen: the worker does not answer; {why}; "
        f"py-spy dump --pid {call.pid} looks from outside"
    )


def left_out(count: int) -> str:
    """That calls were too many to be logged each."""
    return (
        f"slow_log: the stacks of {count_of(count, 'more slow call')} within {SUMMARY_SECONDS:g} s are left out, for "
        "there are too many; forkserverctl slow lists the last ones"
    )
