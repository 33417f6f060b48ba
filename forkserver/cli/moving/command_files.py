"""Command lines of servers in files that start them: a Procfile, a systemd unit, a Dockerfile.

Source: https://devcenter.heroku.com/articles/procfile; systemd.service(5), ExecStart=; and
https://docs.docker.com/reference/dockerfile/ on CMD and ENTRYPOINT.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import Final

from forkserver.cli.moving.text_file import read_text
from forkserver.errors import ConfigError
from forkserver.linux.common.records import NamedTuple

_PROCESS: Final = re.compile(r"^web\s*:\s*(.+)$", re.MULTILINE)
_CONTINUED: Final = re.compile(r"\\\s*\n\s*")
_SHELLS: Final = ("sh", "bash", "dash")
_OPERATORS: Final = ("&&", "||", ";", "|", "&")
_STAYS: Final = ("User", "Group", "Environment", "EnvironmentFile", "ExecStartPre", "RuntimeDirectory", "LimitNOFILE")


class Command(NamedTuple):
    """A command line, the folder that it is started in (empty for the current one), and what to say of the file."""

    words: list[str]
    folder: str = ""
    remark: str = ""


def is_known(path: str) -> bool:
    """Whether the name of the file says that it is one of these."""
    name = os.path.basename(path)
    return name.startswith(("Procfile", "Dockerfile", "Containerfile")) or name.endswith((".service", ".Dockerfile"))


def read(path: str) -> Command:
    """The command line in the file. Raises ConfigError."""
    text = read_text(path)
    try:
        if os.path.basename(path).startswith("Procfile"):
            return _of_procfile(path, text)
        return _of_unit(path, text) if path.endswith(".service") else _of_image(path, text)
    except ValueError as error:
        raise ConfigError(f"{path}: {str(error).lower()}; close every quote, or give the command line itself") from None


def of_shell(words: list[str]) -> list[str]:
    """``words`` without the shell that runs them, and without the commands before and behind the last one.

    Raises ValueError.
    """
    if len(words) > 2 and os.path.basename(words[0]) in _SHELLS and re.fullmatch("-[a-z]*c", words[1]):
        words = shlex.split(words[2])
    made: list[str] = []
    for word in words:
        ends = word.endswith(";") and word != ";"
        made.append(word.removesuffix(";") if ends else word)
        if ends:
            made.append(";")
    while made and made[-1] in _OPERATORS:
        made.pop()
    at = max((number for number, word in enumerate(made) if word in _OPERATORS), default=-1)
    return made[at + 1 :]


def _of_procfile(path: str, text: str) -> Command:
    web = _PROCESS.search(text)
    if web is None:
        raise ConfigError(f"{path}: no line begins with web:; give the command line itself")
    return Command(of_shell(shlex.split(web[1])))


def _of_unit(path: str, text: str) -> Command:
    lines = re.findall(r"^\s*([A-Za-z]+)\s*=\s*(.*)$", _CONTINUED.sub(" ", text), re.MULTILINE)
    values = {key: value.strip() for key, value in lines if value.strip()}
    if "ExecStart" not in values:
        raise ConfigError(f"{path}: no ExecStart=; give the command line itself")
    stays = [f"{key}=" for key in _STAYS if key in values]
    remark = f"{', '.join(stays)} of the unit: they stay there; " if stays else ""
    folder = values.get("WorkingDirectory", "").lstrip("-")
    words = of_shell(shlex.split(values["ExecStart"].lstrip("-@:+!|")))
    return Command(words, folder, f"{remark}forkserver --systemd-unit prints a hardened unit for this machine")


def _of_image(path: str, text: str) -> Command:
    lines = re.findall(r"^\s*(CMD|ENTRYPOINT)\s+(.+)$", _CONTINUED.sub(" ", text), re.MULTILINE | re.IGNORECASE)
    last = {name.upper(): _words(value) for name, value in lines}
    folders = re.findall(r"^\s*WORKDIR\s+(\S+)", text, re.MULTILINE | re.IGNORECASE)
    words = of_shell([*last.get("ENTRYPOINT", []), *last.get("CMD", [])])
    if not words:
        raise ConfigError(f"{path}: no CMD and no ENTRYPOINT; give the command line itself")
    where = f"; it is started in {folders[-1]}" if folders else ""
    return Command(words, "", f"the image's command{where}, and what it names is looked for here")


def _words(value: str) -> list[str]:
    """The words of a command in either form: a list in JSON, or for a shell."""
    try:
        made = json.loads(value)
    except ValueError:
        return shlex.split(value)
    return [str(word) for word in made] if isinstance(made, list) else shlex.split(value)
