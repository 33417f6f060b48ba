"""A codec between typed records and values that JSON can hold, for the state that one program passes to the next.

Records and named tuples become dictionaries by field, other dictionaries lists of pairs, sets sorted lists, an
enumeration its value. Reading makes the types that it is asked for, and no others, so it executes nothing. A value that
does not fit is refused with its place. A field that is missing has its default; an unknown one is refused.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar

from forkserver.errors import ForkserverError
from forkserver.linux.common.records import field_names

T = TypeVar("T")
_SCALARS = (bool, int, float, str, type(None))


class UnreadableError(ForkserverError):
    """Plain values that are not of the shape asked for."""


def dump(thing: Any) -> Any:
    """``thing`` as what JSON can hold. Raises TypeError for other types."""
    if isinstance(thing, Enum):
        return thing.value
    if isinstance(thing, _SCALARS):
        return thing
    if names := field_names(type(thing)):
        return {name: dump(getattr(thing, name)) for name in names}
    if isinstance(thing, Mapping):
        return [[dump(key), dump(value)] for key, value in thing.items()]
    if isinstance(thing, set | frozenset):
        return sorted(map(dump, thing))
    if isinstance(thing, list | tuple):
        return list(map(dump, thing))
    raise TypeError(f"{type(thing).__name__} is not plain")


def load(kind: type[T], plain: Any, where: str = "") -> T:
    """A ``kind`` from ``plain``; ``where`` names the place in an error. Raises UnreadableError."""
    made: T = _read(kind, plain, where or kind.__name__.lower())
    return made


_hints = functools.cache(typing.get_type_hints)  # it evaluates text, which takes longer than all the rest


def _read(kind: Any, plain: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return plain
    if origin in (typing.Union, types.UnionType):
        (one,) = (each for each in arguments if each is not type(None))  # "or None" is the only union there is
        return None if plain is None else _read(one, plain, where)
    if origin is not None:
        return _read_many(origin, arguments, plain, where)
    if issubclass(kind, Enum):
        return _read_choice(kind, plain, where)
    if field_names(kind):
        return _read_fields(kind, plain, where)
    if kind is float and type(plain) is int:
        return float(plain)
    if kind not in _SCALARS or type(plain) is not kind:
        raise UnreadableError(f"{where}: {plain!r:.60} is no {kind.__name__}")
    return plain


def _read_many(origin: Any, arguments: tuple[Any, ...], plain: Any, where: str) -> Any:
    if not isinstance(plain, list):
        raise UnreadableError(f"{where}: {plain!r:.60} is no list")
    if origin is dict:
        pairs = _each([types.GenericAlias(tuple, arguments)] * len(plain), plain, where)
        return dict(pairs)
    if origin is tuple and arguments[-1] is not Ellipsis:
        if len(plain) != len(arguments):
            raise UnreadableError(f"{where}: {len(plain)} values, not {len(arguments)}")
        return tuple(_each(arguments, plain, where))
    return origin(_each([arguments[0]] * len(plain), plain, where))


def _each(kinds: Iterable[Any], plain: list[Any], where: str) -> list[Any]:
    return [_read(kind, each, f"{where}[{at}]") for at, (kind, each) in enumerate(zip(kinds, plain, strict=True))]


def _read_choice(kind: type[Enum], plain: Any, where: str) -> Enum:
    try:
        return kind(plain)
    except ValueError:
        raise UnreadableError(f"{where}: {plain!r:.60} is no {kind.__name__}") from None


def _read_fields(kind: Any, plain: Any, where: str) -> Any:
    if not isinstance(plain, dict):
        raise UnreadableError(f"{where}: {plain!r:.60} is no {kind.__name__}")
    hints = _hints(kind)
    if strange := [name for name in plain if name not in hints]:
        raise UnreadableError(f"{where}: {strange[0]!r} is no field of {kind.__name__}")
    arguments = {name: _read(hints[name], each, f"{where}.{name}") for name, each in plain.items()}
    try:
        return kind(**arguments)
    except TypeError as error:  # a field without a default is missing
        raise UnreadableError(f"{where}: {error}") from None
