"""Where settings come from: flags, variables, a TOML file, and the variables that platforms and gunicorn's users set.

It finds what was written, with the name of the place, and refuses an unknown flag or key: with what to do instead where
it is gunicorn's, with the known one where it is a misspelling. All mistakes of a command line are told at once. Which
source wins, and what a value may be, is decided elsewhere (loading.py, values/).
"""

from __future__ import annotations

import os
import shlex
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from forkserver.config import gunicorn_flags
from forkserver.config.declaration import PREFIX, Parsed, Setting
from forkserver.config.values import lists
from forkserver.config.values.ip_allowlist import UNIX
from forkserver.config.values.spelling import misspelt
from forkserver.config.values.value_type import RefusedError
from forkserver.errors import ConfigError, combined
from forkserver.linux.common.records import Record, fresh
from forkserver.linux.files import trusted_files, trusted_paths

GUNICORN: Final = "GUNICORN_CMD_ARGS"
ALLOW_IPS: Final = "FORWARDED_ALLOW_IPS"

FROM: Final = "--from"
# Flags that are no setting: what to do instead of serving.
ACTIONS: Final = {
    "--help": "help",
    "-h": "help",
    "--version": "version",
    "-v": "version",
    "--print-config": "print-config",
    "--print-schema": "print-schema",
    "--check-config": "check-config",
    "--systemd-unit": "systemd-unit",
    "--systemd-socket": "systemd-socket",
    FROM: "from",
    "--all": "all",  # with --print-config
}


class CommandLine(Record):
    """What a command line holds: words that are no flags, settings by name, actions in their order, and mistakes.

    ``subject`` is what stands behind --from, another server's file or its command line, or behind --help, a setting.
    """

    words: list[str] = fresh(default_factory=list)
    subject: list[str] = fresh(default_factory=list)
    settings: dict[str, Parsed] = fresh(default_factory=dict)
    actions: list[str] = fresh(default_factory=list)
    mistakes: list[str] = fresh(default_factory=list)


# Flags


def command_line(table: Iterable[Setting[Any]], argv: Sequence[str]) -> CommandLine:
    """Read ``argv`` (without the program's name). Raises ConfigError with every mistake in it."""
    line = _read(table, argv)
    if line.mistakes:
        raise ConfigError(combined(line.mistakes))
    return line


def _read(table: Iterable[Setting[Any]], argv: Sequence[str]) -> CommandLine:
    flags = {flag: setting for setting in table for flag in setting.flags}
    line = CommandLine()
    rest = deque(argv)
    while rest:
        word = rest.popleft()
        if word == "--":
            line.words.extend(rest)
            rest.clear()
        elif word.partition("=")[0] == FROM:  # all the rest is another server's
            line.actions.append(ACTIONS[FROM])
            line.subject.extend([*([word.partition("=")[2]] if "=" in word else []), *rest])
            rest.clear()
        elif not word.startswith("-") or word == "-":
            line.words.append(word)
        else:
            _read_flag(line, flags, word, rest)
    return line


def _read_flag(line: CommandLine, flags: Mapping[str, Setting[Any]], word: str, rest: deque[str]) -> None:
    """Note the flag ``word``; its value may be the next word of ``rest``."""
    flag, value = _split(word)
    if action := ACTIONS.get(flag):
        line.actions.append(action)
        if action == ACTIONS["--help"]:
            asked = value if value is not None else _asked(flags, rest)
            line.subject.extend([] if asked is None else [asked])
        elif value is not None:
            line.mistakes.append(f"{flag} takes no value, {value!r} was given; write {flag} alone")
    elif flag in flags:
        _take(line, flags[flag], flag, value, rest)
    else:
        line.mistakes.append(_unknown_flag(flag, [*flags, *ACTIONS]))
        refused = gunicorn_flags.FLAGS.get(flag)
        if value is None and refused and refused.takes_value and rest and not rest[0].startswith("-"):
            rest.popleft()


def _asked(flags: Mapping[str, Setting[Any]], rest: deque[str]) -> str | None:
    """What --help is to explain, the next word of ``rest``: anything but another flag of no setting."""
    return rest.popleft() if rest and (rest[0] in flags or not rest[0].startswith("-")) else None


def _split(word: str) -> tuple[str, str | None]:
    """The flag and the value in ``--flag=value``, ``--flag``, ``-fvalue`` or ``-f``."""
    if not word.startswith("--"):
        return word[:2], word[2:] or None
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-"), value if equals else None


def _take(line: CommandLine, setting: Setting[Any], flag: str, value: str | None, rest: deque[str]) -> None:
    """Note one flag with its value, which may be the next word of ``rest``."""
    if value is None:
        value = _next_value(setting, rest)
    if value is None:
        line.mistakes.append(f"{flag}: no value given; write {flag} {setting.metavar or 'VALUE'}")
        return
    raw: object = value
    if setting.repeatable:
        before = line.settings.get(setting.name)
        raw = [*(before.raw if before and isinstance(before.raw, list) else []), value]
    label = flag if flag.startswith("--") else f"{flag}/{setting.flag}"
    line.settings[setting.name] = Parsed(raw, label, f"flag {setting.flag}")


def _next_value(setting: Setting[Any], rest: deque[str]) -> str | None:
    following = rest[0] if rest else None
    if setting.bare is not None and following not in setting.value_type.choices:
        return setting.bare
    # A word that looks like a flag is one: "--access-log --workers 4" forgot the file.
    if following is None or (following.startswith("-") and following != "-" and not following[1:].isdigit()):
        return None
    return rest.popleft()


def _unknown_flag(flag: str, known: list[str]) -> str:
    way_out = gunicorn_flags.of_flag(flag)
    if way_out is None:
        near = misspelt(flag, known) if flag.startswith("--") else None
        longer = [other for other in known if flag[2:] and other.startswith(f"{flag}-")]
        meant = near or (longer[0] if len(longer) == 1 else None)
        way_out = f"did you mean {meant}?" if meant else "forkserver --help lists them"
    return f"{flag}: no such flag; {way_out}"


# Variables


def variables(table: Iterable[Setting[Any]], environ: Mapping[str, str]) -> dict[str, Parsed]:
    """The FORKSERVER_* variables; an empty one counts as not set. Raises ConfigError for a misspelt one."""
    names = {setting.variable: setting.name for setting in table}
    found = {}
    for variable, value in environ.items():
        if variable in names:
            if value:
                found[names[variable]] = Parsed(value, variable, f"variable {variable}")
        elif variable.startswith(PREFIX):
            _refuse_misspelt(variable, list(names))
    return found


def _refuse_misspelt(variable: str, known: list[str]) -> None:
    # Only near misses: Kubernetes makes FORKSERVER_SERVICE_HOST and the like for a service called forkserver.
    near = misspelt(variable.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known])
    if near:
        raise ConfigError(f"variable {variable}: no such setting; did you mean {PREFIX}{near}?")


def gunicorn(table: Iterable[Setting[Any]], environ: Mapping[str, str]) -> dict[str, Parsed]:
    """The flags in GUNICORN_CMD_ARGS. Raises ConfigError with every mistake in it."""
    try:
        line = _read(table, shlex.split(environ.get(GUNICORN, "")))
    except ValueError as error:
        raise ConfigError(f"{GUNICORN}: {str(error).lower()}; close every quote") from None
    mistakes = list(line.mistakes)
    strays = [*line.words, *line.actions]
    mistakes += (f"{stray!r} is no setting; give it on forkserver's own command line" for stray in strays)
    if mistakes:
        # We end here, so what is wrong with the values is told too.
        mistakes += _wrong_values(table, line)
        raise ConfigError(f"in {GUNICORN}: {combined(mistakes)}")
    return {
        name: Parsed(value.raw, f"{value.label} in {GUNICORN}", f"variable {GUNICORN}")
        for name, value in line.settings.items()
    }


def _wrong_values(table: Iterable[Setting[Any]], line: CommandLine) -> Iterator[str]:
    for setting in table:
        if setting.name in line.settings:
            try:
                setting.value(line.settings[setting.name])
            except ConfigError as error:
                yield str(error)


def platform(environ: Mapping[str, str]) -> dict[str, Parsed]:
    """PORT, WEB_CONCURRENCY and FORWARDED_ALLOW_IPS, which hosting platforms set in place of gunicorn's defaults.

    Raises ConfigError.
    """
    found = {}
    if port := environ.get("PORT"):
        if not port.isdecimal():
            raise ConfigError(f"PORT {port!r}: not a port number; set it to such as 8000, or unset it")
        found["bind"] = Parsed([f"0.0.0.0:{port}"], "PORT", "variable PORT")
    if workers := environ.get("WEB_CONCURRENCY"):
        found["workers"] = Parsed(workers, "WEB_CONCURRENCY", "variable WEB_CONCURRENCY")
    if (peers := environ.get(ALLOW_IPS)) is not None:
        found["forwarded_allow_ips"] = Parsed(_allowed_by_gunicorn(peers), ALLOW_IPS, f"variable {ALLOW_IPS}")
    return found


def _allowed_by_gunicorn(text: str) -> list[str]:
    """The peers that gunicorn believes where FORWARDED_ALLOW_IPS is ``text``: an empty text names no address, and
    clients of Unix sockets are always believed. Raises ConfigError.
    """
    try:
        named: list[str] = lists.peers.parse(text)
    except RefusedError as refused:
        raise ConfigError(f"{ALLOW_IPS} {text!r}: {refused}; or unset {ALLOW_IPS}") from None
    return named if UNIX in named else [*named, UNIX]


# The file


def toml_file(table: Iterable[Setting[Any]], path: str) -> dict[str, Parsed]:
    """The settings in the TOML file ``path``, which was named. Raises ConfigError."""
    if path.endswith(".py") or path.startswith("python:"):
        raise ConfigError(
            f"{path}: a Python file, and forkserver reads TOML; forkserver --from {path} prints a forkserver.toml with "
            "its settings"
        )
    return _in_file(table, path, _read_toml(path))


def unnamed_file(table: Iterable[Setting[Any]], path: str) -> dict[str, Parsed] | None:
    """The settings in the TOML file ``path``, which no setting names; None where there is none. Raises ConfigError.

    Root reads it only where no other user may write it, or put another in its place: it says which user the
    application runs as, and where logs are written.
    """
    if os.geteuid() != 0:
        return _in_file(table, path, _read_toml(path)) if os.path.exists(path) else None
    try:
        number = trusted_files.open_trusted(path)
    except trusted_paths.UntrustedPathError as error:
        whole = os.path.abspath(path)
        raise ConfigError(
            f"{path} of the current directory: not read by root, {error.reason}; name it with --config {whole}, or "
            "give it and its folder to root alone"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return None if number is None else _in_file(table, path, _read_toml(path, number))


def _in_file(table: Iterable[Setting[Any]], path: str, content: Mapping[str, Any]) -> dict[str, Parsed]:
    known = {setting.name: setting for setting in table if setting.in_file}
    found = {}
    for key, value in content.items():
        if key not in known:
            raise _unknown_key(path, key, value, list(known))
        found[key] = Parsed(value, f"{key} in {path}", f"file {path}")
    return found


def _read_toml(path: str, opened: int | None = None) -> dict[str, Any]:
    """The content of ``path``, or of the descriptor ``opened`` where it is open already. Raises ConfigError."""
    try:
        with open(trusted_files.open_regular(path) if opened is None else opened, "rb") as file:
            import tomllib  # late: most starts read no file

            return tomllib.load(file)
    except ImportError as error:  # the interpreter's own files were removed since the start
        raise ConfigError(f"cannot read {path}: {error}; install this Python again, and restart") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError as error:  # tomllib's own, or bytes that are not UTF-8
        raise ConfigError(f"{path}: not TOML: {error}; write settings as key = value lines, text in quotes") from None


def _unreadable(path: str, error: OSError) -> ConfigError:
    reason = (error.strerror or str(error)).lower()
    return ConfigError(f"cannot read {path}: {reason}; fix that or name another file with --config")


def _unknown_key(path: str, key: str, value: object, known: list[str]) -> ConfigError:
    if way_out := gunicorn_flags.of_key(key):
        return ConfigError(f"{key} in {path}: no such setting; {way_out}")
    near = misspelt(key.replace("-", "_"), known)
    if near:
        return ConfigError(f"{key} in {path}: no such setting; did you mean {near}?")
    if isinstance(value, dict):
        return ConfigError(f"[{key}] in {path}: no such table; settings stand at the top level, without a heading")
    return ConfigError(f"{key} in {path}: no such setting; forkserver --help lists them")
