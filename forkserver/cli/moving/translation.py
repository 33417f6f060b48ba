"""A forkserver.toml from what was read of another server's configuration, with a comment line for each setting.

Each value is checked as a setting is checked when forkserver starts, alone and beside the others. What cannot be taken
stands in a comment, with the reason: the file can be loaded as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

from forkserver.cli.moving import converters
from forkserver.cli.moving.rows import Counterpart, Fate, Found, LeftOutError, Source
from forkserver.config import loading
from forkserver.config.declaration import Setting
from forkserver.config.settings import TABLE, Settings
from forkserver.config.values.lists import looks_secret
from forkserver.config.values.value_type import RefusedError
from forkserver.linux.common.escaping import printable
from forkserver.linux.common.records import NamedTuple, Record

_OURS: Final = {setting.name: setting for setting in TABLE}
_MOST_SHOWN: Final = 70  # characters of a value in a comment
_NOTHING: Final[tuple[object, ...]] = (None, False, "", [], {})
_PATHS: Final = ("pidfile", "spool_dir", "access_log", "error_log", "log_config", "certfile", "keyfile", "ca_certs")


class _Line(Record):
    """A setting of ours with its value, or the reason for which it is left out."""

    key: str
    raw: object
    value: Any
    left_out: str = ""


class _Entry(NamedTuple):
    """One setting of the other server: what was said there, what becomes of it, and the lines that it makes."""

    said: str
    fate: str
    lines: list[_Line]


def as_toml(source: Source) -> str:
    """The text of the file. Raises ConfigError."""
    server = source.server
    found = server.compose(source.found)
    entries = [_entry(source, each) for each in found]
    named = {each.name for each in found}
    for default in server.defaults:
        if not named.intersection(default.unless) and default.key not in _taken(entries):
            entries.append(_Entry("by default", default.why, [_line(default.key, default.value)]))
    _overrule(entries)
    if server.enters_first:
        _enter_directory(entries)
    _leave_out_conflicts(entries)
    no_app = "app" not in _taken(entries)
    parts = [*_heading(source, no_app), "", *(text for entry in entries for text in (*_written(entry), ""))]
    notes = [f"what no setting shows: {note}" for note in server.notes]
    return "\n".join([*parts, *map(_comment, [*source.remarks, *notes])]).rstrip("\n") + "\n"


def _heading(source: Source, no_app: bool) -> Iterator[str]:
    yield _comment(f"forkserver.toml, from {source.origin}, a configuration of {source.server.name}.")
    check = "forkserver --check-config"
    if no_app:
        yield _comment(f"{source.server.page} says what differs. What was read names no application:")
        yield _comment(f'add a line such as app = "myapp:app", or type it: {check} myapp:app')
    else:
        yield _comment(f"{source.server.page} says what differs. Check it with: {check}")


def _comment(text: str) -> str:
    return f"# {printable(text)}"


def _entry(source: Source, found: Found) -> _Entry:
    row = source.server.rows.get(found.name)
    where = f" ({found.place})" if found.place else ""
    said = f"{found.name} = {_shown(found, row)}{where}"
    if row is None:
        page = source.server.page
        return _Entry(said, f"not known; {page} has what is, and forkserver --help all what there is here", [])
    if not row.keys:
        off = found.value in _NOTHING and row.fate is Fate.NOT_HAD
        return _Entry(said, "off, as here" if off else f"{row.fate.value}; {row.text}", [])
    fate = row.fate.value if row.fate is Fate.TAKEN else f"{row.fate.value} {' and '.join(row.keys)}"
    lines = [_converted(key, row, found) for key in row.keys]
    return _Entry(said, fate + (f"; {row.text}" if row.text else ""), lines)


def _shown(found: Found, row: Counterpart | None) -> str:
    """The value for a comment: nothing of what looks like a secret."""
    value = found.value
    if isinstance(value, LeftOutError):
        return "..."
    pairs = [str(each) for each in converters.listed(value)]
    if any(looks_secret(pair) for pair in (*pairs, f"{found.name}={pairs[0] if pairs else ''}")):
        return "... (it looks secret; env_file is the better place)"
    if isinstance(value, dict) and len(value) == 1 and {"function", "object"} & set(value):
        kind, text = next(iter(value.items()))
        return text if kind == "object" else f"{text}()"
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def _converted(key: str, row: Counterpart, found: Found) -> _Line:
    if isinstance(found.value, LeftOutError):
        return _Line(key, None, None, str(found.value))
    try:
        return _line(key, row.convert(found.value) if row.convert else found.value)
    except LeftOutError as error:
        return _Line(key, found.value, None, str(error))
    except (TypeError, ValueError):
        return _Line(key, found.value, None, "it has no value that can be read; see the page")


def _line(key: str, raw: Any) -> _Line:
    setting: Setting[Any] = _OURS[key]
    try:
        value = setting.value_type.parse(raw)
    except RefusedError as refused:
        return _Line(key, raw, None, str(refused))
    if value in (None, []) and setting.default not in (None, []):
        return _Line(key, raw, None, "it is empty")
    if value is not None and not _is_utf8(setting.value_type.show(value)):
        return _Line(key, raw, None, "it holds bytes that are no UTF-8, which a TOML file cannot")
    return _Line(key, raw, value, "" if value not in (None, []) else "it is empty, which is so here without a setting")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _good(entries: list[_Entry]) -> Iterator[_Line]:
    return (line for entry in entries for line in entry.lines if not line.left_out)


def _taken(entries: list[_Entry]) -> set[str]:
    return {line.key for line in _good(entries)}


def _overrule(entries: list[_Entry]) -> None:
    """Of one setting of ours that several write, the last has it all: lists are joined, of others the last counts."""
    last: dict[str, _Line] = {}
    for line in _good(entries):
        before = last.get(line.key)
        if before is not None:
            if isinstance(line.value, list):
                line.value = list(dict.fromkeys([*before.value, *line.value]))
                before.left_out = "it is joined to the one below"
            else:
                before.left_out = "the one below counts"
        last[line.key] = line


def _enter_directory(entries: list[_Entry]) -> None:
    """Write relative paths as the ones below chdir that the other server means."""
    lines = {line.key: line for line in _good(entries)}
    if "chdir" in lines:
        for key in _PATHS:
            if key in lines:
                lines[key].value = _below(lines["chdir"].value, lines[key].value)


def _below(folder: str, value: Any) -> Any:
    """``value``, a path or several, as the path below ``folder``."""
    if isinstance(value, list):
        return [_below(folder, each) for each in value]
    if os.path.isabs(value) or value in ("-", "auto", "off") or value.partition(":")[0] == "syslog":
        return value
    return os.path.join(folder, value)


def _leave_out_conflicts(entries: list[_Entry]) -> None:
    """Leave out what forkserver would refuse beside the other settings, or on this machine."""
    for _ in TABLE:
        lines = {line.key: line for line in _good(entries)}
        values = {setting.name: setting.fresh_default() for setting in TABLE}
        values |= {key: line.value for key, line in lines.items()}
        settings = Settings(values, {name: "file" if name in lines else "default" for name in values})
        wrong = [(name, why) for name, why in loading.conflicts(settings) if name in lines]
        if not wrong:
            return
        lines[wrong[0][0]].left_out = wrong[0][1]


def _written(entry: _Entry) -> Iterator[str]:
    if entry.lines and all(line.left_out for line in entry.lines):
        reasons = " and ".join(dict.fromkeys(line.left_out for line in entry.lines))
        yield _comment(f"{entry.said}: left out; {reasons}")
        return
    yield _comment(f"{entry.said}: {entry.fate}")
    for line in entry.lines:
        if line.left_out:
            yield _comment(f"{line.key} is left out: {line.left_out}")
        else:
            yield f"{line.key} = {_OURS[line.key].value_type.show(line.value)}"
