"""Whether workers can share the import of the application: what it left behind that does not survive a fork, in words.

``Import()`` before it, ``with imported.watched():`` around it, then ``imported.findings()``. The facts are found by
process_snapshot.py (what exists in the process) and import_watch.py (what was called, and where), less the
exemptions of exemptions.py. An import that left anything at all is not shared with ``preload=auto``.

Source: fork(2): only the calling thread exists in the child, and descriptors share what they lead to.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from forkserver.linux.common.escaping import printable
from forkserver.worker.fork_safety import exemptions, process_snapshot
from forkserver.worker.fork_safety.finding import Finding
from forkserver.worker.fork_safety.import_watch import ImportWatch
from forkserver.worker.fork_safety.process_snapshot import ProcessSnapshot

_NAMED: Final = 8  # findings that a line of the log names
_CHARACTERS: Final = 300  # of one finding


class Import:
    """One import of the application, from before it to the judgement."""

    def __init__(self) -> None:
        self._before = ProcessSnapshot.take()
        self._watch = ImportWatch()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around the import. It may run in a child of the process that has made this object."""
        self._before = self._before._replace(random_state=random.getstate())  # a fork has changed it
        with self._watch.active():
            yield

    def findings(self) -> list[Finding]:
        """What the import left behind; empty where workers can share it."""
        found = process_snapshot.found(self._before, self._watch)
        found += self._temporary()
        found += self._exit_callbacks()
        found += self._identities()
        return list(dict.fromkeys(found))

    def give_up(self) -> None:
        """Remove the temporary directories and end the child processes of an import that no process will use.

        Exit callbacks of the application are not called: they are for processes that have served.
        """
        process_snapshot.remove_temporary(self._before)
        process_snapshot.end_children(self._before)

    def _temporary(self) -> Iterator[Finding]:
        """What tempfile has made and nothing has removed: the first worker that leaves would remove it for all."""
        for path, place in self._watch.temporary.items():
            if os.path.lexists(path):
                yield Finding(f"temporary {'directory' if os.path.isdir(path) else 'file'} {path}", place)

    def _exit_callbacks(self) -> Iterator[Finding]:
        for callback, call in self._watch.exits:
            name = process_snapshot.name_of(callback)
            if not exemptions.exempt(exemptions.EXIT_CALLBACKS, name):
                yield Finding(f"exit callback {name}", call.place)

    def _identities(self) -> Iterator[Finding]:
        for call in self._watch.calls:
            if not exemptions.exempt(exemptions.IDENTITIES, call.module):
                yield Finding(f"value of {call.name}(), the same in every worker", call.place)


def words(findings: Sequence[Finding]) -> str:
    """``findings`` in one line of bounded length."""
    return "; ".join(each(findings))


def each(findings: Sequence[Finding]) -> list[str]:
    """``findings`` one by one, a bounded number, each of bounded length and without control characters."""
    named = [printable(str(finding))[:_CHARACTERS] for finding in findings[:_NAMED]]
    more = [f"and {len(findings) - _NAMED} more"] if len(findings) > _NAMED else []
    return named + more


def kept(before: ProcessSnapshot) -> str:
    """What a request has left behind since ``before``, in words; empty where there is nothing.

    Random numbers that it drew do not count: the module random is seeded anew in each process that is forked.
    """
    return words(process_snapshot.found(before._replace(random_state=random.getstate()), ImportWatch()))
