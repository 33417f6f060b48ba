"""How this program was called: its directory and its virtual environment, by the paths that were typed.

The kernel and the interpreter know only where a path has led: ``getcwd`` follows every link, and the console script of
an environment names its interpreter by the path at which the environment was made. A deployment that switches a link
(``current``) means the path that leads through it. So the directory comes from ``PWD`` (POSIX, "pwd -L") where that is
the same directory, and the environment from the script or interpreter of the command line, as it was typed.

Source: https://docs.python.org/3/library/sys.html (orig_argv, prefix); PEP 405 (pyvenv.cfg); execve(2) on ``#!``.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from forkserver.errors import ConfigError
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.files import trusted_files, trusted_paths

_MOST_LINKS: Final = 40  # as the kernel follows: path_resolution(7)


class Environment(NamedTuple):
    """The Python environment of this process.

    ``typed`` is its path (``sys.prefix``) as it was typed, ``real`` where that led at the start, and ``python`` the
    interpreter to run where the one of the command line lies in another place; empty where that one is right.
    """

    typed: str
    real: str
    python: str = ""

    def moved(self) -> str:
        """Where ``typed`` leads by now, if that is another place than at the start; else empty."""
        now = os.path.realpath(self.typed)
        return now if now != self.real else ""

    def why_untrusted(self, program: str, modules: str = "") -> str:
        """Which other user may choose what root executes as ``program`` in the environment; empty where none may.

        The interpreter, what says that it is of an environment, the folder of its packages, what its .pth files name,
        and ``modules``, another folder of modules, are looked at; not each file in them. Raises OSError. An ordinary
        user executes nothing with more rights than its own.
        """
        if os.geteuid() != 0:
            return ""
        files = [program, os.path.join(self.typed, "pyvenv.cfg"), *self._site("*.pth")]
        if why := next(filter(None, map(_why_not_of_root, files)), ""):
            return why
        folders = self._site("forkserver", "__init__.py") + ([os.path.join(modules, "forkserver")] if modules else [])
        led_to = (place for path in self._site("*.pth") for place in _led_to(path))
        return next(filter(None, [*map(trusted_paths.why_guarded, folders), *map(_why_no_place_of_root, led_to)]), "")

    def _site(self, *pattern: str) -> list[str]:
        """What matches ``pattern`` below the folder of packages."""
        return sorted(glob.glob(os.path.join(glob.escape(self.typed), "lib", "python*", "site-packages", *pattern)))


def _led_to(path: str) -> list[str]:
    """The folders and archives that the .pth file ``path`` adds to the path of modules, as an editable install has one.

    What a line that begins with "import" does, it does not say. A file that was half written when the machine lost
    power may hold null bytes: some interpreters take what stands before one, others leave the line out. Source: the
    module site.
    """
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.partition("\0")[0].rstrip() for line in file]
    places = [line for line in lines if line and not line.startswith(("#", "import ", "import\t"))]
    return [os.path.join(os.path.dirname(path), place) for place in places]


def _why_no_place_of_root(path: str) -> str:
    """Who may change the modules in ``path``, a folder or an archive (.egg, .zip). Raises OSError."""
    return _why_not_of_root(path) if os.path.isfile(path) else _why_guarded(os.path.join(path, "module.py"))


def _why_not_of_root(path: str) -> str:
    try:
        if why := _why_guarded(path):  # a file that is missing may be there a moment later
            return why
        number = trusted_files.open_trusted(path)
    except trusted_paths.UntrustedPathError as error:
        return error.reason
    if number is not None:
        os.close(number)
    return ""


def _why_guarded(path: str) -> str:
    """Who may change what ``path`` leads to, as far as its folders exist. Raises OSError."""
    while True:
        try:
            return trusted_paths.why_guarded(path)
        except (FileNotFoundError, NotADirectoryError):
            path = os.path.dirname(path)


def directory(environ: Mapping[str, str], physical: str) -> str:
    """The current directory, ``physical`` to the kernel, by the path that led here, which may go through links."""
    path = environ.get("PWD", "")
    try:
        return path if os.path.isabs(path) and os.path.samefile(path, physical) else physical
    except (OSError, ValueError):
        return physical


def physical_directory() -> str:
    """The current directory, with no link left. Raises ConfigError where it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the current directory is gone; start in another") from None


def absolute(path: str, folder: str) -> str:
    """``path`` as it is meant from ``folder``; links stay."""
    return os.path.normpath(os.path.join(folder, path))


def environment(folder: str, words: Sequence[str], argv: Sequence[str]) -> Environment:
    """The environment of this process. ``words`` (``sys.orig_argv``) started it in ``folder`` and end with ``argv``."""
    prefix = sys.prefix
    real = os.path.realpath(prefix)
    called = words[0] if words and "/" in words[0] else sys.executable  # which the interpreter has found on PATH
    called = absolute(called, folder)
    for path in (*_scripts(words, argv, folder), called):
        bin_folder, place = os.path.dirname(path), os.path.dirname(os.path.dirname(path))
        python = os.path.join(bin_folder, "python")
        if _is_environment(place, real) and os.access(python, os.X_OK):
            return Environment(place, real, "" if os.path.dirname(called) == bin_folder else python)
    return Environment(prefix, real)


def _scripts(words: Sequence[str], argv: Sequence[str], folder: str) -> Iterator[str]:
    """The path of the script that was typed, and of the files that it is a link to; none for ``-m`` and ``-c``."""
    at = len(words) - len(argv)
    if not argv or at < 1 or words[at] != argv[0]:
        return
    path = absolute(words[at], folder)
    for _ in range(_MOST_LINKS):
        yield path
        try:
            path = absolute(os.readlink(path), os.path.dirname(path))
        except OSError:
            return


def _is_environment(place: str, real: str) -> bool:
    """Whether ``place`` is the virtual environment that ``real`` names."""
    try:
        return os.path.samefile(place, real) and os.path.isfile(os.path.join(place, "pyvenv.cfg"))
    except OSError:
        return False
