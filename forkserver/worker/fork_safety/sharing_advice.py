"""What sharing the import of the application saves each worker, measured, and what speaks against it, in sentences.

An import in each worker costs its seconds and the memory that it writes. A worker that is forked after the import
writes only a part of that memory again. Both are measured in this process and in a child of it: private, written
pages, see proc_pid_smaps(5).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from typing import Final

from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple

UNSEEN: Final = "what an import leaves behind cannot be seen"  # the end of why an import is not shared
WAY_OUT: Final = (
    "make these in the hook post_fork (--hooks) or when they are first used, and the workers share the import; "
    "--preload on shares it in any case"
)
_MIB: Final = 1024 * 1024
_WORTH_TELLING: Final = _MIB  # bytes; less is within what each process differs by
_REPORT_BYTES: Final = 100


class Cost(NamedTuple):
    """Of one import: seconds, and bytes of memory; None where the kernel does not tell."""

    seconds: float
    memory: int | None


def written_memory() -> int | None:
    """Bytes of memory that this process alone has written, or None where the kernel does not tell."""
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_Dirty:"))
    except (OSError, StopIteration):
        return None


def written_by_a_fork() -> int | None:
    """Bytes that a process forked now writes at once, a collection included. No thread may run."""
    gc.freeze()
    reading, writing = os.pipe()
    try:
        pid = syscalls.fork()
    except OSError:  # no process to measure in
        os.close(reading)
        os.close(writing)
        return None
    if pid == 0:
        try:
            gc.collect()
            os.write(writing, str(written_memory() or "").encode())
        finally:
            os._exit(0)
    gc.unfreeze()
    os.close(writing)
    said = os.read(reading, _REPORT_BYTES)
    os.close(reading)
    os.waitpid(pid, 0)
    return int(said) if said else None


def advice(preload: str, findings: Sequence[str], cost: Cost) -> str:
    """Whether workers share the import with ``preload``, why, and what that saves or costs, in a few lines."""
    left = "".join(f"\n  {finding}" for finding in findings)
    if not findings:
        saved = f"each saves about {_amount(cost)}"
        if preload == "off":
            return f"workers do not share the import (preload=off), but could: with --preload auto {saved}"
        return f"workers share the import (preload={preload}): {saved}"
    if preload == "on":
        return f"workers share the import (preload=on) although it left what processes cannot share:{left}\n{WAY_OUT}"
    return (
        f"workers do not share the import (preload={preload}), so each takes about {_amount(cost)} for itself; "
        f"it left what processes cannot share:{left}\n{WAY_OUT}"
    )


def _amount(cost: Cost) -> str:
    seconds = f"{cost.seconds:.2f} s of import"
    if cost.memory is None or cost.memory < _WORTH_TELLING:
        return seconds
    return f"{cost.memory / _MIB:.0f} MiB of memory and {seconds}"
