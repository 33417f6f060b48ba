"""The settings table as text: ``--help``, ``--help all``, ``--help SETTING``, and the reference page, docs/settings.md.

All are made from the rows of config/settings.py, so they say the same.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

from forkserver.config import gunicorn_flags, sources
from forkserver.config.declaration import PREFIX, Setting
from forkserver.config.settings import FILE, TABLE
from forkserver.config.values.spelling import alike
from forkserver.config.version import DOCUMENTATION
from forkserver.errors import ConfigError

USAGE: Final = "usage: forkserver [options] MODULE:APP"

ACTIONS: Final = (
    ("--check-config", "Load the settings and the application, say whether they are good, and end."),
    ("--print-config [--all]", "Print the settings in force as TOML, with their sources; --all explains each."),
    ("--print-schema", "Print a JSON schema of forkserver.toml, for editors."),
    ("--from FILE|COMMAND ...", "Print a forkserver.toml made from another server's configuration (docs/moving/)."),
    ("--systemd-unit", "Print a hardened systemd service for this very command on this machine."),
    ("--systemd-socket", "Print the socket unit that goes with it, for the addresses of --bind."),
    ("-v, --version", "Print the version."),
    ("-h, --help [SETTING|all]", "Print this text, all about one setting, or about each."),
)
_COMMON: Final = (
    "app", "config", "chdir", "env", "preload", "bind", "workers", "threads", "timeout", "keep_alive",
    "max_requests", "max_body", "certfile", "forwarded_allow_ips", "user", "access_log", "log_level",
    "admin_bind", "dev",
)  # fmt: skip
_COLUMN: Final = 30
_WIDTH: Final = 100
_ELSEWHERE: Final = f"Documentation: {DOCUMENTATION}, and man forkserver."

_PREFACE: Final = f"""\
# Settings

This page is made from the settings table (`forkserver/config/settings.py`); `forkserver --help all` says the same, and
`forkserver --help workers` what it says of one setting.

A setting is taken from the first of these places that has it:

1. a flag on the command line, such as `--workers 4`;
2. a variable, such as `FORKSERVER_WORKERS=4` (an empty one counts as not set; several addresses or directories are
   divided by commas, several `KEY=VALUE` by spaces, quoted as in a shell);
3. the flags in the variable `{sources.GUNICORN}`;
4. the file that `--config` names, or `{FILE}` of the current directory: top-level keys, such as `workers = 4`;
5. for `bind`, the variable `PORT` (every interface, that port); for `workers`, the variable `WEB_CONCURRENCY`; for
   `forwarded_allow_ips`, the variable `{sources.ALLOW_IPS}`, with gunicorn's meaning: `unix` is believed besides,
   and an empty value names no address;
6. where `dev` is on, what it sets ([development.md](development.md));
7. the default.

Times are seconds, or text with a unit: `500ms`, `30s`, `2m`, `1h`. Sizes are bytes, or text with a unit: `64KiB`,
`10MiB`, `1GiB` (`K`, `M` and `G` mean the same). Modes are octal digits, in quotes in the file. Relative paths start in
the directory where forkserver was started. "Change" says what puts a changed value of the file into effect: a reload
(`HUP`) or a restart.

`--check-config` loads the settings, and the application in a process of its own, and says whether both are good.
`--print-config` prints the settings in force and where each was written, but for variables in `env` that look like
secrets. `--print-config --all` prints a file with every setting and what it is for, to begin with. `--print-schema`
prints a JSON schema, by which editors check the file and complete it; the wheel installs it as
`share/forkserver/forkserver.schema.json`, and a line `#:schema PATH` at the top of the file names it to them (Taplo,
Even Better TOML). `--systemd-unit` and `--systemd-socket` print units for this very command ([systemd.md](systemd.md)).
"""


def text(asked: Sequence[str] = ()) -> str:
    """The text of --help: in short, ``all``, or of the setting that ``asked`` names. Raises ConfigError."""
    if not asked:
        return short()
    return usage() if asked[0] == "all" else of_setting(asked[0])


def short() -> str:
    """The settings that most services have, the names of the others, and what there is instead of serving."""
    rows = {setting.name: setting for setting in TABLE}
    parts = [USAGE, "\nServe a WSGI application from pre-forked workers. Common settings:\n"]
    parts += [_short_entry(_short_spelling(rows[name]), rows[name].help) for name in _COMMON]
    parts.append("\nAll settings, each also a key of forkserver.toml; forkserver --help NAME explains one:\n")
    for section, settings in _sections():
        names = ", ".join(setting.name for setting in settings)
        parts += textwrap.wrap(f"{section}: {names}", _WIDTH, initial_indent="  ", subsequent_indent="      ")
    parts.append("\nInstead of serving:\n")
    parts += [_short_entry(flags, what) for flags, what in ACTIONS]
    return "\n".join([*parts, "", _ELSEWHERE]) + "\n"


def _short_entry(flags: str, what: str) -> str:
    room = _WIDTH - _COLUMN - 2
    line = what if len(what) <= room else textwrap.shorten(what, room, placeholder=" ...")
    return f"  {flags:<{_COLUMN}}{line}"


def _short_spelling(setting: Setting[Any]) -> str:
    """As ``spelling``, without the other names of a flag."""
    return spelling(setting).replace("".join(f", {alias}" for alias in setting.aliases), "")


def of_setting(asked: str) -> str:
    """All about one setting, named as in the file, by a flag or by its variable. Raises ConfigError."""
    name = asked.lstrip("-").replace("-", "_").lower().removeprefix(PREFIX.lower())
    found = next((row for row in TABLE if asked in row.flags or name == row.name), None)
    if found is None:
        instead = gunicorn_flags.of_flag(asked) or gunicorn_flags.of_key(name)
        near = ", ".join(alike(name, [row.name for row in TABLE]))
        way_out = instead or (f"did you mean {near}?" if near else "forkserver --help names them")
        raise ConfigError(f"--help {asked}: no such setting; {way_out}")
    default = "none" if found.default in (None, []) else plain_default(found)
    facts = [("Flag", spelling(found)), ("Variable", found.variable)]
    if found.in_file:
        facts += [("In forkserver.toml", _example(found)), ("Kind", _kind(found).replace("`", ""))]
    facts += [("Default", default), ("A change takes", f"a {found.applies}")]
    lines = [f"  {label + ':':<20}{value}" for label, value in facts]
    return "\n".join([found.name, "", *textwrap.wrap(found.help, _WIDTH), "", *lines, "", _ELSEWHERE]) + "\n"


def _example(setting: Setting[Any]) -> str:
    shown = setting.value_type.show(setting.default) if setting.default not in (None, []) else f'"{setting.metavar}"'
    return f"{setting.name} = {shown}"


def usage() -> str:
    """The text of --help all."""
    parts = [USAGE, "\nServe a WSGI application from pre-forked workers; docs/settings.md is the long form.\n"]
    for section, settings in _sections():
        parts.append(f"{section}:")
        parts += [_help_entry(spelling(setting), _help_text(setting)) for setting in settings]
        parts.append("")
    parts.append("Instead of serving:")
    parts += [_help_entry(flags, what) for flags, what in ACTIONS]
    return "\n".join([*parts, "", _ELSEWHERE]) + "\n"


def reference() -> str:
    """The text of docs/settings.md."""
    parts = [_PREFACE]
    for section, settings in _sections():
        parts.append(f"## {section}\n")
        parts += [_page_entry(setting) for setting in settings]
    return "\n".join(parts)


def _sections() -> Iterator[tuple[str, Iterator[Setting[Any]]]]:
    return itertools.groupby(TABLE, key=lambda setting: setting.section)


def spelling(setting: Setting[Any]) -> str:
    """How a setting is written on a command line, such as ``-b, --bind ADDRESS``."""
    if setting.positional:
        return setting.metavar
    metavar = f"[{setting.metavar}]" if setting.bare else setting.metavar
    return f"{', '.join(setting.flags)} {metavar}"


def _help_entry(flags: str, text: str) -> str:
    wrapped = textwrap.wrap(text, 88)
    return "\n".join([f"  {flags}", *(f"        {line}" for line in wrapped)])


def _help_text(setting: Setting[Any]) -> str:
    if setting.default in (None, []):
        return setting.help
    return f"{setting.help} Default: {plain_default(setting)}."


def plain_default(setting: Setting[Any]) -> str:
    if isinstance(setting.default, list):
        return ",".join(setting.default)
    return setting.value_type.show(setting.default).strip('"')


def _page_entry(setting: Setting[Any]) -> str:
    facts = [f"- Flag: `{spelling(setting)}`" if setting.flags else f"- Argument: `{setting.metavar}`"]
    facts.append(f"- Variable: `{setting.variable}`")
    if setting.in_file:
        facts.append(f"- Kind: {_kind(setting)}")
    facts.append("- Default: " + ("none" if setting.default in (None, []) else f"`{plain_default(setting)}`"))
    facts.append(f"- Change: {setting.applies}")
    return f"### {setting.name}\n\n{setting.help}\n\n" + "\n".join(facts) + "\n"


def _kind(setting: Setting[Any]) -> str:
    words = " or ".join(f"`{word}`" for word in setting.value_type.choices)
    return words or setting.value_type.name
