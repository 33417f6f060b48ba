"""What becomes of the settings of another server: one row each.

A row names the setting of ours that has its place, or says why none is needed, or what to do instead. ``--from`` and
the pages in docs/moving/ are both made from the rows. A row whose value must be written otherwise has a function for
it, which takes what was found in the other server's configuration and returns what our setting reads.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from forkserver.config.settings import TABLE
from forkserver.linux.common.records import NamedTuple, Record, fresh

_OURS: Final = {setting.name: setting for setting in TABLE}


class Fate(enum.Enum):
    """What becomes of a setting; the value is the word for it on the pages."""

    TAKEN = "taken"  # the same name and meaning
    RENAMED = "renamed"
    NOT_NEEDED = "not needed"  # what it asks for happens anyway, or has no counterpart to be set
    NOT_HAD = "not had"


class LeftOutError(Exception):
    """A value that our setting cannot have, or need not; the text says why, and what to do instead."""


class Found(NamedTuple):
    """A setting in another server's configuration: ``value`` is text, or what a Python file holds.

    ``place`` says where it was written, where that is not the file or the command line that was named.
    """

    name: str
    value: Any
    place: str = ""


class Counterpart(NamedTuple):
    """One setting of another server.

    ``keys`` are the settings of ours that get its value, ``text`` says why or what instead, ``convert`` makes our value
    from the found one, and ``words`` is how many words of a command line its value takes.
    """

    name: str
    fate: Fate
    keys: tuple[str, ...] = ()
    text: str = ""
    convert: Callable[[Any], object] | None = None
    words: int = 1


class Default(NamedTuple):
    """A value that the other server has where none of its settings ``unless`` is written, for our setting ``key``.

    Only those are kept that requests would feel; ``why`` says so.
    """

    unless: tuple[str, ...]
    key: str
    value: Any
    why: str


class Server(NamedTuple):
    """Another server: its name, the version whose settings ``rows`` has, its page, and the defaults that are kept.

    ``compose`` makes of all that was found what several settings say together, such as the application's name.
    ``notes`` say what no setting shows. ``enters_first`` says that the server enters its directory before it opens what
    relative paths name; ours are meant from where forkserver was started.
    """

    name: str
    version: str
    page: str
    rows: Mapping[str, Counterpart]
    defaults: tuple[Default, ...] = ()
    notes: tuple[str, ...] = ()
    compose: Callable[[list[Found]], list[Found]] = list
    enters_first: bool = False


class Source(Record):
    """What was read of another server's configuration: its settings in their order, the application, and remarks."""

    server: Server
    origin: str  # what --from named
    found: list[Found] = fresh(default_factory=list)
    remarks: list[str] = fresh(default_factory=list)


def table(rows: Iterable[Counterpart]) -> dict[str, Counterpart]:
    """``rows`` by their names."""
    return {row.name: row for row in rows}


def to(
    name: str, *keys: str, text: str = "", convert: Callable[[Any], object] | None = None, words: int = 1
) -> Counterpart:
    """A row for what our settings ``keys`` say; without any, for what has the same name here."""
    meant = keys or (name.replace("-", "_"),)
    assert all(key in _OURS for key in meant), meant
    fate = Fate.TAKEN if meant == (name.replace("-", "_"),) else Fate.RENAMED
    return Counterpart(name, fate, meant, text, convert, words)


def needless(why: str, *names: str, words: int = 1) -> list[Counterpart]:
    """Rows for what is not needed here."""
    return [Counterpart(name, Fate.NOT_NEEDED, (), why, None, words) for name in names]


def missing(instead: str, *names: str, words: int = 1) -> list[Counterpart]:
    """Rows for what forkserver does not have."""
    return [Counterpart(name, Fate.NOT_HAD, (), instead, None, words) for name in names]
