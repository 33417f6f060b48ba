"""Whether a program at rest has more of anything than it had at rest before: memory, descriptors, processes, threads.

It promises figures of the kernel's. It refuses to bring the program to rest.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import psutil

MIB: Final = 1024 * 1024
MEMORY_BYTES: Final = 4 * MIB  # that a master may grow by: what malloc keeps is not the same twice

LOOKS: Final = 5
GAP_SECONDS: Final = 0.1


class Size(NamedTuple):
    """``descriptors`` and ``threads`` of the master; all of its family's in the fields of that name."""

    memory: int
    descriptors: int
    threads: int
    processes: int
    family_descriptors: int
    family_threads: int

    def __str__(self) -> str:
        return (
            f"master {self.memory / MIB:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads; "
            f"family {self.processes} processes, {self.family_descriptors} descriptors, {self.family_threads} threads"
        )


def measure(master: int) -> Size:
    """The least of several looks: a channel that is about to be closed is no growth. Raises psutil.NoSuchProcess."""
    looks = [_look(master)]
    while len(looks) < LOOKS:
        time.sleep(GAP_SECONDS)
        looks.append(_look(master))
    return Size(*map(min, zip(*looks, strict=True)))


def _look(master: int) -> Size:
    process = psutil.Process(master)
    family = process.children(recursive=True)
    return Size(
        process.memory_info().rss,
        process.num_fds(),
        process.num_threads(),
        len(family),
        sum(member.num_fds() for member in family),
        sum(member.num_threads() for member in family),
    )


def grown(first: Size, last: Size) -> list[str]:
    """What there is more of in ``last``, in words."""
    found = [
        f"{name.replace('_', ' ')}: {before} at first, {after} at last"
        for name, before, after in zip(Size._fields[1:], first[1:], last[1:], strict=True)
        if after > before
    ]
    if last.memory > first.memory + MEMORY_BYTES:
        found.append(
            f"memory of the master: {first.memory / MIB:.1f} MiB at first, {last.memory / MIB:.1f} MiB at last"
        )
    return found
