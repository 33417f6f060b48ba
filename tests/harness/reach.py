"""The interpreter under test, made reachable for other users.

A Python below /root, or a checkout in a user's home, cannot be read by the user a server drops to. ``places`` names
what such a process needs; ``command`` shows it exactly that, in a mount namespace of its own.
"""

from __future__ import annotations

import shlex
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import forkserver
from harness import needs

MODULE = (sys.executable, "-m", "forkserver")


def places() -> list[Path]:
    """Folders that ``python -m forkserver`` reads, none of them below another."""
    needed = {Path(sys.prefix), Path(sys.base_prefix), Path(forkserver.__file__).parents[1]}
    return sorted(place for place in needed if not any(place.is_relative_to(other) for other in needed - {place}))


def barrier(place: Path) -> Path | None:
    """The first folder above ``place`` that others cannot enter."""
    for folder in reversed([place, *place.parents]):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are its user's alone, and /tmp is private to many a unit."""
    with tempfile.TemporaryDirectory(dir="/var/lib", prefix="forkserver-tests-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


def command(folder: Path) -> tuple[str, ...]:
    """The program's command line for a run that drops its privileges; ``folder`` is for mount points. Root only."""
    barriers = {found for place in places() if (found := barrier(place))}
    if not barriers:
        return MODULE
    needs.namespaces()
    script = ["set -e"]
    for number, place in enumerate(places()):
        stage = folder / f"stage-{number}"
        stage.mkdir(exist_ok=True)
        script.append(f"mount --bind {shlex.quote(str(place))} {shlex.quote(str(stage))}")
    script += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(found))}" for found in sorted(barriers)]
    for number, place in enumerate(places()):
        if any(place.is_relative_to(found) for found in barriers):
            script.append(f"mkdir -p {shlex.quote(str(place))}")
            script.append(f"mount --move {shlex.quote(str(folder / f'stage-{number}'))} {shlex.quote(str(place))}")
    script.append('exec "$@"')
    return ("unshare", "--mount", "sh", "-c", "\n".join(script), "sh", *MODULE)
