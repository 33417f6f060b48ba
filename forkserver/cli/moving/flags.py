"""Reading a command line of another server, by its own rules, as far as its settings go."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from forkserver.cli.moving.rows import Found
from forkserver.errors import ConfigError
from forkserver.linux.common.records import NamedTuple


class Option(NamedTuple):
    """A flag: the setting that it means, how many words its value has, and the value that it stands for without any."""

    name: str
    words: int = 1
    bare: Any = True


def read(
    words: Sequence[str], options: Mapping[str, Option], *, shortened: bool = False
) -> tuple[list[Found], list[str]]:
    """The settings in ``words``, and the words that are none. A flag that is not in ``options`` keeps its name.

    ``shortened`` says that the beginning of a long flag is enough, as in argparse and optparse. Raises ConfigError.
    """
    found: list[Found] = []
    others: list[str] = []
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if word == "--":
            others += rest
            break
        if not word.startswith("-") or word == "-":
            others.append(word)
            continue
        flag, value = _split(word)
        option = options.get(flag) or (_begun(flag, options) if shortened and flag.startswith("--") else None)
        if option is None:
            # Whether the next word is its value cannot be known.
            found.append(Found(flag, True if value is None else value))
        else:
            found.append(Found(option.name, _value(flag, option, value, rest)))
    return found, others


def _split(word: str) -> tuple[str, str | None]:
    if not word.startswith("--"):
        return word[:2], word[2:].removeprefix("=") or None
    flag, equals, value = word.partition("=")
    return flag, value if equals else None


def _begun(flag: str, options: Mapping[str, Option]) -> Option | None:
    meant = {options[known].name: options[known] for known in options if known.startswith(flag)}
    return next(iter(meant.values())) if len(meant) == 1 else None


def _value(flag: str, option: Option, value: str | None, rest: deque[str]) -> Any:
    if option.words == 0:
        return option.bare if value is None else value
    taken = [] if value is None else [value]
    while len(taken) < option.words:
        if not rest:
            raise ConfigError(f"{flag} in the command line that --from names: no value; write it whole, in quotes")
        taken.append(rest.popleft())
    return taken[0] if option.words == 1 else taken
