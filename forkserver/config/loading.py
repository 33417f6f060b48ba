"""Loading the settings: each source read, the strongest taken, the values checked.

``load`` asks the sources (sources.py) in the order of their strength, has each setting check its value, and then checks
what only holds between settings (validation.py), or between a setting and this machine. All wrong values are told at
once. An upgrade hands the result on to the next program (``snapshot``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from forkserver.config import sources, validation
from forkserver.config.declaration import Parsed, Setting
from forkserver.config.settings import FILE, TABLE, Settings
from forkserver.errors import ConfigError, combined
from forkserver.linux.common.records import NamedTuple

_SHOWN: Final = 200  # characters of a value that is refused
# What the setting dev stands for, where nothing else is written. A call may stand in a debugger for a day.
_FOR_DEVELOPMENT: Final = {
    "workers": "1", "preload": "off", "timeout": "0", "boot_timeout": "24h", "graceful_timeout": "2s",
    "access_log": "-", "reload_on_change": "on", "error_page": "on", "debugger": "on", "free_port": "on",
}  # fmt: skip
DEVELOPMENT: Final = {name: Parsed(raw, f"{name} of --dev", "setting dev") for name, raw in _FOR_DEVELOPMENT.items()}


def action(argv: Sequence[str]) -> str | None:
    """What ``argv`` asks for instead of serving, one of sources.ACTIONS, or None. Raises ConfigError."""
    actions = sources.command_line(TABLE, argv).actions
    return next((name for name in sources.ACTIONS.values() if name in actions), None)


def asks_all(argv: Sequence[str]) -> bool:
    """Whether ``argv`` has --all, which goes with --print-config. Raises ConfigError."""
    return "all" in sources.command_line(TABLE, argv).actions


def subject(argv: Sequence[str]) -> list[str]:
    """The words behind --from in ``argv``, or the one behind --help. Raises ConfigError."""
    return sources.command_line(TABLE, argv).subject


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings that ``argv`` (without the program's name), ``environ`` and the file give. Raises ConfigError.

    A flag wins over a FORKSERVER_* variable, that over GUNICORN_CMD_ARGS, the file, the variables of platforms (PORT,
    WEB_CONCURRENCY, FORWARDED_ALLOW_IPS), what ``dev`` sets, and the default. The file is read anew each time.
    """
    line = sources.command_line(TABLE, argv)
    ranks = [_with_app(line), sources.variables(TABLE, environ), sources.gunicorn(TABLE, environ)]
    named = _named_config(ranks)
    if named is not None:
        ranks.append(sources.toml_file(TABLE, named))
    elif (found := sources.unnamed_file(TABLE, FILE)) is not None:
        named = FILE
        ranks.append(found)
    ranks.append(sources.platform(environ))
    strongest = {name: value for rank in reversed(ranks) for name, value in rank.items()}
    if _value(Settings.dev, strongest.get("dev")) == "on":
        strongest = DEVELOPMENT | strongest
    values = _values(strongest)
    written = {name: strongest[name].source if name in strongest else "default" for name in values}
    settings = Settings(values, written, named)
    _check(settings)
    return settings


def _value(setting: Setting[Any], parsed: Parsed | None) -> Any:
    return setting.fresh_default() if parsed is None else setting.value(parsed)


def _values(strongest: Mapping[str, Parsed]) -> dict[str, Any]:
    """The value of every setting. Raises ConfigError with every mistake."""
    values, mistakes = {}, []
    for setting in TABLE:
        try:
            values[setting.name] = _value(setting, strongest.get(setting.name))
        except ConfigError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigError(combined(mistakes))
    return values


def _with_app(line: sources.CommandLine) -> dict[str, Parsed]:
    if len(line.words) > 1:
        app, (stray, equals, _) = line.words[0], line.words[1].partition("=")
        stray += f"{equals}..." if equals else ""  # what stands behind it may be the secret of a variable
        raise ConfigError(f"{stray!r}: {app!r} is the application already; give one, and values behind their flags")
    if line.words:
        return line.settings | {"app": Parsed(line.words[0], "application", "argument")}
    return line.settings


def _named_config(ranks: Sequence[Mapping[str, Parsed]]) -> str | None:
    named = next((rank["config"] for rank in ranks if "config" in rank), None)
    return None if named is None else Settings.config.value(named)


# What only holds between settings, or between a setting and this machine


def conflicts(settings: Settings) -> Iterator[validation.Conflict]:
    """What is wrong between ``settings``, or on this machine, the worst first: a setting's name, and why."""
    yield from validation.found(settings)
    for name in ("chdir", "spool_dir"):
        path = getattr(settings, name)
        if path is not None and not os.path.isdir(path):
            yield name, "no such directory; make it or name another"
    if settings.user is not None and os.geteuid() not in (0, settings.service_uid):
        yield "user", "only root may become another user; start forkserver as root or leave it out"


def _check(settings: Settings) -> None:
    for name, why in conflicts(settings):
        shown = repr(getattr(settings, name))
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        raise ConfigError(f"{name} {shown} ({settings.sources[name]}): {why}")


# What an upgrade hands on


class SettingsSnapshot(NamedTuple):
    """Settings as numbers, texts and lists of them, for the next program to read."""

    values: dict[str, Any]
    sources: dict[str, str]
    config_path: str | None


def snapshot(settings: Settings) -> SettingsSnapshot:
    """What the next program is told of ``settings``."""
    values = {setting.name: getattr(settings, setting.name) for setting in TABLE}
    return SettingsSnapshot(values, settings.sources, settings.config_path)


def from_snapshot(snapshot: SettingsSnapshot) -> Settings:
    """The settings of another version: what that did not know is at its default, what we do not know is gone."""
    values = {setting.name: snapshot.values.get(setting.name, setting.fresh_default()) for setting in TABLE}
    return Settings(values, {name: snapshot.sources.get(name, "default") for name in values}, snapshot.config_path)
