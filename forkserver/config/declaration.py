"""The declaration of one setting, and a value for it as it was written.

A class declares its settings as attributes, ``workers = Setting[int](numbers.workers, 1, "...")``: the attribute's name
is the setting's, and the attribute of an instance has the value's type.
"""

from __future__ import annotations

from typing import Any, Final, Generic, Self, TypeVar, cast, overload

from forkserver.config.values.value_type import RefusedError, ValueType
from forkserver.errors import ConfigError
from forkserver.linux.common.records import NamedTuple

PREFIX: Final = "FORKSERVER_"
T = TypeVar("T")


class Setting(Generic[T]):
    """One row of the settings table: flag, variable, file key, help line and reference all come from it.

    ``metavar`` stands for the value in the help text. ``bare`` is the value of a flag given without one; ``applies``
    says what puts a change into effect, "reload" or "restart"; ``positional`` rows have no flag, and rows that are not
    ``in_file`` no key.
    """

    name: str  # of the attribute that it is

    def __init__(
        self,
        value_type: ValueType[T | None],
        default: T,
        help_line: str,
        section: str,
        *,
        metavar: str,
        short: str | None = None,
        aliases: tuple[str, ...] = (),
        repeatable: bool = False,
        applies: str = "reload",
        bare: str | None = None,
        positional: bool = False,
        in_file: bool = True,
    ) -> None:
        self.value_type, self.default = value_type, default
        self.help, self.section, self.metavar = help_line, section, metavar
        self.short, self.aliases, self.repeatable = short, aliases, repeatable
        self.applies, self.bare = applies, bare
        self.positional, self.in_file = positional, in_file

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object, owner: type) -> Self | T:
        if instance is None:
            return self
        # An instance's own attribute comes first: there is no value for this one.
        raise AttributeError(f"{owner.__name__} without a value for {self.name}")

    def fresh_default(self) -> T:
        """The default; a list is a copy."""
        return cast(T, self.default[:]) if isinstance(self.default, list) else self.default

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def flags(self) -> tuple[str, ...]:
        """Every spelling on a command line, the short one first."""
        if self.positional:
            return ()
        return (*([self.short] if self.short else []), self.flag, *self.aliases)

    def value(self, parsed: Parsed) -> T:
        """The checked value of what was written. Raises ConfigError."""
        try:
            value = self.value_type.parse(parsed.raw)
        except RefusedError as refused:
            written = "" if self.value_type.secret else f" {_shown(parsed.raw)}"
            raise ConfigError(f"{parsed.label}{written}: {refused}") from None
        if value is None and self.default is not None:
            kind, default = self.value_type.name, self.default
            raise ConfigError(f"{parsed.label} '': empty; give a {kind}, or leave it out for {default}")
        return cast(T, value)


def declared_in(owner: type) -> tuple[Setting[Any], ...]:
    """The settings that the class ``owner`` declares, in their order."""
    return tuple(each for each in vars(owner).values() if isinstance(each, Setting))


class Parsed(NamedTuple):
    """A value as it was written: ``label`` names the place in a complaint, ``source`` in --print-config."""

    raw: object
    label: str
    source: str


def _shown(raw: object) -> str:
    """``raw`` as it was written, for a complaint; a list of one is the one."""
    if isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]
    return repr(raw) if isinstance(raw, str) else str(raw).lower() if isinstance(raw, bool) else str(raw)
