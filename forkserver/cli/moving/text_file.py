"""Text files of other servers, read whole or not at all."""

from __future__ import annotations

from typing import Final

from forkserver.errors import ConfigError

_MOST_CHARACTERS: Final = 1024 * 1024


def read_text(path: str) -> str:
    """The text of the file, what is no UTF-8 replaced. Raises ConfigError, also where it is too long."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(_MOST_CHARACTERS + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}; name another") from None
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"{path}: over {_MOST_CHARACTERS} characters; name another")
    return text
