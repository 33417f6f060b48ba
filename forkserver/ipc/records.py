"""Small facts that never change: orders and reports, the steps of a plan, the commands of the control socket.

It promises what a frozen dataclass has (fields in their order, defaults, equality by class and values, patterns), and
that a start does not wait for it: a dataclass writes the source of seven methods for each class and compiles it, which
takes 0.3 ms, fifty times before the first answer. It refuses whatever else dataclasses can; what changes stays one.

Source: PEP 681, by which type checkers know the fields.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, dataclass_transform


@dataclass_transform(frozen_default=True)
class Record:
    """Base of classes whose annotated names are fields; a name with a value has that for a default.

    The annotations have to be text (PEP 563).
    """

    fields: ClassVar[tuple[str, ...]] = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.fields = tuple(name for name, kind in cls.__annotations__.items() if not kind.startswith("ClassVar"))
        cls.__match_args__ = cls.fields  # type: ignore[misc]  # for patterns, PEP 622; mypy makes it final

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = self.fields
        given = dict(zip(fields, values, strict=False)) | named
        missing = [name for name in fields if name not in given and not hasattr(type(self), name)]
        if missing or len(given) < len(values) + len(named) or not given.keys() <= set(fields):
            takes = f"({', '.join(fields)})"
            raise TypeError(f"{type(self).__name__}{takes} cannot be made of {values} and {named}")
        self.__dict__.update(given)

    def __setattr__(self, name: str, _value: object) -> NoReturn:
        raise AttributeError(f"{name} of a {type(self).__name__} never changes; make another")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name} of a {type(self).__name__} never changes; make another")

    def values(self) -> tuple[Any, ...]:
        """What the fields hold, in their order."""
        return tuple(getattr(self, name) for name in self.fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and type(self) is type(other) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash((type(self), self.values()))

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in zip(self.fields, self.values(), strict=True))
        return f"{type(self).__name__}({', '.join(fields)})"
