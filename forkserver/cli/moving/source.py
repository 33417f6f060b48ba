"""Which server's configuration was named to ``--from``, and reading it: a file, or a command line.

A file is known by its name and content: a .py file is gunicorn's, an .ini file with [uwsgi] is uWSGI's, and a Procfile,
a systemd unit or a Dockerfile has a command line. A command line is known by the program in it; words before that
(``exec``, ``uv run``, ``NAME=value``) are told of, and stay for the service's own command line.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from forkserver.cli.moving import command_files, gunicorn, mod_wsgi, python_file, uwsgi, uwsgi_ini, waitress
from forkserver.cli.moving.rows import Found, Source
from forkserver.config import sources
from forkserver.config.values.lists import looks_secret
from forkserver.errors import ConfigError

PROGRAMS: Final = {
    "gunicorn": "gunicorn",
    "uwsgi": "uwsgi",
    "waitress-serve": "waitress",
    "waitress": "waitress",
    "mod_wsgi-express": "mod_wsgi",
}
_KNOWN: Final = (
    "name a gunicorn.conf.py, an uwsgi.ini, a Procfile, a .service file, a Dockerfile, or the whole command line of "
    "gunicorn, uwsgi, waitress-serve or mod_wsgi-express"
)


def read(words: Sequence[str], environ: Mapping[str, str]) -> Source:
    """The configuration that ``words``, all that stands behind --from, name. Raises ConfigError."""
    if not words:
        raise ConfigError(f"--from: no value given; {_KNOWN}")
    if len(words) == 1 and os.path.isfile(words[0]):
        return _file(words[0], environ)
    if len(words) == 1:
        try:
            words = command_files.of_shell(shlex.split(words[0]))
        except ValueError as error:
            raise ConfigError(f"--from {words[0]!r}: {str(error).lower()}; close every quote") from None
    if len(words) == 1 and ("/" in words[0] or "." in words[0]):
        raise ConfigError(f"--from {words[0]!r}: no such file; {_KNOWN}")
    return _command(list(words), environ)


def _file(path: str, environ: Mapping[str, str]) -> Source:
    if path.endswith(".py"):
        return _python(path, environ)
    if command_files.is_known(path):
        return _of_command_file(path, environ)
    if uwsgi_ini.is_ini(path):
        found, remarks = uwsgi_ini.file(path, environ)
        return Source(uwsgi.SERVER, path, found, remarks)
    raise ConfigError(f"--from {path!r}: no configuration that is known; {_KNOWN}")


def _of_command_file(path: str, environ: Mapping[str, str]) -> Source:
    command = command_files.read(path)
    made = _command(command.words, environ, command.folder)
    made.origin = f"{path}: {made.origin}"
    made.remarks += [command.remark] if command.remark else []
    return made


def _python(path: str, environ: Mapping[str, str]) -> Source:
    found, remarks = _of_python(path)
    found = _strongest(found, gunicorn.variable(environ))
    return Source(gunicorn.SERVER, path, found, [*remarks, *_variable_remark(environ)])


def _of_python(path: str) -> tuple[list[Found], list[str]]:
    values, text = python_file.read(path)
    found = [Found(name, value) for name, value in values.items() if name in gunicorn.SERVER.rows]
    remarks = [f"{path} was executed to be read: what it takes from variables or the machine is fixed now"]
    if "cpu_count" in text:
        remarks.append('it counts processors; workers = "auto" has one worker for each that may be used')
    if ignored := [name for name in values if name not in gunicorn.SERVER.rows and _is_plain(values[name])]:
        remarks.append(f"gunicorn has no such settings, and ignores them: {', '.join(ignored)}")
    return [each for each in found if each.value is not None], remarks  # None is gunicorn's default


def _is_plain(value: Any) -> bool:
    """Whether ``value`` may be meant as that of a setting, and is no function, module or other helper of the file."""
    return isinstance(value, (bool, int, float, str, list))


def _variable_remark(environ: Mapping[str, str]) -> list[str]:
    if not environ.get(sources.GUNICORN):
        return []
    return [f"{sources.GUNICORN} is set; forkserver reads it too, and its flags win over this file: unset it"]


def _strongest(*ranks: list[Found]) -> list[Found]:
    """The settings of all ``ranks``; a later one wins."""
    return list({each.name: each for rank in ranks for each in rank}.values())


def _command(words: list[str], environ: Mapping[str, str], folder: str = "") -> Source:
    """The configuration in a command line that is started in ``folder``."""
    at = next((number for number, word in enumerate(words) if os.path.basename(word) in PROGRAMS), None)
    if at is None:
        raise ConfigError(f"--from {shlex.join(words)!r}: the command of no server that is known; {_KNOWN}")
    server, ours = PROGRAMS[os.path.basename(words[at])], [os.path.expandvars(word) for word in words[at + 1 :]]
    origin = "the command line of " + os.path.basename(words[at])
    remarks = [*_before(words[:at]), *_unfilled(ours)]
    if server == "gunicorn":
        return _gunicorn(ours, environ, origin, remarks, folder)
    if server == "uwsgi":
        found, more = uwsgi_ini.command_line(ours, environ, folder)
        return Source(uwsgi.SERVER, origin, found, [*remarks, *more])
    module: Any = waitress if server == "waitress" else mod_wsgi
    return Source(module.SERVER, origin, module.command_line(ours), remarks)


def _gunicorn(words: list[str], environ: Mapping[str, str], origin: str, remarks: list[str], folder: str) -> Source:
    flagged, app, config = gunicorn.command_line(words)
    of_file: list[Found] = []
    usual = os.path.join(folder, gunicorn.FILE)
    path = os.path.join(folder, config.removeprefix("file:")) if config else usual if os.path.isfile(usual) else ""
    if config and config.startswith("python:"):
        remarks.append(f"--config {config}: a module, which is not read; name its file")
    elif path:
        of_file, more = _of_python(path)
        of_file = [each._replace(place=each.place or path) for each in of_file]
        remarks += more
    named = [Found("wsgi_app", app)] if app else []
    found = _strongest(of_file, gunicorn.variable(environ), flagged, named)
    return Source(gunicorn.SERVER, origin, found, [*remarks, *_variable_remark(environ)])


def _before(words: list[str]) -> list[str]:
    """What stands before the server's name: it goes on standing before ours."""
    plain = [word for word in words if os.path.basename(word) not in ("exec", "python", "python3", "-m", "env")]
    if not plain:
        return []
    shown = ["NAME=..." if looks_secret(word) else word for word in plain]
    return [f"before the server's name stood: {shlex.join(shown)}; it goes before forkserver, or into the unit"]


def _unfilled(words: list[str]) -> list[str]:
    left = [word for word in words if "$" in word]
    return [f"{', '.join(left)}: variables that are not set here; write their values"] if left else []
