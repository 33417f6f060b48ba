"""The type of a setting's value: how it is read and how it is shown.

A value arrives as text, from a flag or a variable, or as what TOML holds. ``ValueType.parse`` returns the checked value
or raises ``RefusedError`` with the reason and the way out; the caller adds where the value was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from forkserver.linux.common.records import NamedTuple

T_co = TypeVar("T_co", covariant=True)


class RefusedError(Exception):
    """A value that cannot be meant; its text is ``reason; way out``."""


class ValueType(NamedTuple, Generic[T_co]):
    """How values of one type are read and shown.

    ``parse`` takes text, or what TOML holds, and returns the value or raises RefusedError; ``show`` gives the TOML
    literal that ``parse`` reads back. ``choices`` lists the words a choice allows. No error message shows what
    was written for a ``secret`` one.
    """

    name: str
    parse: Callable[[object], T_co]
    show: Callable[[Any], str]
    choices: tuple[str, ...] = ()
    secret: bool = False


def quoted(text: str) -> str:
    """``text`` as a TOML basic string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def plain_text(raw: object) -> str:
    if not isinstance(raw, str):
        raise RefusedError("not text; put it in quotes")
    if "\0" in raw:
        raise RefusedError("holds a NUL byte; leave it out")
    return raw.strip()


def optional_text(raw: object) -> str | None:
    return plain_text(raw) or None


def show_texts(values: list[str]) -> str:
    return "[" + ", ".join(quoted(value) for value in values) + "]"
