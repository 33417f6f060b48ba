"""A JSON schema of forkserver.toml, by which editors check and complete the file.

It is made from the settings table. Each type of value has the form that TOML and JSON can say of it; what only
forkserver can check, such as whether a user exists, is left to --check-config.

Source: https://json-schema.org/draft-07, which Taplo and the editors that use it read.
"""

from __future__ import annotations

import json
from typing import Any, Final

from forkserver.config.declaration import Setting
from forkserver.config.settings import FILE, TABLE
from forkserver.config.values.value_type import ValueType

_TIME: Final = r"^\s*\+?[0-9]+(\.[0-9]+)?\s*(ms|s|m|min|h)?\s*$"
_SIZE: Final = r"^\s*\+?[0-9]+(\.[0-9]+)?\s*([bB]|[kKmMgG]([iI][bB])?)?\s*$"
_COUNT: Final = r"^\s*\+?[0-9]+\s*$"
_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}


def _number(pattern: str, *words: str, kind: str = "integer") -> dict[str, Any]:
    """A number, the same as text, or one of ``words``."""
    forms: list[dict[str, Any]] = [{"type": kind, "minimum": 0}, {"type": "string", "pattern": pattern}]
    return {"anyOf": [*forms, *([{"enum": list(words)}] if words else [])]}


_SECONDS: Final = _number(_TIME, kind="number")
_VARIABLES: Final = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": {"type": "string", "pattern": r"^[^=\s]+="}},
        {"type": "object", "additionalProperties": _TEXT},
    ]
}
# By the names of the types in config/values/; what is not here is text.
_FORMS: Final[dict[str, dict[str, Any]]] = {
    "count": _number(_COUNT),
    "count or auto": _number(_COUNT, "auto"),
    "count, auto or keep": _number(_COUNT, "auto", "keep"),
    "seconds": _SECONDS,
    "seconds, 0 for no limit": _SECONDS,
    "seconds, 0 for off": _SECONDS,
    "bytes": _number(_SIZE, kind="number"),
    "bytes, 0 for no limit": _number(_SIZE, kind="number"),
    "bytes or auto": _number(_SIZE, "auto", kind="number"),
    "octal mode": {"type": "string", "pattern": r"^\s*(0o)?[0-7]{1,4}\s*$"},
    "addresses": _TEXTS,
    "names of hosts": _TEXTS,
    "addresses and networks": _TEXTS,
    "paths": _TEXTS,
    "header fields": _TEXTS,
    "KEY=VALUE": _VARIABLES,
    "user": {"type": ["string", "integer"]},
    "group": {"type": ["string", "integer"]},
    "address or off": {"type": ["string", "integer"]},
}


def as_json() -> str:
    """The text of the schema."""
    made = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": FILE,
        "description": "The settings of forkserver, a WSGI server.",
        "type": "object",
        "additionalProperties": False,
        "properties": {setting.name: _property(setting) for setting in TABLE if setting.in_file},
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _property(setting: Setting[Any]) -> dict[str, Any]:
    kept = setting.default if isinstance(setting.default, (str, list)) else None
    return {
        "description": f"{setting.help} A change takes a {setting.applies}.",
        **_form(setting.value_type),
        **({"default": kept} if kept else {}),
    }


def _form(value_type: ValueType[Any]) -> dict[str, Any]:
    if not value_type.choices:
        return _FORMS.get(value_type.name, _TEXT)
    words: list[object] = [*value_type.choices]
    if "on" in words:
        words += [True, False]
    if "required" in words:  # gunicorn's numbers
        words += [0, 1, 2]
    return {"enum": words}
