"""The man pages of both programs and of forkserver.toml, made from the settings table and forkserverctl's own parser.

Source: man(7), man-pages(7) for the order of sections, groff_char(7) for what is escaped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from forkserver.cli import control, settings_help
from forkserver.config.declaration import Setting
from forkserver.config.settings import TABLE
from forkserver.config.version import DOCUMENTATION, VERSION

SIGNALS = (
    ("HUP", "reload settings, code and addresses; a stop where the terminal of the start has closed"),
    ("TERM", "answer what was accepted and queued, then stop; a second one stops now"),
    ("INT", "as TERM, without drain_delay; a second one stops now"),
    ("QUIT", "stop now"),
    ("TTIN, TTOU", "one worker more (max_workers at most), one fewer"),
    ("USR1", "open the log files again, after a rotation"),
    ("USR2", "upgrade in place: the same process becomes the forkserver and Python installed now"),
)
STATUSES = (
    ("0", "after a stop"),
    ("1", "the system refuses something, such as an address in use"),
    ("2", "a mistake in the settings"),
    ("3", "the application does not load at the first start"),
)
CONTROL_STATUSES = (
    ("0", "it was done"),
    ("1", "the service refuses, or its reload failed"),
    ("2", "a mistake in the command line"),
    ("3", "no server answers at the socket"),
    ("4", "no answer in time"),
)
SOURCES = (
    "A setting is taken from the first of these places that has it: a flag; a variable FORKSERVER_NAME; flags in "
    "GUNICORN_CMD_ARGS; the file that --config names, or forkserver.toml of the current directory (which root reads "
    "only where no other user may write it or its folder); PORT for bind, WEB_CONCURRENCY for workers and "
    "FORWARDED_ALLOW_IPS for forwarded_allow_ips; what dev sets; the default."
)
UNITS = (
    "Times are seconds, or text with a unit: 500ms, 30s, 2m, 1h. Sizes are bytes, or text with a unit: 64KiB, 10MiB, "
    "1GiB. Modes are octal digits, in quotes in the file. Relative paths start in the directory where forkserver was "
    "started."
)
WHAT_IT_IS = (
    "forkserver runs a Python web application, anything that speaks WSGI, in several worker processes. It reads HTTP "
    "and HTTPS itself, replaces workers that crash or hang, and loads new code while the old code serves: a reload "
    "loses no request."
)
WHAT_THE_FILE_IS = (
    "A TOML file with a line for each setting, key = value, and no tables. forkserver --print-config --all prints one "
    "with every setting, forkserver --check-config tries it, and forkserver --print-schema prints a JSON schema for "
    "editors."
)
WHAT_CONTROL_IS = (
    "forkserverctl asks the master of a running forkserver on its control socket, and shows the answer. Only root and "
    "the user that forkserver runs as may ask."
)
EXAMPLE = """\
app = "shop.wsgi:application"
bind = ["unix:/run/forkserver/shop.sock"]
workers = "auto"
timeout = "1m"
access_log = "/var/log/shop/access.log"
env = { DJANGO_SETTINGS_MODULE = "shop.settings" }
"""


def program() -> str:
    """forkserver(1)."""
    lines = [
        *_heading("forkserver", 1, "serve a WSGI application from pre-forked workers"),
        *_section("SYNOPSIS"),
        *_synopsis("forkserver", "[", "options", "]", "MODULE:APP"),
        *_section("DESCRIPTION", WHAT_IT_IS, SOURCES, UNITS),
    ]  # fmt: skip
    for section, settings in _sections():
        lines += [f'.SH "OPTIONS: {section.upper()}"']
        for setting in settings:
            lines += _entry(settings_help.spelling(setting), f"{setting.help}{_default(setting)}")
    lines += [".SH INSTEAD OF SERVING"]
    for flags, what in settings_help.ACTIONS:
        lines += _entry(flags, what)
    lines += [".SH SIGNALS", *_paragraph("To the master:"), *_entries(SIGNALS)]
    lines += [".SH EXIT STATUS", *_entries(STATUSES)]
    lines += _section("SEE ALSO", "forkserverctl(1), forkserver.toml(5)", DOCUMENTATION)
    return "\n".join(lines) + "\n"


def settings_file() -> str:
    """forkserver.toml(5)."""
    lines = [
        *_heading("forkserver.toml", 5, "settings of forkserver"),
        *_section("DESCRIPTION", WHAT_THE_FILE_IS, SOURCES, UNITS),
    ]  # fmt: skip
    for section, settings in _sections():
        lines += [f'.SH "{section.upper()}"']
        for setting in settings:
            if setting.in_file:
                words = " or ".join(setting.value_type.choices) or setting.value_type.name
                about = f"{setting.help}{_default(setting)} Kind: {words}. A change takes a {setting.applies}."
                lines += _entry(setting.name, about)
    lines += [".SH EXAMPLE", ".EX", *(_text(line) for line in EXAMPLE.splitlines()), ".EE"]
    lines += _section("SEE ALSO", "forkserver(1), forkserverctl(1)", DOCUMENTATION)
    return "\n".join(lines) + "\n"


def control_program() -> str:
    """forkserverctl(1)."""
    parser = control.command_parser()
    lines = [
        *_heading("forkserverctl", 1, "ask a running forkserver"),
        *_section("SYNOPSIS"),
        *_synopsis("forkserverctl", "[", "options", "]", "COMMAND"),
        *_section("DESCRIPTION", WHAT_CONTROL_IS),
        ".SH OPTIONS",
    ]  # fmt: skip
    for action in options(parser):
        lines += _entry(_flags(action), _sentence(action.help))
    lines += [".SH COMMANDS"]
    for name, command in commands(parser).items():
        words = [each.metavar for each in command._actions if not each.option_strings]
        own = [_flags(each) for each in options(command) if each.dest != "json"]
        lines += _entry(
            " ".join([name, *map(str, words), *(f"[{flag}]" for flag in own)]), _sentence(command.description)
        )
        for each in command._actions:
            if each.help and each.dest not in ("help", "json"):
                lines += [".RS", *_entry(_flags(each) or str(each.metavar), _sentence(each.help)), ".RE"]
    lines += [".SH EXIT STATUS", *_entries(CONTROL_STATUSES)]
    lines += _section("SEE ALSO", "forkserver(1), forkserver.toml(5)", DOCUMENTATION)
    return "\n".join(lines) + "\n"


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The flags of ``parser``, but for --help."""
    return [action for action in parser._actions if action.option_strings and action.dest != "help"]


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands that ``parser`` knows, each with a parser of its own."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _sections() -> Iterator[tuple[str, list[Setting[Any]]]]:
    for section in dict.fromkeys(setting.section for setting in TABLE):
        yield section, [setting for setting in TABLE if setting.section == section]


def _default(setting: Setting[Any]) -> str:
    return "" if setting.default in (None, []) else f" Default: {settings_help.plain_default(setting)}."


def _flags(action: argparse.Action) -> str:
    flags = ", ".join(action.option_strings)
    return f"{flags} {action.metavar}" if action.option_strings and action.metavar else flags


def _sentence(text: str | None) -> str:
    made = (text or "").strip()
    return f"{made[:1].upper()}{made[1:]}" + ("" if made.endswith(".") else ".")


def _text(text: str) -> str:
    """``text`` as roff shows it: hyphens that can be copied, and no line that is a request."""
    made = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti")
    )
    return f"\\&{made}" if made.startswith(".") else made


def _heading(name: str, number: int, what: str) -> list[str]:
    return [
        f'.TH "{name.upper()}" {number} "" "forkserver {VERSION}" "forkserver"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(what)}",
    ]


def _synopsis(name: str, *words: str) -> list[str]:
    return [f".B {name}", _text(" ".join(words).replace("[ ", "[").replace(" ]", "]"))]


def _section(name: str, *paragraphs: str) -> list[str]:
    lines = [f'.SH "{name}"']
    for number, paragraph in enumerate(paragraphs):
        lines += [*([".PP"] if number else []), _text(paragraph)]
    return lines


def _paragraph(text: str) -> list[str]:
    return [_text(text)]


def _entry(term: str, text: str) -> list[str]:
    return [".TP", f"\\fB{_text(term)}\\fR", _text(text)]


def _entries(pairs: tuple[tuple[str, str], ...]) -> list[str]:
    return [line for term, text in pairs for line in _entry(term, f"{text}.")]
