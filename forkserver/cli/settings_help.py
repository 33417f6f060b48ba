"""The settings table as a person reads it: the help text, the reference page, and the settings in force as TOML.

It promises that all three say the same, because all grow from the table. It refuses to print: cli.py does.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator
from typing import Final

from forkserver.config import sources
from forkserver.config.settings import FILE, TABLE, Settings
from forkserver.config.sources import Setting
from forkserver.config.value_types import looks_secret, quoted

USAGE: Final = "usage: forkserver [options] MODULE:APP"

_ACTIONS: Final = (
    ("--check-config", "Load the settings and the application, say whether they are good, and end."),
    ("--print-config", "Print the settings in force as TOML, with the source of each, and end."),
    ("--systemd-unit", "Print a hardened systemd service for this very command on this machine, and end."),
    ("--systemd-socket", "Print the socket unit that goes with it, for the addresses of --bind, and end."),
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
6. the default.

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


def as_toml(settings: Settings) -> str:
    """``settings`` as a file that gives them again, each with its source in a comment.

    Variables whose values look secret are left out and named in the comment: a value in their place would be believed.
    """
    lines = []
    for setting in TABLE:
        value, source = getattr(settings, setting.name), settings.sources[setting.name]
        if not setting.in_file:
            continue
        if setting.kind.secret:
            value, source = _without_secrets(value, source)
        if value is None:
            lines.append(f"# {setting.name} is not set  # {source}")
        else:
            lines.append(f"{setting.name} = {setting.kind.show(value)}  # {source}")
    return "\n".join(lines) + "\n"


def _without_secrets(pairs: list[str], source: str) -> tuple[list[str], str]:
    hidden = [quoted(pair.partition("=")[0])[1:-1] for pair in pairs if looks_secret(pair)]
    if not hidden:
        return pairs, source
    shown = [pair for pair in pairs if not looks_secret(pair)]
    return shown, f"{source}; not shown, for they look secret: {', '.join(hidden)}"


def _sections() -> Iterator[tuple[str, Iterator[Setting]]]:
    return itertools.groupby(TABLE, key=lambda setting: setting.section)


def _spelling(setting: Setting) -> str:
    """How a setting is written on a command line, such as ``-b, --bind ADDRESS``."""
    if setting.positional:
        return setting.metavar
    metavar = f"[{setting.metavar}]" if setting.bare else setting.metavar
    return f"{', '.join(setting.flags)} {metavar}"


def _help_entry(flags: str, text: str) -> str:
    wrapped = textwrap.wrap(text, 88)
    return "\n".join([f"  {flags}", *(f"        {line}" for line in wrapped)])


def _help_text(setting: Setting) -> str:
    if setting.default in (None, []):
        return setting.help
    return f"{setting.help} Default: {_plain_default(setting)}."


def _plain_default(setting: Setting) -> str:
    if isinstance(setting.default, list):
        return ",".join(setting.default)
    return setting.kind.show(setting.default).strip('"')


def _page_entry(setting: Setting) -> str:
    facts = [f"- Flag: `{_spelling(setting)}`" if setting.flags else f"- Argument: `{setting.metavar}`"]
    facts.append(f"- Variable: `{setting.variable}`")
    if setting.in_file:
        facts.append(f"- Kind: {_kind(setting)}")
    facts.append("- Default: " + ("none" if setting.default in (None, []) else f"`{_plain_default(setting)}`"))
    facts.append(f"- Change: {setting.applies}")
    return f"### {setting.name}\n\n{setting.help}\n\n" + "\n".join(facts) + "\n"


def _kind(setting: Setting) -> str:
    words = " or ".join(f"`{word}`" for word in setting.kind.choices)
    return words or setting.kind.name
