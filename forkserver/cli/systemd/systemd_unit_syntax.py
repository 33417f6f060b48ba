"""How systemd reads the lines of a unit: words, paths and texts that mean themselves.

Source: systemd.syntax(7), "COMMAND LINES" in systemd.service(5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from forkserver.errors import ConfigError


def command(program: Sequence[str], words: Sequence[str]) -> str:
    """A command line; ``$`` and ``%`` mean themselves. Raises ConfigError."""
    return " ".join(quoted(word).replace("$", "$$") for word in [*program, *words])


def quoted(word: str) -> str:
    """``word`` as one word of a unit file: specifiers, quotes and white space mean themselves. Raises ConfigError."""
    _check(word)
    word = word.replace("%", "%%")
    if re.fullmatch(r"[\w@%+=:,./$-]+", word, re.ASCII):
        return word
    escaped = re.sub(r'[\\"]', r"\\\g<0>", word)
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\x{ord(match[0]):02x}", escaped) + '"'


def path(path: str) -> str:
    """``path`` as the whole value of a line, which is not unquoted. Raises ConfigError."""
    if path.endswith("\\"):
        raise ConfigError(f"cannot write {path!r} into a unit file: the next line would belong to it; rename it")
    if path != path.strip() or re.search(r"[\x00-\x1f\x7f]", path):
        raise ConfigError(f"cannot write {path!r} into a unit file: white space at its ends or within; rename it")
    _check(path)
    return path.replace("%", "%%")


def one_line(text: str) -> str:
    """``text`` for a comment or a description: a line feed would begin a line of the unit."""
    _check(text)
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)


def _check(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"cannot write {text!r} into a unit file: not UTF-8; rename it") from None
