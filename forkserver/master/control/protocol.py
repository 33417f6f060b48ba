"""The protocol of the control socket: from a line of JSON to a command.

A line is one JSON object: ``{"command": "scale", "workers": 4}``. Any bytes become either a command, whose values are
checked by the table of commands and fields, or a CommandError that says what was wrong and what would be right. The
commands are carried out in handlers.py.

Source: RFC 8259.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn, cast

from forkserver.ipc.profile_records import LONGEST_SECONDS, MOST_RATE
from forkserver.linux.common.records import NamedTuple

MOST_WORKERS: Final = 4096  # as the setting has it
_MOST_PID: Final = 2**22  # PID_MAX_LIMIT, proc(5)


class CommandError(Exception):
    """A question that cannot be meant, or not be obeyed now; its text is ``value: reason; way out``."""


class Target(NamedTuple):
    """One worker: by its slot's number as logs and titles show it, by its pid, or by either."""

    number: int
    by: str = ""  # "worker", "pid", or "" where the caller has not said

    def __str__(self) -> str:
        return f"{self.by or 'worker'}={self.number}"


class StatusCommand(NamedTuple):
    """State of the service and of each worker."""


class ConfigCommand(NamedTuple):
    """The settings in force, with their sources."""


class SlowCommand(NamedTuple):
    """The last requests that have passed ``slow_log``."""


class ReloadCommand(NamedTuple):
    """As HUP; with ``wait`` the answer comes when the new code serves, or is refused."""

    wait: bool = False


class ScaleCommand(NamedTuple):
    """So many workers."""

    workers: int


class RetireCommand(NamedTuple):
    """Replace a worker: the new worker is ready before it leaves."""

    worker: Target


class KillCommand(NamedTuple):
    """SIGKILL to a worker; it is replaced."""

    worker: Target


class StacksCommand(NamedTuple):
    """Where the threads of a worker are."""

    worker: Target


class ProfileCommand(NamedTuple):
    """Where the threads that serve spend their time: in one worker, or in all; its samples are written past us."""

    seconds: float = 10.0
    rate: int = 100
    paths: bool = False
    worker: Target | None = None


class DrainCommand(NamedTuple):
    """Serve on with ``Connection: close``, until a stop."""


class MaintenanceCommand(NamedTuple):
    """Answer 503 in place of the application, or let it answer again."""

    on: bool


class StopCommand(NamedTuple):
    """As TERM; ``now`` as INT."""

    now: bool = False


Command = (
    StatusCommand
    | ConfigCommand
    | SlowCommand
    | ReloadCommand
    | ScaleCommand
    | RetireCommand
    | KillCommand
    | StacksCommand
    | ProfileCommand
    | DrainCommand
    | MaintenanceCommand
    | StopCommand
)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise CommandError(f"{name} {_shown(value)}: neither true nor false; give one of them")
    return value


def _workers(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_WORKERS:
        raise CommandError(f"{name} {_shown(value)}: not a number of workers; give 1 to {MOST_WORKERS}")
    return value


def _target(name: str, value: object) -> Target:
    by, number = "", value
    if isinstance(value, str):
        by, equals, digits = value.rpartition("=")
        plain = digits.isascii() and digits.isdigit() and len(digits) < 10
        number = int(digits) if plain and by in ("", "worker", "pid") and bool(equals) == bool(by) else None
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _MOST_PID:
        raise CommandError(f"{name} {_shown(value)}: names no worker; give its number or pid, such as 3 or pid=4711")
    return Target(number, by)


def _profile_seconds(name: str, value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < float(cast("float", value)) <= LONGEST_SECONDS):
        raise CommandError(f"{name} {_shown(value)}: not a time to profile; give seconds, up to {LONGEST_SECONDS:g}")
    return float(cast("float", value))


def _rate(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_RATE:
        raise CommandError(f"{name} {_shown(value)}: not a rate; give samples in a second, 1 to {MOST_RATE}")
    return value


_Check = Callable[[str, object], Any]
# Each command with its fields; a field that its class has a default for may be left out.
_COMMANDS: Final[dict[str, tuple[type[Command], dict[str, _Check]]]] = {
    "status": (StatusCommand, {}),
    "config": (ConfigCommand, {}),
    "slow": (SlowCommand, {}),
    "reload": (ReloadCommand, {"wait": _flag}),
    "scale": (ScaleCommand, {"workers": _workers}),
    "retire": (RetireCommand, {"worker": _target}),
    "kill": (KillCommand, {"worker": _target}),
    "stacks": (StacksCommand, {"worker": _target}),
    "profile": (ProfileCommand, {"seconds": _profile_seconds, "rate": _rate, "paths": _flag, "worker": _target}),
    "drain": (DrainCommand, {}),
    "maintenance": (MaintenanceCommand, {"on": _flag}),
    "stop": (StopCommand, {"now": _flag}),
}
NAMES: Final = tuple(_COMMANDS)


def parse(line: bytes) -> Command:
    """The command in one line, without its end. Raises CommandError."""
    parsed = _object(line)
    name = parsed.pop("command", None)
    if not isinstance(name, str) or name not in _COMMANDS:
        raise CommandError(f"command {_shown(name)}: no such command; give one of {', '.join(NAMES)}")
    kind, fields = _COMMANDS[name]
    if unknown := sorted(set(parsed) - set(fields)):
        known = f"it takes {', '.join(fields)}" if fields else "it takes none"
        raise CommandError(f"{_shown(unknown[0])}: no field of {name}; {known}")
    values = {field: check(field, parsed[field]) for field, check in fields.items() if field in parsed}
    missing = [field for field in fields if field not in values and field not in kind._field_defaults]
    if missing:
        raise CommandError(f"{name}: {missing[0]} is missing; give it")
    return kind(**values)


def written(command: Command) -> str:
    """``command`` as the log shows it, such as ``scale workers=5``."""
    name = next(name for name, (kind, _) in _COMMANDS.items() if isinstance(command, kind))
    named = ((field, getattr(command, field)) for field in _COMMANDS[name][1])
    fields = {field: value for field, value in named if value is not None}
    shown = (str(value) if isinstance(value, Target) else f"{field}={value}" for field, value in fields.items())
    return " ".join((name, *shown))


def _object(line: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(line.decode(), parse_constant=_no_number)
    except RecursionError:
        raise CommandError("not JSON that can be read: nested too deeply; a command is one flat object") from None
    except ValueError as error:
        raise CommandError(f'not JSON: {error}; write such as {{"command": "status"}}') from None
    if not isinstance(parsed, dict):
        raise CommandError(f'{_shown(parsed)}: not an object; write such as {{"command": "status"}}')
    return parsed


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _shown(value: object) -> str:
    """``value`` as it was written, cut short."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
