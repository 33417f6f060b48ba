"""Modules that are imported before they are needed, and where they are, where not each start needs them.

The master imports some once the workers serve: no start waits for them, and the environment that they come from may be
removed or replaced while the service runs. A template whose workers import the application for themselves imports what
they will all need, which they share then. In development, where each reload is waited for, the master does that, once.
A template that gives up root's rights imports others before that, because the application's user may not be able to
read them.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Final

from forkserver.config.settings import Settings
from forkserver.worker.loading.release_paths import search_path_without

# For: a mistyped setting, a read-only file system. (tomllib is there where a file was read at the start.)
_MODULES: Final = ("difflib", "forkserver.linux.files.read_only")
# For: an application that is none, does not load, or is named in an unusual way; one that imports the classes of this
# package.
_OF_AN_APPLICATION: Final = (
    *("ast", "difflib", "importlib.util", "inspect", "pkgutil", "resource"),
    *("forkserver.server.wsgi_server", "forkserver.worker.loading.import_advice"),
)
# What Django, Flask and their like import of the standard library: what workers can share of it where each imports the
# application for itself.
_OF_MOST_APPLICATIONS: Final = (
    *("asyncio", "concurrent.futures.thread", "dataclasses", "datetime", "decimal", "difflib", "email.generator"),
    *("email.headerregistry", "email.mime.multipart", "email.mime.text", "gettext", "hashlib", "html.parser"),
    *("http.client", "http.cookies", "http.server", "importlib.metadata", "inspect", "json", "logging.config"),
    *("logging.handlers", "mimetypes", "pickle", "pprint", "ssl", "tempfile", "unicodedata", "urllib.request", "uuid"),
    "zoneinfo",
)


def load() -> None:
    """Import what the master may need later. Raises ImportError."""
    for name in _MODULES:
        importlib.import_module(name)


def load_for_master(settings: Settings, started_in: str) -> None:
    """Import what the master may need later, and where files are watched, what each reload would wait for.

    That comes from nowhere below ``started_in``, where the application's modules are. Raises ImportError and OSError.
    """
    load()
    if settings.reload_on_change == "off":
        return
    from forkserver.worker.loading import loader  # late: a service that watches no files has it in its templates alone

    with search_path_without(started_in):
        loader.preload_modules(settings, shared=False)
        load_for_many()


def load_for_many() -> None:
    """Import what most applications will import in each worker; this build of Python may lack some."""
    for name in _OF_MOST_APPLICATIONS:
        with suppress(ImportError):
            importlib.import_module(name)


def load_for_application() -> None:
    """Import what may be needed while an application is loaded. Raises ImportError."""
    for name in _OF_AN_APPLICATION:
        importlib.import_module(name)
