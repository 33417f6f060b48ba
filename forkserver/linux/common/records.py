"""Records: named tuples, and objects with the fields that their class is annotated with.

A program that starts makes each of its classes anew. ``typing.NamedTuple`` compiles the text of every annotation,
``dataclasses`` that of every method, with the module ``inspect`` before it: of a hundred classes, a third of the time
to the first answer. Here nothing is compiled but one function for each number of fields, and nothing is inspected.

A class of either kind looks the same to a type checker and to a reader; only the import differs.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable
from functools import cache
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast, dataclass_transform

if TYPE_CHECKING:
    from typing import NamedTuple

__all__ = ["NamedTuple", "Record", "field_names", "fresh"]

T = TypeVar("T")
_Example: Final[Any] = namedtuple("_Example", "field")
_Field: Final[Any] = type(_Example.field)  # the descriptor of a place in a tuple
_new: Final = tuple.__new__


# Named tuples


class _NamedTuple(tuple[Any, ...]):
    """What named tuples have in common: the methods of https://docs.python.org/3/library/collections.html."""

    # Without annotations, which would pass for fields.
    __slots__ = ()
    _fields = tuple[str, ...]()

    @classmethod
    def _make(cls, values: Iterable[Any]) -> Self:
        return cls(*values)

    def _replace(self, **named: Any) -> Self:
        return type(self)(**self._asdict() | named)

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self) -> str:
        return _shown(self, self._asdict())

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)


class _NamedTupleType(type):
    """Makes the class that a class statement with the base ``NamedTuple`` asks for."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        fields = tuple(namespace.get("__annotations__", ()))
        defaults = {field: namespace.pop(field) for field in fields if field in namespace}
        code = _new_of(len(fields)).replace(
            co_varnames=("_cls", *fields), co_name="__new__", co_qualname=f"{name}.__new__"
        )
        namespace |= {field: _Field(place, None) for place, field in enumerate(fields)}
        namespace |= {"_fields": fields, "__match_args__": fields, "_field_defaults": defaults, "__slots__": ()}
        namespace["__new__"] = FunctionType(code, globals(), "__new__", tuple(defaults.values()))
        return type(
            name, tuple(_NamedTuple if isinstance(base, _NamedTupleType) else base for base in bases), namespace
        )


@cache
def _new_of(count: int) -> CodeType:
    """The code of a function that makes a tuple of its ``count`` arguments, of the class that comes before them."""
    arguments = "".join(f"_{number}, " for number in range(count))
    function: Any = eval(f"lambda _cls, {arguments}: _new(_cls, ({arguments}))")
    code: CodeType = function.__code__
    return code


if not TYPE_CHECKING:
    NamedTuple = type.__new__(_NamedTupleType, "NamedTuple", (), {})


# Objects


class _Fresh:
    """A default that is made for each object."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def fresh(*, default_factory: Callable[[], T]) -> T:
    """The default of a field that is made for each object, by ``default_factory``."""
    made: Any = _Fresh(default_factory)
    return cast(T, made)


@dataclass_transform(eq_default=False, field_specifiers=(fresh,))
class Record:
    """An object whose fields are the annotations of its class, in their order, each with its default where it has one.

    Takes their values by place or by name. That the fields of a class that is ``frozen`` stay as they are is for the
    type checker to see. Records are equal only to themselves.
    """

    _fields = tuple[str, ...]()  # without an annotation, which would pass for a field

    def __init_subclass__(cls, *, frozen: bool = False) -> None:
        cls._fields = tuple(cls.__annotations__)

    def __init__(self, *values: Any, **named: Any) -> None:
        cls = type(self)
        if len(values) > len(cls._fields):
            raise TypeError(f"{cls.__name__} takes {len(cls._fields)} values, not {len(values)}")
        for field, value in zip(cls._fields, values, strict=False):
            setattr(self, field, value)
        for field in cls._fields[len(values) :]:
            setattr(self, field, named.pop(field) if field in named else _default(cls, field))
        if named:
            raise TypeError(f"{cls.__name__} takes no {next(iter(named))!r}, or not twice")
        self.__post_init__()

    def __post_init__(self) -> None:
        """Called when every field has its value."""

    def __repr__(self) -> str:
        return _shown(self, {field: getattr(self, field) for field in self._fields})


def field_names(kind: type) -> tuple[str, ...]:
    """The fields of a named tuple or of a record, in their order; none for anything else."""
    names: tuple[str, ...] = getattr(kind, "_fields", ())
    return names


def _default(cls: type[Record], field: str) -> Any:
    try:
        default = getattr(cls, field)
    except AttributeError:
        raise TypeError(f"{cls.__name__} needs a value for {field!r}") from None
    return default.make() if isinstance(default, _Fresh) else default


def _shown(record: object, fields: dict[str, Any]) -> str:
    return f"{type(record).__name__}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"
