"""The settings table as text: ``--help`` and the reference page, docs/settings.md.

Both are made from the rows of config/settings.py, so they say the same.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from forkserver.config import sources
from forkserver.config.declaration import Setting
from forkserver.config.settings import FILE, TABLE

USAGE: Final = "usage: forkserver [options] MODULE:APP"

_ACTIONS: Final = (
    ("--check-config", "Load the settings and the application, say whether they are good, and end."),
    ("--print-config", "Print the settings in force as TOML, with the source of each, and end."),
    ("--systemd-unit", "Print a hardened systemd service for this very command on this machine, and end."),
    ("--systemd-socket", "Print the socket unit that goes with it, for the addresses of --bind, and end."),
    ("--from FILE|COMMAND ...", "Print a forkserver.toml made from another server's configuration (docs/moving/)."),
    ("-v, --version", "Print the version and end."),
    ("-h, --help", "Print this text and end."),
)

_PREFACE: Final = f"""\
# Settings

This page is made from the settings table (`forkserver/config/settings.py`); `forkserver --help` says the same.

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
secrets. `--systemd-unit` and `--systemd-socket` print units for this very command ([systemd.md](systemd.md)).
"""


def usage() -> str:
    """The text of --help."""
    parts = [USAGE, "\nServe a WSGI application from pre-forked workers; docs/settings.md is the long form.\n"]
    for section, settings in _sections():
        parts.append(f"{section}:")
        parts += [_help_entry(_spelling(setting), _help_text(setting)) for setting in settings]
        parts.append("")
    parts.append("Instead of serving:")
    parts += [_help_entry(flags, text) for flags, text in _ACTIONS]
    return "\n".join(parts) + "\n"


def reference() -> str:
    """The text of docs/settings.md."""
    parts = [_PREFACE]
    for section, settings in _sections():
        parts.append(f"## {section}\n")
        parts += [_page_entry(setting) for setting in settings]
    return "\n".join(parts)


def _sections() -> Iterator[tuple[str, Iterator[Setting[Any]]]]:
    return itertools.groupby(TABLE, key=lambda setting: setting.section)


def _spelling(setting: Setting[Any]) -> str:
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
    return f"{setting.help} Default: {_plain_default(setting)}."


def _plain_default(setting: Setting[Any]) -> str:
    if isinstance(setting.default, list):
        return ",".join(setting.default)
    return setting.value_type.show(setting.default).strip('"')


def _page_entry(setting: Setting[Any]) -> str:
    facts = [f"- Flag: `{_spelling(setting)}`" if setting.flags else f"- Argument: `{setting.metavar}`"]
    facts.append(f"- Variable: `{setting.variable}`")
    if setting.in_file:
        facts.append(f"- Kind: {_kind(setting)}")
    facts.append("- Default: " + ("none" if setting.default in (None, []) else f"`{_plain_default(setting)}`"))
    facts.append(f"- Change: {setting.applies}")
    return f"### {setting.name}\n\n{setting.help}\n\n" + "\n".join(facts) + "\n"


def _kind(setting: Setting[Any]) -> str:
    words = " or ".join(f"`{word}`" for word in setting.value_type.choices)
    return words or setting.value_type.name
