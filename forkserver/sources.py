"""Where settings come from: flags, variables, a TOML file, and the variables that platforms and gunicorn's users set.

It promises to find what was written, with the name of the place, and to refuse what nobody could have meant: an
unknown flag or key, with the nearest known one. It refuses to know which source wins, and what a value may be.
"""

from __future__ import annotations

import os
import shlex
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from forkserver import kinds
from forkserver.errors import ConfigError
from forkserver.kinds import Kind, nearest
from forkserver.peers import UNIX

PREFIX: Final = "FORKSERVER_"
GUNICORN: Final = "GUNICORN_CMD_ARGS"
ALLOW_IPS: Final = "FORWARDED_ALLOW_IPS"

# Flags that are no setting: what to do instead of serving.
ACTIONS: Final = {
    "--help": "help",
    "-h": "help",
    "--version": "version",
    "-v": "version",
    "--print-config": "print-config",
    "--check-config": "check-config",
    "--systemd-unit": "systemd-unit",
    "--systemd-socket": "systemd-socket",
}

# What gunicorn's users ask for and we answer in another way.
ELSEWHERE: Final = {
    "--daemon": "forkserver stays in the foreground; let systemd (--systemd-unit prints a unit) or a container run it",
    "-D": "forkserver stays in the foreground; let systemd or your container run it",
    "--forwarder-headers": "for SCRIPT_NAME from a proxy, name script_name in --forwarded-fields",
    "--name": "processes are titled by the application's name; leave it out",
    "-n": "processes are titled by the application's name; leave it out",
    "--reload": "forkserver does not watch files; send the master HUP (kill -HUP PID)",
    "--worker-tmp-dir": "workers write no heartbeat file; leave it out",
}


class Setting(NamedTuple):
    """One row of the settings table: flag, variable, file key, help line and reference all grow from it.

    ``bare`` is the value of a flag given without one; ``applies`` says what puts a change into effect, "reload" or
    "restart"; ``positional`` rows have no flag, and rows that are not ``in_file`` no key.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    section: str
    short: str | None = None
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    repeatable: bool = False
    applies: str = "reload"
    bare: str | None = None
    positional: bool = False
    in_file: bool = True

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


class Given(NamedTuple):
    """A value as it was written: ``label`` names the place in a complaint, ``source`` in --print-config."""

    raw: object
    label: str
    source: str


@dataclass
class CommandLine:
    """What a command line holds: words that are no flags, settings by name, and actions in their order."""

    words: list[str] = field(default_factory=list)
    given: dict[str, Given] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)


# Flags


def command_line(table: Iterable[Setting], argv: Sequence[str]) -> CommandLine:
    """Read ``argv`` (without the program's name). Raises ConfigError."""
    flags = {flag: setting for setting in table for flag in setting.flags}
    line = CommandLine()
    rest = deque(argv)
    while rest:
        word = rest.popleft()
        if word == "--":
            line.words.extend(rest)
            rest.clear()
        elif not word.startswith("-") or word == "-":
            line.words.append(word)
        else:
            flag, value = _split(word)
            if action := ACTIONS.get(flag):
                if value is not None:
                    raise ConfigError(f"{flag} takes no value, {value!r} was given; write {flag} alone")
                line.actions.append(action)
            else:
                _take(line, flags, flag, value, rest)
    return line


def _split(word: str) -> tuple[str, str | None]:
    """The flag and the value in ``--flag=value``, ``--flag``, ``-fvalue`` or ``-f``."""
    if not word.startswith("--"):
        return word[:2], word[2:] or None
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-"), value if equals else None


def _take(line: CommandLine, flags: Mapping[str, Setting], flag: str, value: str | None, rest: deque[str]) -> None:
    """Note one flag with its value, which may be the next word of ``rest``."""
    setting = flags.get(flag)
    if setting is None:
        raise _unknown_flag(flag, [*flags, *ACTIONS])
    if value is None:
        value = _next_value(setting, flag, rest)
    raw: object = value
    if setting.repeatable:
        before = line.given.get(setting.name)
        raw = [*(before.raw if before and isinstance(before.raw, list) else []), value]
    label = flag if flag.startswith("--") else f"{flag}/{setting.flag}"
    line.given[setting.name] = Given(raw, label, f"flag {setting.flag}")


def _next_value(setting: Setting, flag: str, rest: deque[str]) -> str:
    following = rest[0] if rest else None
    if setting.bare is not None and following not in setting.kind.choices:
        return setting.bare
    # A word that looks like a flag is one: "--access-log --workers 4" forgot the file.
    if following is None or (following.startswith("-") and following != "-" and not following[1:].isdigit()):
        raise ConfigError(f"{flag}: no value given; write {flag} {setting.metavar or 'VALUE'}")
    return rest.popleft()


def _unknown_flag(flag: str, known: list[str]) -> ConfigError:
    if flag in ELSEWHERE:
        return ConfigError(f"{flag}: no such flag; {ELSEWHERE[flag]}")
    near = nearest(flag, known) if flag.startswith("--") else None
    return ConfigError(f"{flag}: no such flag; {f'did you mean {near}?' if near else 'forkserver --help lists them'}")


# Variables


def variables(table: Iterable[Setting], environ: Mapping[str, str]) -> dict[str, Given]:
    """The FORKSERVER_* variables; an empty one counts as not set. Raises ConfigError for a misspelt one."""
    names = {setting.variable: setting.name for setting in table}
    given = {}
    for variable, value in environ.items():
        if variable in names:
            if value:
                given[names[variable]] = Given(value, variable, f"variable {variable}")
        elif variable.startswith(PREFIX):
            _refuse_misspelt(variable, list(names))
    return given


def _refuse_misspelt(variable: str, known: list[str]) -> None:
    # Only near misses: Kubernetes makes FORKSERVER_SERVICE_HOST and the like for a service called forkserver.
    near = nearest(variable.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known])
    if near:
        raise ConfigError(f"variable {variable}: no such setting; did you mean {PREFIX}{near}?")


def gunicorn(table: Iterable[Setting], environ: Mapping[str, str]) -> dict[str, Given]:
    """The flags in GUNICORN_CMD_ARGS. Raises ConfigError."""
    try:
        line = command_line(table, shlex.split(environ.get(GUNICORN, "")))
    except ValueError as error:
        raise ConfigError(f"{GUNICORN}: {str(error).lower()}; close every quote") from None
    except ConfigError as error:
        raise ConfigError(f"in {GUNICORN}: {error}") from None
    if stray := [*line.words, *line.actions]:
        raise ConfigError(f"in {GUNICORN}: {stray[0]!r} is no setting; give it on forkserver's own command line")
    return {
        name: Given(value.raw, f"{value.label} in {GUNICORN}", f"variable {GUNICORN}")
        for name, value in line.given.items()
    }


def platform(environ: Mapping[str, str]) -> dict[str, Given]:
    """PORT, WEB_CONCURRENCY and FORWARDED_ALLOW_IPS, which hosting platforms set in place of gunicorn's defaults.

    Raises ConfigError.
    """
    given = {}
    if port := environ.get("PORT"):
        if not port.isdecimal():
            raise ConfigError(f"PORT {port!r}: not a port number; set it to such as 8000, or unset it")
        given["bind"] = Given([f"0.0.0.0:{port}"], "PORT", "variable PORT")
    if workers := environ.get("WEB_CONCURRENCY"):
        given["workers"] = Given(workers, "WEB_CONCURRENCY", "variable WEB_CONCURRENCY")
    if (peers := environ.get(ALLOW_IPS)) is not None:
        given["forwarded_allow_ips"] = Given(_allowed_by_gunicorn(peers), ALLOW_IPS, f"variable {ALLOW_IPS}")
    return given


def _allowed_by_gunicorn(text: str) -> list[str]:
    """The peers that gunicorn believes where FORWARDED_ALLOW_IPS is ``text``: an empty text names no address, and
    clients of Unix sockets are always believed. Raises ConfigError.
    """
    try:
        named: list[str] = kinds.peers.parse(text)
    except kinds.RefusedError as refused:
        raise ConfigError(f"{ALLOW_IPS} {text!r}: {refused}; or unset {ALLOW_IPS}") from None
    return named if UNIX in named else [*named, UNIX]


# The file


def toml_file(table: Iterable[Setting], path: str) -> dict[str, Given]:
    """The settings in the TOML file ``path``. Raises ConfigError."""
    known = {setting.name: setting for setting in table if setting.in_file}
    given = {}
    for key, value in _read_toml(path).items():
        if key not in known:
            raise _unknown_key(path, key, value, list(known))
        given[key] = Given(value, f"{key} in {path}", f"file {path}")
    return given


def _read_toml(path: str) -> dict[str, Any]:
    if path.endswith(".py"):
        raise ConfigError(f"{path}: a Python file, and forkserver reads TOML; write the settings as key = value lines")
    import tomllib  # late: most starts read no file

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ConfigError(f"cannot read {path}: {reason}; mend that or name another file with --config") from None
    except ValueError as error:  # tomllib's own, or bytes that are not UTF-8
        raise ConfigError(f"{path}: not TOML: {error}; write settings as key = value lines") from None


def _unknown_key(path: str, key: str, value: object, known: list[str]) -> ConfigError:
    near = nearest(key.replace("-", "_"), known)
    if near:
        return ConfigError(f"{key} in {path}: no such setting; did you mean {near}?")
    if isinstance(value, dict):
        return ConfigError(f"[{key}] in {path}: no such table; settings stand at the top level, without a heading")
    return ConfigError(f"{key} in {path}: no such setting; forkserver --help lists them")
