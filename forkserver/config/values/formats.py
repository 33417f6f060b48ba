"""Formats and targets of logs in settings."""

from __future__ import annotations

from typing import Final

from forkserver.config.values.value_type import RefusedError, ValueType, optional_text, quoted
from forkserver.logs.access_format import AUTO, COMBINED, JSON, FormatError, compiled
from forkserver.logs.syslog import syslog_target

_MOST_CHARS: Final = 2048


def _access_log(raw: object) -> str:
    if not isinstance(raw, str):
        raise RefusedError("not text; put it in quotes")
    text = raw if "%" in raw else raw.strip().lower()
    if len(text) > _MOST_CHARS:
        raise RefusedError(f"longer than {_MOST_CHARS} characters; leave something out")
    try:
        compiled(text)
    except FormatError as error:
        raise RefusedError(str(error)) from None
    return text


def _log_target(raw: object) -> str | None:
    text = optional_text(raw)
    try:
        syslog_target(text)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    return text


log_target: Final = ValueType("path or syslog", _log_target, quoted)
access_log: Final = ValueType(f"{AUTO}, {COMBINED}, {JSON} or a format", _access_log, quoted)
