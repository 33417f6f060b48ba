"""Formats of the access log in settings."""

from __future__ import annotations

from typing import Final

from forkserver.config.values.value_type import RefusedError, ValueType, quoted
from forkserver.logs.access_format import AUTO, COMBINED, JSON, FormatError, compiled

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


access_log: Final = ValueType(f"{AUTO}, {COMBINED}, {JSON} or a format", _access_log, quoted)
