"""The folders that a generation's code is loaded from, and where their paths led when it was begun.

A deployment switches a link on these paths (``current``), and a reload then takes the new code. A template that dies in
between is replaced from the folders of before: a crash deploys nothing. The environment's packages are kept the same
way, for its path may lead through the same link.

Source: path_resolution(7); https://docs.python.org/3/reference/import.html on ``sys.path`` and ``__path__``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from forkserver.config import invocation
from forkserver.config.invocation import Environment
from forkserver.config.settings import Settings
from forkserver.linux.common.records import NamedTuple


class Release(NamedTuple):
    """Real paths: of the directory that relative names are meant from, of ``chdir``, and of each of ``pythonpath``."""

    directory: str
    chdir: str | None
    pythonpath: list[str]

    @classmethod
    def of(cls, directory: str, settings: Settings) -> Release:
        """Where ``directory``, and what ``settings`` name, lead now."""
        inside = os.path.join(directory, settings.chdir or "")
        chdir = None if settings.chdir is None else os.path.realpath(inside)
        pythonpath = [os.path.realpath(os.path.join(inside, each)) for each in settings.pythonpath]
        return cls(os.path.realpath(directory), chdir, pythonpath)

    def folders(self) -> Iterator[str]:
        """All of them."""
        yield self.directory
        if self.chdir is not None:
            yield self.chdir
        yield from self.pythonpath

    def pin(self, settings: Settings) -> Settings:
        """``settings`` with the folders of this release in place of paths that may lead elsewhere by now."""
        pinned = {**vars(settings), "chdir": self.chdir, "pythonpath": list(self.pythonpath)}
        return Settings(pinned, settings.sources, settings.config_path)

    def pin_certificates(self, settings: Settings) -> Settings:
        """``settings`` whose relative names of certificates, keys and authorities are meant from this release."""
        pinned = {**vars(settings)}
        for name in ("certfile", "keyfile"):
            pinned[name] = [os.path.join(self.directory, path) for path in pinned[name]]
        if settings.ca_certs is not None:
            pinned["ca_certs"] = os.path.join(self.directory, settings.ca_certs)
        return Settings(pinned, settings.sources, settings.config_path)


class Move(NamedTuple):
    """That the paths of a release lead elsewhere by now: one that shows it, from where and to where."""

    typed: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.typed} leads to {self.now} by now, not to {self.before}"


def moved(release: Release, directory: str, settings: Settings) -> Move | None:
    """The first path that leads to another place than ``release``; None where all are the same."""
    inside = os.path.join(directory, settings.chdir or "")
    typed = [directory, *([] if settings.chdir is None else [inside])]
    typed += [os.path.join(inside, each) for each in settings.pythonpath]
    for path, before, now in zip(typed, release.folders(), Release.of(directory, settings).folders(), strict=True):
        if before != now:
            return Move(path, before, now)
    return None


def gone(release: Release) -> str:
    """A folder of ``release`` that is there no more; empty where all are."""
    return next((folder for folder in release.folders() if not os.path.isdir(folder)), "")


def pin_packages(environment: Environment) -> None:
    """Have this process import from the environment that it was started in, wherever its path leads by now."""
    if not environment.moved():
        return
    sys.path[:] = [_pinned(path, environment) for path in sys.path]
    for module in list(sys.modules.values()):
        paths = getattr(module, "__path__", None)
        if isinstance(paths, list):
            paths[:] = [_pinned(path, environment) for path in paths]


def enter_search_path(started_in: str, pythonpath: str) -> None:
    """Have ``sys.path`` mean the current directory where it meant ``started_in``, that of the interpreter's start.

    The interpreter made relative entries of ``pythonpath``, the variable PYTHONPATH, absolute there, with no link left.
    ``started_in`` itself, which ``-m`` and ``-c`` put there, is taken out unless the variable names it.

    Source: https://docs.python.org/3/library/site.html (entries are made absolute).
    """
    here = os.getcwd()
    named = pythonpath.split(os.pathsep) if pythonpath else []  # an empty one among several is the directory
    meant = {invocation.absolute(each, started_in): invocation.absolute(each, here) for each in named}
    entries = ((path, os.path.normpath(path)) for path in sys.path)
    sys.path[:] = [meant.get(normal, path) for path, normal in entries if normal != started_in or normal in meant]


@contextmanager
def search_path_without(folder: str) -> Iterator[None]:
    """Import nothing from ``folder``, nor from the current directory by its empty name, for as long as this lasts."""
    before = sys.path[:]
    sys.path[:] = [path for path in before if path and os.path.normpath(path) != folder]
    try:
        yield
    finally:
        sys.path[:] = before


def _pinned(path: str, environment: Environment) -> str:
    below = environment.typed + os.sep
    return os.path.join(environment.real, path[len(below) :]) if path.startswith(below) else path
