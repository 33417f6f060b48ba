"""Files of variables for the application, which ``env_file`` names: lines of KEY=VALUE.

A blank line, or one that begins with #, says nothing; ``export`` before a key is passed over. A value may stand in
quotes: in single ones as it is; in double ones a backslash stands before a quote, a dollar sign or another backslash,
and before n for the end of a line. Nothing is filled in for $NAME. A file is read with our own rights or, where another
user may change what its path leads to, with that user's, so its secrets need not be readable for the application's
user. It is read once in a process: again at each reload. A relative name is meant from the directory of the release
that the process loads, which the current one of the master need not be: a reload that was refused has entered another.

Source: systemd.exec(5) on EnvironmentFile=; https://docs.docker.com/reference/cli/docker/container/run/ on --env-file.
"""

from __future__ import annotations

import os
import re
from typing import Final

from forkserver.config.settings import Settings
from forkserver.errors import ConfigError
from forkserver.linux.files import trusted_files
from forkserver.linux.files.trusted_paths import UntrustedPathError

_MOST_CHARACTERS: Final = 1024 * 1024
_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=[ \t]*(.*)", re.DOTALL)
_SINGLE: Final = re.compile(r"'([^']*)'\s*(?:#.*)?")
_DOUBLE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_ESCAPED: Final = re.compile(r"\\(.)")

_read: dict[tuple[str, ...], list[str]] = {}  # by directory and paths


def variables(settings: Settings, directory: str = "") -> list[str]:
    """The application's variables as KEY=VALUE: those of ``env_file``, then those of ``env``, which count more.

    Relative names are meant from ``directory``, the current one where it is empty. Raises ConfigError, which shows no
    value.
    """
    paths = settings.env_file
    if (key := (directory, *paths)) not in _read:
        _read[key] = [pair for path in paths for pair in _of_file(path, directory, settings.service_uid)]
    return [*_read[key], *settings.env]


def _of_file(path: str, directory: str, service: int) -> list[str]:
    try:
        with (
            trusted_files.readable(os.path.join(directory, path), service) as name,
            open(name, encoding="utf-8") as file,
        ):
            text = file.read(_MOST_CHARACTERS + 1)
    except UntrustedPathError as error:
        raise ConfigError(f"env_file {path!r}: {error}") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"env_file {path!r}: {reason}; fix that or name another file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"env_file {path!r}: not UTF-8; write it as text") from None
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"env_file {path!r}: over {_MOST_CHARACTERS} characters; name a file of variables")
    lines = enumerate(text.split("\n"), 1)  # a form feed, or what else Unicode calls the end of a line, is of a value
    return [pair for number, line in lines for pair in _of_line(path, number, line.strip(" \t"))]


def _of_line(path: str, number: int, line: str) -> list[str]:
    if not line or line.startswith("#"):
        return []
    found = _LINE.fullmatch(line)
    if found is None or "\0" in line:
        raise ConfigError(f"env_file {path!r}, line {number}: not KEY=VALUE; write such as DEBUG=0, or # before it")
    return [f"{found[1]}={_value(path, number, found[2])}"]


def _value(path: str, number: int, text: str) -> str:
    if text[:1] not in ("'", '"'):
        return text
    if single := _SINGLE.fullmatch(text):
        return single[1]
    if double := _DOUBLE.fullmatch(text):
        return _ESCAPED.sub(lambda escaped: {"n": "\n"}.get(escaped[1], escaped[1]), double[1])
    raise ConfigError(
        f"env_file {path!r}, line {number}: a quote without its end, or text behind it; close every quote"
    )
