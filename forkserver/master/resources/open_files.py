"""The master's own soft limit of open files: raised to what its children need, and kept from all that it starts.

Each child costs the master five descriptors: the socket of its channel, the memory of its reports (twice: a mapping
holds a descriptor of its own), their eventfd, and a pidfd. A reload may have twice the workers for a while. With the
usual soft limit, 1024, the kernel would refuse workers from two hundred on, or one hundred while they are replaced.
So the limit is raised, at the start and whenever more workers or listeners are wanted, to what they need and never
above the hard one. Fewer workers do not lower it again: what is open stays open. ``nofile = keep`` sets it back.

The application, its import and its hooks, and every program that is executed have the limit that the person set:
``soft_limit``, which the next program of an upgrade is told.

Source: setrlimit(2), RLIMIT_NOFILE; select(2), "FD_SETSIZE", is why a raised limit is not inherited.
"""

from __future__ import annotations

import resource
from typing import Final

from forkserver.config.settings import SURPLUS
from forkserver.linux import descriptor_limit
from forkserver.linux.descriptor_limit import NOFILE_KEEP

PER_CHILD: Final = 5  # orders, memory of the reports and its mapping, eventfd, pidfd
_TEMPLATES: Final = 4  # two generations, and what takes the place of a template
_RESERVE: Final = 128  # logs, scoreboards, clients of the control socket, a trial, what was inherited


def needed(workers: int, listeners: int) -> int:
    """Descriptors that the master may need with so many ``workers``, all of which a reload replaces."""
    return _RESERVE + 2 * listeners + PER_CHILD * (SURPLUS * workers + 1 + _TEMPLATES)


class OpenFiles:
    """The limit of this process; ``inherited`` is the soft limit that the program before found, where it raised it."""

    def __init__(self, inherited: int | None = None) -> None:
        self._ours = descriptor_limit.soft()  # as it stands; another value is one that a person has set since
        self._found = self._ours if inherited is None else inherited
        self._fitted = 0
        self._kept = False  # by nofile = keep

    @property
    def soft_limit(self) -> int:
        """The soft limit that a person has set for this process, which its children get."""
        now = descriptor_limit.soft()
        return self._found if now == self._ours else now

    def fit(self, nofile: int, workers: int, listeners: int) -> str:
        """Raise the limit for so many ``workers`` and ``listeners``, or set it back, as the setting ``nofile`` says.

        Returns what is wrong, with the way out, where it stays too low for more than were asked for before; else
        nothing.
        """
        wanted, keep = needed(workers, listeners), nofile == NOFILE_KEEP
        if keep != self._kept:
            self._kept, self._fitted = keep, 0
        if wanted <= self._fitted:
            return ""
        self._fitted = wanted
        self._found = self.soft_limit
        if keep:
            descriptor_limit.restore(self._found)
        else:
            descriptor_limit.raise_to(wanted)
        self._ours = descriptor_limit.soft()
        return "" if wanted <= self._ours else _too_low(nofile, workers, wanted)


def _too_low(nofile: int, workers: int, wanted: int) -> str:
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if nofile == NOFILE_KEEP:
        bound, raised = f"soft limit is {limit}, which nofile = keep leaves", "ulimit -n, or set nofile to auto"
    elif limit < hard:
        bound, raised = f"soft limit is {limit}, which a sandbox does not let it raise", "ulimit -n"
    else:
        bound, raised = f"hard limit is {hard}", "ulimit -Hn"
    return (
        f"workers {workers}: the master may need {wanted} open files for them while a reload replaces them, and the "
        f"{bound}, so the system may refuse some of them; raise LimitNOFILE= of the unit, or {raised}, or run fewer "
        "workers"
    )
