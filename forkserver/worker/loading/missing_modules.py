"""A module that the application imports and that is not there: where it is, or how it is installed.

Looked for, in this order: Django's settings, a misspelt part of a package, what newer versions of Python have left out,
a file beside the one that imports it, a folder of the project, and other virtual environments. What is found nowhere is
taken for a library that is not installed.

Source: PEP 405 (virtual environments), PEP 668 (environments that are managed by the system).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from forkserver.config.values.spelling import nearest
from forkserver.config.version import DISTRIBUTION
from forkserver.linux.files.file_permissions import user_name

_SETTINGS: Final = "DJANGO_SETTINGS_MODULE"
_ENVIRONMENTS: Final = (".venv", "venv", "env", ".env")
_MOST_FOLDERS: Final = 200  # of the project that are looked into
# Modules that came with Python, and the version that leaves them out. PEP 594, PEP 632.
_LEFT_OUT: Final = {
    (3, 12): ("asynchat", "asyncore", "distutils", "imp", "smtpd"),
    (3, 13): ("cgi", "cgitb", "chunk", "crypt", "imghdr", "mailcap", "nntplib", "pipes", "sndhdr", "telnetlib", "uu"),
}
# What the distribution of a module is called, where that is another name.
_DISTRIBUTIONS: Final = {
    "bs4": "beautifulsoup4", "corsheaders": "django-cors-headers", "Crypto": "pycryptodome", "cv2": "opencv-python",
    "dateutil": "python-dateutil", "debug_toolbar": "django-debug-toolbar", "decouple": "python-decouple",
    "dotenv": "python-dotenv", "environ": "django-environ", "git": "GitPython", "jose": "python-jose", "jwt": "PyJWT",
    "ldap": "python-ldap", "magic": "python-magic", "MySQLdb": "mysqlclient", "nacl": "PyNaCl", "OpenSSL": "pyOpenSSL",
    "PIL": "Pillow", "pkg_resources": "setuptools", "psycopg2": "psycopg2-binary",
    "rest_framework": "djangorestframework",
    "sklearn": "scikit-learn", "slugify": "python-slugify", "storages": "django-storages", "yaml": "PyYAML",
    "zmq": "pyzmq",
}  # fmt: skip


def advice(name: str, files: Sequence[str]) -> str:
    """What to do about the module ``name``, which was imported by the last of ``files``, a path each."""
    settings = os.environ.get(_SETTINGS, "")
    if f"{settings}.".startswith(f"{name}."):
        return settings_advice()
    parent, _, last = name.rpartition(".")
    if parent in sys.modules:
        return _of_package(parent, last)
    top = name.partition(".")[0]
    version = next((since for since, names in _LEFT_OUT.items() if top in names), None)
    if version is not None and sys.version_info >= version:
        left_out = ".".join(map(str, version))
        return f"Python has it no longer since {left_out}; update what imports it, or use an older Python"
    closed = _closed_to_us(os.path.dirname(os.__file__)) if top in sys.stdlib_module_names else ""
    if closed:
        return closed
    return _in_project(top, files[-1] if files else "") or _elsewhere(top) or _install(top)


def settings_advice() -> str:
    """What to do where Django has no settings, or not those that its variable names."""
    settings = os.environ.get(_SETTINGS, "")
    known = sorted(_settings_here())
    found = nearest(settings, known) or (known[0] if known else "")
    named = f"{_SETTINGS} is " + (repr(settings) if settings else "not set, by which Django finds its settings")
    if not found:
        return f"{named}; set it with --env {_SETTINGS}=MODULE, and name its folder with --chdir or --pythonpath"
    way_out = f"set it with --env {_SETTINGS}={found}" + (", or correct the line that sets it" if settings else "")
    return f"{named}; did you mean {found}? {way_out[0].upper()}{way_out[1:]}"


def _settings_here() -> Iterator[str]:
    """Modules of the current directory's packages that are called settings."""
    for folder in _folders("."):
        if os.path.exists(os.path.join(folder, "settings.py")) or os.path.exists(
            os.path.join(folder, "settings", "__init__.py")
        ):
            yield f"{folder}.settings"


def _of_package(parent: str, last: str) -> str:
    import pkgutil

    package = sys.modules[parent]
    paths, file = getattr(package, "__path__", None), getattr(package, "__file__", None)
    if paths is None:
        return f"{parent!r} is {file}, a module and no package; if that hides a library of this name, rename the file"
    near = nearest(last, [module.name for module in pkgutil.iter_modules(paths)])
    if near:
        return f"did you mean {parent}.{near}?"
    where = file or next(iter(paths), "")
    return f"the package {parent!r} ({where}) has no module {last!r}; add it, or install a release that has it"


def _closed_to_us(library: str) -> str:
    """What to do where this user may not read the folder of Python's own library; "" where it may."""
    above = [library]
    while above[-1] != os.path.dirname(above[-1]):
        above.append(os.path.dirname(above[-1]))
    closed = next((folder for folder in reversed(above) if not os.access(folder, os.X_OK)), None)
    if closed is None and os.access(library, os.R_OK):
        return ""
    return (
        f"it is Python's own, in {library}, and user {user_name(os.geteuid())} may not enter {closed or library}; use "
        "a Python outside of homes (such as /usr/bin/python3) for the environment, or let this user in with `chmod o+x`"
    )


def _in_project(top: str, importer: str) -> str:
    """Where the project itself has it, in a folder that imports do not look in."""
    beside = os.path.dirname(importer)
    importable = {os.path.abspath(path) for path in sys.path}
    if os.path.isabs(beside) and beside not in importable and _has(beside, top):
        package = os.path.basename(beside)
        whole = f"`from {package} import {top}`, or " if package.isidentifier() else ""
        return f"it is in {beside}, where imports do not look: write {whole}add --pythonpath {beside}"
    found = folder_with(top)
    return f"it is in {os.path.abspath(found)}: add --pythonpath {found}" if found else ""


def folder_with(top: str) -> str | None:
    """The folder of the current directory that holds the module ``top``."""
    return next((folder for folder in _folders(".") if _has(folder, top)), None)


def _elsewhere(top: str) -> str:
    """Where another virtual environment has it."""
    for prefix in _environments():
        if not any(_has(folder, top) for folder in _site_folders(prefix)):
            continue
        here = f"it is installed in {prefix}, and this forkserver runs in {sys.prefix}"
        program = os.path.join(prefix, "bin", "forkserver")
        if os.path.exists(program):
            return f"{here}; start {program} instead"
        return f"{here}; type {prefix}/bin/python -m pip install {DISTRIBUTION}, and start {program}"
    return ""


def _environments() -> Iterator[str]:
    """Virtual environments other than ours: the one that a shell has activated, and those of the project."""
    here = os.getcwd()
    folders = [os.path.join(base, name) for base in (here, os.path.dirname(here)) for name in _ENVIRONMENTS]
    for each in dict.fromkeys([os.environ.get("VIRTUAL_ENV", ""), *folders]):
        if each and os.path.realpath(each) != os.path.realpath(sys.prefix) and os.path.isdir(os.path.join(each, "lib")):
            yield each


def _site_folders(prefix: str) -> Iterator[str]:
    for name in _names(os.path.join(prefix, "lib")):
        if name.startswith("python3"):
            yield os.path.join(prefix, "lib", name, "site-packages")


def _install(top: str) -> str:
    """How to install a library for this interpreter."""
    wanted = "-r requirements.txt" if os.path.exists("requirements.txt") else _DISTRIBUTIONS.get(top, top)
    if "/pipx/venvs/" in f"{sys.prefix}/":
        return f"if it is a library, type pipx inject {DISTRIBUTION} {wanted}"
    if sys.prefix == sys.base_prefix:
        venv = ".venv/bin/python -m pip install"
        return (
            f"if it is a library, make an environment that has it and forkserver: {sys.executable} -m venv .venv, then "
            f"{venv} {DISTRIBUTION} {wanted}, and start .venv/bin/forkserver"
        )
    return f"if it is a library, type {sys.executable} -m pip install {wanted}; if it is yours, add --pythonpath FOLDER"


def _has(folder: str, top: str) -> bool:
    """Whether imports would find the module ``top`` in ``folder``."""
    path = os.path.join(folder, top)
    return os.path.isfile(f"{path}.py") or os.path.isfile(os.path.join(path, "__init__.py"))


def _folders(base: str) -> list[str]:
    """Folders of ``base``, without hidden ones and environments."""
    names = (name for name in _names(base) if not name.startswith(".") and name not in _ENVIRONMENTS)
    return [name for name in names if os.path.isdir(os.path.join(base, name))][:_MOST_FOLDERS]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # not there, or not this user's to read: then it holds nothing to advise
        return []
