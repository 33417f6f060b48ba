"""An uwsgi.ini, and the command line of uwsgi.

An ini file of uWSGI may say the same option several times, and has placeholders: ``%(option)`` and magic letters
(``%d``, the file's folder), ``$(VARIABLE)`` and, but for root, ``@(file)``. Conditions and loops (``if-env``, ``for``)
are not evaluated: what stands in them is left out and named.

Source: https://uwsgi-docs.readthedocs.io/en/latest/Configuration.html
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from forkserver.cli.moving import flags
from forkserver.cli.moving.flags import Option
from forkserver.cli.moving.rows import Found
from forkserver.cli.moving.text_file import read_text
from forkserver.cli.moving.uwsgi import SERVER
from forkserver.linux import cgroups
from forkserver.linux.files import trusted_files

SECTION: Final = "uwsgi"
_BLOCK: Final = re.compile(r"(if|for)(-|$|[a-z])|endif|endfor|end-if|end-for")
_PLACEHOLDER: Final = re.compile(r"%\(([^)]+)\)|%([a-zA-Z])|\$\(([^)]+)\)|@\(([^)]+)\)")
_USED: Final = re.compile(r"%\(\s*([\w-]+)")
_WORD: Final = re.compile(r"%([a-zA-Z])|[A-Za-z][\w-]*")
_SUM: Final = re.compile(r"\s*([0-9]{1,9})\s*([-+*/])\s*([0-9]{1,9})\s*")
_MOST_CHARS: Final = 4096  # of a file that stands for a value
_SHORT: Final = {
    "-s": "socket", "-p": "processes", "-w": "module", "-H": "home", "-C": "chmod-socket", "-d": "daemonize",
    "-l": "listen", "-t": "harakiri", "-b": "buffer-size", "-R": "max-requests", "-j": "env", "-P": "pidfile",
    "-M": "master", "-L": "disable-logging", "-T": "enable-threads", "-i": "single-interpreter", "-m": "memory-report",
}  # fmt: skip
_BARE: Final = ("-M", "-L", "-T", "-i", "-m", "-C")
_TAKES_NONE: Final = (
    "catch-exceptions", "cheap", "close-on-exec", "die-on-term", "disable-logging", "disable-write-exception",
    "enable-proxy-protocol", "enable-threads", "http-auto-chunked", "http-raw-body", "http-websockets",
    "http-keepalive",
    "ignore-sigpipe", "ignore-write-errors", "lazy", "lazy-apps", "log-date", "log-master", "log-x-forwarded-for",
    "manage-script-name", "master", "memory-report", "need-app", "no-default-app", "no-orphans", "no-site",
    "single-interpreter", "so-keepalive", "strict", "threaded-logger", "thunder-lock", "vacuum", "auto-procname",
    "log-4xx", "log-5xx", "reuse-port", "wsgi-disable-file-wrapper", "py-call-osafterfork", "show-config",
    "chmod-socket",
)  # fmt: skip
_PLACEHOLDERS: Final = ("set", "set-placeholder", "set-ph")
_SEVERAL: Final = ("env", "pythonpath", "socket", "http", "http-socket", "mount", "static-map", "import")
_ALIASES: Final = {
    "python-path": "pythonpath", "pp": "pythonpath", "http11": "http11-socket", "chmod": "chmod-socket",
    "socket-write-timeout": "socket-send-timeout", "log-socket": "logger",
}  # fmt: skip


def file(path: str, environ: Mapping[str, str]) -> tuple[list[Found], list[str]]:
    """The settings in the section [uwsgi] of the ini file ``path``, and remarks. Raises ConfigError."""
    found: list[Found] = []
    remarks: list[str] = []
    depth = 0
    lines = list(_lines(path))
    words = {_named(word) for _, value in lines for word in _USED.findall(value)}  # that other lines use
    for name, value in lines:
        if _BLOCK.match(name):
            depth += -1 if name.startswith("end") else 1
            remarks.append(f"{name} = {value}: conditions and loops are not evaluated; what stands in it is left out")
        elif depth:
            remarks.append(f"{name} = {value}: left out, it stands in a condition or loop")
        else:
            found.append(Found(_named(name), _filled(value, path, found, environ)))
    return [each for each in _merged(found) if each.name in SERVER.rows or each.name not in words], remarks


def command_line(words: Sequence[str], environ: Mapping[str, str], folder: str = "") -> tuple[list[Found], list[str]]:
    """The settings in ``words``, and of the files that they name, from ``folder``; and remarks. Raises ConfigError."""
    found, others = flags.read(words, _options())
    remarks: list[str] = []
    made: list[Found] = []
    for path in [*others, *(str(each.value) for each in found if each.name == "ini")]:
        if path.endswith(".ini"):
            of_file, more = file(os.path.join(folder, path), environ)
            made += [each._replace(place=path) for each in of_file]
            remarks += more
        else:
            remarks.append(f"{path}: not read; it is no .ini file")
    made += [each._replace(name=_named(each.name.lstrip("-"))) for each in found if each.name != "ini"]
    return _merged(made), remarks


def is_ini(path: str) -> bool:
    """Whether the file has a section [uwsgi]."""
    return any(True for _ in _lines(path))


def _options() -> dict[str, Option]:
    made = {f"--{name}": Option(name, 0 if name in _TAKES_NONE else 1) for name in SERVER.rows}
    made |= {f"--{alias}": Option(name) for alias, name in _ALIASES.items()}
    made |= {flag: Option(name, 0 if flag in _BARE else 1) for flag, name in _SHORT.items()}
    return made | {"--ini": Option("ini"), "--wsgi": Option("wsgi")}


def _named(name: str) -> str:
    name = name.replace("_", "-")
    return _ALIASES.get(name, name)


def _lines(path: str) -> Iterator[tuple[str, str]]:
    """Names and values of the section, in their order."""
    within = False
    for line in read_text(path).splitlines():
        line = line.strip()
        if line.startswith("[") and "]" in line:
            within = line[1:].partition("]")[0] == SECTION
        elif within and line and line[0] not in "#;":
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _filled(text: str, path: str, found: Sequence[Found], environ: Mapping[str, str]) -> str:
    """``text`` with the placeholders filled, as far as they can be here."""
    whole = os.path.abspath(path)
    folder, name = os.path.split(whole)
    magic = {
        "d": f"{folder}/", "p": whole, "n": os.path.splitext(name)[0], "s": name, "c": os.path.basename(folder),
        "h": socket.gethostname(), "k": str(cgroups.usable()), "u": str(os.getuid()),
        "e": os.path.splitext(name)[1].removeprefix("."),
    }  # fmt: skip
    values = {each.name: str(each.value) for each in found}
    for each in found:
        if each.name in _PLACEHOLDERS:
            name, _, value = str(each.value).partition("=")
            values[_named(name)] = value

    def fill(match: re.Match[str]) -> str:
        option, letter, variable, of_file = match.groups()
        if option:
            filled = _WORD.sub(lambda word: magic.get(word[1] or "", values.get(_named(word[0]), word[0])), option)
            return match[0] if filled == option else _sum(filled)
        if letter:
            return magic.get(letter, match[0])
        if variable:
            return environ.get(variable, match[0])
        return _content(of_file, match[0])

    return _PLACEHOLDER.sub(fill, text)


def _sum(text: str) -> str:
    """What stands in ``%(...)``: one value, or an operation of uWSGI's on two whole numbers."""
    if match := _SUM.fullmatch(text):
        one, operator, other = int(match[1]), match[2], int(match[3])
        results = {"+": one + other, "-": one - other, "*": one * other, "/": one // other if other else 0}
        return str(results[operator])
    return text


def _content(path: str, otherwise: str) -> str:
    """What ``path`` holds; ``otherwise`` where it cannot be read, and for root: the ini file may be another user's."""
    if os.geteuid() == 0:
        return otherwise
    try:
        with open(trusted_files.open_regular(path), encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_CHARS).strip()
    except OSError:
        return otherwise


def _merged(found: list[Found]) -> list[Found]:
    """What adds up, as one list; of anything else that is written several times, the last."""
    values: dict[str, list[Found]] = {}
    for each in found:
        if each.name not in _PLACEHOLDERS:
            values.setdefault(each.name, []).append(each)
    return [
        Found(
            name,
            [each.value for each in same] if len(same) > 1 and name in _SEVERAL else same[-1].value,
            same[-1].place,
        )
        for name, same in values.items()
    ]
