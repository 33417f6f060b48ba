"""Values of other servers as our settings read them.

Each function takes what was found and returns what our setting's type reads, or raises LeftOutError.
"""

from __future__ import annotations

import os
import re
from typing import Any

from forkserver.cli.moving.rows import LeftOutError

_TRUE = ("1", "true", "on", "yes", "y")


def truth(value: Any) -> bool:
    """A switch, as text or as it is; a bare flag is on."""
    return value.strip().lower() in _TRUE if isinstance(value, str) else bool(value)


def switch(value: Any) -> str:
    """A switch as a word."""
    return "on" if truth(value) else "off"


def only_where_on(word: str) -> Any:
    """``word`` where the switch is on; else nothing is to be set."""

    def convert(value: Any) -> str:
        if not truth(value):
            raise LeftOutError("it is off, which is so here without a setting")
        return word

    return convert


def whole(value: Any) -> Any:
    """A whole number, also as text with blanks around it."""
    text = str(value).strip()
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,30}", text) else value


def processes(value: Any) -> Any:
    """A number of workers, or auto."""
    return whole(value)


def number_or_nothing(why: str) -> Any:
    """A number; 0 means that there is no such thing, which needs no setting, for the reason ``why``."""

    def convert(value: Any) -> Any:
        if whole(value) == 0:
            raise LeftOutError(why)
        return whole(value)

    return convert


def mode(value: Any) -> str:
    """Permissions: a number is a mode, text has its digits in base 8."""
    return f"{value:04o}" if isinstance(value, int) else f"{_octal(str(value).strip()):04o}"


def _octal(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise LeftOutError(f"{text!r} is no mode in octal digits; write such as 660") from None


def listed(value: Any) -> list[Any]:
    """One or several, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def at_commas(value: Any) -> list[str]:
    """Texts that commas divide, as a list."""
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    return [text for text in (str(part).strip() for part in parts) if text]


def addresses(default_port: int) -> Any:
    """Addresses; what names no port gets ``default_port``."""

    def convert(value: Any) -> list[str]:
        return [_with_port(text, default_port) for item in listed(value) for text in at_commas(item)]

    return convert


def _with_port(text: str, port: int) -> str:
    if text.startswith(("unix:", "fd://", "tcp://")) or re.search(r":[0-9]+$", text):
        return text
    if text.isdigit():
        return f"0.0.0.0:{text}"
    return f"[{text}]:{port}" if text.count(":") > 1 and not text.startswith("[") else f"{text}:{port}"


def unix_or_tcp(value: Any) -> list[str]:
    """Addresses of uWSGI: HOST:PORT, or the path of a Unix socket, @NAME for one without a file."""
    made = []
    for text in map(str, listed(value)):
        if text.startswith("@"):
            made.append(f"unix:{text}")
        elif re.search(r":[0-9]+$", text):
            made.append(text.replace("*:", ":") if text.startswith("*:") else text)
        elif text.startswith("fd://"):
            made.append(text)
        else:
            made.append(f"unix:{text}")
    return made


def mebibytes(value: Any) -> str:
    """A size in MiB."""
    return f"{whole(value)}MiB"


def module_of(path: str) -> tuple[str, str]:
    """The folder and the module's name of a script by its ``path``; the folder is empty for a relative path."""
    folder, name = os.path.split(path)
    stem = name.rpartition(".")[0] or name
    if not stem.isidentifier():
        raise LeftOutError(f"{name} cannot be imported by its name; rename it to a module's, such as wsgi.py")
    if os.path.isabs(path):
        return folder, stem
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    if not all(part.isidentifier() for part in parts):
        return folder, stem
    return "", ".".join([*parts, stem])
