"""What to do about an exception that the application's code raised while it was loaded.

The causes are those that newcomers meet. What only may be the cause is worded as a guess. Nothing is imported from the
application, called or changed; of an exception only what its built-in class keeps is read.

Source: https://docs.python.org/3/library/exceptions.html; PEP 328 (relative imports), PEP 695, PEP 701, PEP 750 and
PEP 758 (syntax of newer versions).
"""

from __future__ import annotations

import errno
import os
import re
import resource
import sys
from collections.abc import Iterator
from types import FrameType, ModuleType, TracebackType
from typing import Any, Final

from forkserver.config.values.numbers import readable_size
from forkserver.config.version import DISTRIBUTION
from forkserver.linux.files import read_only
from forkserver.worker.loading import missing_modules
from forkserver.worker.loading.server_starts import UNDER_MAIN

_STDLIB: Final = os.path.dirname(os.__file__)
# Lines that are right in a newer Python.
_TYPE_STATEMENT: Final = re.compile(r"[ \t]*type +\w")
_TYPE_PARAMETERS: Final = re.compile(r"[ \t]*(?:async +)?(?:def|class) +\w+ *\[")
_EXCEPT: Final = re.compile(r"[ \t]*except +[\w.]+ *,")
_TEMPLATE: Final = re.compile(r"\b(?:t|tr|rt)['\"]")
_NO_PARENT: Final = "attempted relative import with no known parent package"
_BEYOND: Final = "attempted relative import beyond top-level package"
_PARTIAL: Final = "partially initialized module"


def of(error: BaseException, frames: TracebackType | None, spec: str) -> str:
    """What to do about ``error``, whose traceback ``frames`` begins in the application ``spec``; empty if not known."""
    match error:
        case ImportError():
            return _of_an_import(error, frames, spec)
        case AttributeError():
            return _of_an_attribute(error, frames)
        case SyntaxError():
            return newer_syntax(error, sys.version_info[:2])
        case MemoryError():
            return _no_memory()
        case OSError():
            return _of_the_system(error)
        case SystemExit():
            return f"if that line is for a run as a script, put it under `{UNDER_MAIN}`"
    if type(error).__name__ == "ImproperlyConfigured" and "DJANGO_SETTINGS_MODULE" in _text(error):
        return missing_modules.settings_advice()
    return ""


def _text(error: BaseException) -> str:
    """The message, where it is plain text: ``__str__`` may be the application's."""
    arguments = _kept(error, BaseException, "args")
    return arguments[0] if arguments and type(arguments[0]) is str else ""


def _kept(error: BaseException, kind: type[BaseException], name: str) -> Any:
    """What the built-in class ``kind`` keeps as ``name``: a class of the application's may have a property there."""
    return getattr(kind, name).__get__(error)


def _kept_text(error: BaseException, kind: type[BaseException], name: str) -> str:
    value = _kept(error, kind, name)
    return value if type(value) is str else ""


def _files(frames: TracebackType | None) -> list[str]:
    """The files of the traceback, the outermost first."""
    return [frame.tb_frame.f_code.co_filename for frame in _each(frames)]


def _each(frames: TracebackType | None) -> Iterator[TracebackType]:
    while frames is not None:
        yield frames
        frames = frames.tb_next


# Imports


def _of_an_import(error: ImportError, frames: TracebackType | None, spec: str) -> str:
    text, name, path = (_kept_text(error, ImportError, each) for each in ("msg", "name", "path"))
    if isinstance(error, ModuleNotFoundError):
        return missing_modules.advice(name, _files(frames)) if name else ""
    if text.startswith(_NO_PARENT):
        return _without_its_package(_files(frames), spec)
    if text.startswith(_BEYOND):
        return _beyond(frames, spec)
    if _PARTIAL in text or (name and name in map(_module, _bodies(frames))):  # CPython 3.13 has other words for some
        return _circular(frames, name)
    if name.partition(".")[0] in sys.stdlib_module_names and text.startswith("cannot import name"):
        if path.startswith(_STDLIB):
            return f"it may be of a newer Python than {_python()}; {_newer_environment('')}"
        if path:
            return f"{path} hides Python's own module {name!r}; rename the file"
    return ""


def _of_an_attribute(error: AttributeError, frames: TracebackType | None) -> str:
    """Of a module that is still being imported: CPython 3.13 does not always say so."""
    module = _kept(error, AttributeError, "obj")
    name = vars(module).get("__name__") if type(module) is ModuleType else None
    return _circular(frames, name) if isinstance(name, str) and name in map(_module, _bodies(frames)) else ""


def _without_its_package(files: list[str], spec: str) -> str:
    """A file of a package was imported by its own name."""
    file = files[-1] if files else ""
    package = os.path.dirname(file)
    folder, name = os.path.split(package)
    if not name.isidentifier():
        return "write an absolute import, such as `from models import NAME`"
    while os.path.exists(os.path.join(folder, "__init__.py")) and os.path.basename(folder).isidentifier():
        folder, outer = os.path.split(folder)
        name = f"{outer}.{name}"
    module, _, rest = spec.partition(":")
    stem = os.path.basename(file).removesuffix(".py")
    if stem != module:
        return f"{file} must be imported as a part of its package: import {name}.{stem}, with {folder} on the path"
    meant = f"{name}.{stem}:{rest}" if rest else f"{name}.{stem}"
    return f"{file} is a part of the package {name}, so name it with that: forkserver --chdir {folder} {meant}"


def _beyond(frames: TracebackType | None, spec: str) -> str:
    """More dots than there are packages: the folder above is none, where it is imported from."""
    last = list(_each(frames))[-1:]
    package = last[0].tb_frame.f_globals.get("__package__") if last else None
    top = package.partition(".")[0] if isinstance(package, str) else ""
    paths = getattr(sys.modules.get(top), "__path__", None)
    parent = os.path.dirname(next(iter(paths), "")) if isinstance(paths, list) and paths else ""
    folder, name = os.path.split(parent)
    way_out = f"the import has more dots than there are packages above {top}; write an absolute import"
    if not name.isidentifier() or not os.path.exists(os.path.join(parent, "__init__.py")):
        return way_out
    return (
        f"{way_out}, or, as {parent} is a package, start it from above that: forkserver --chdir {folder} {name}.{spec}"
    )


def _bodies(frames: TracebackType | None) -> list[FrameType]:
    """The frames that run a module's own lines, so that it is being imported."""
    return [each.tb_frame for each in _each(frames) if each.tb_frame.f_code.co_name == "<module>"]


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _circular(frames: TracebackType | None, name: str) -> str:
    """Modules import each other; or one has the name of the library that it imports."""
    bodies = _bodies(frames)
    chain = [_module(frame) for frame in bodies]
    if name in chain:
        chain = chain[chain.index(name) :]
    if not chain or chain == [name or chain[0]]:
        file = bodies[-1].f_code.co_filename if bodies else "the file"
        return f"{file} has the name of the library that it imports, and so imports itself; rename the file"
    shown = ", which imports ".join([*chain[1:], name or chain[0]])
    return (
        f"{chain[0]} imports {shown}; move one of these imports into the function that needs it, or what both modules "
        "need into a third"
    )


# The interpreter


def newer_syntax(error: SyntaxError, version: tuple[int, ...]) -> str:
    """That the line is right in a newer Python than ``version``, where it looks so; else empty."""
    since, what = _needed(*(_kept_text(error, SyntaxError, each) for each in ("text", "msg")))
    if version >= since:
        return ""
    needed = ".".join(map(str, since))
    way_out = _newer_environment(needed)
    return f"it looks like {what}, which Python {needed} has, and this is {_python()}; {way_out}"


def _needed(line: str, message: str) -> tuple[tuple[int, int], str]:
    """The first version that has what ``line`` looks like, and what that is called."""
    if _TYPE_STATEMENT.match(line):
        return (3, 12), "a type statement"
    if _TYPE_PARAMETERS.match(line):
        return (3, 12), "type parameters in brackets"
    if message.startswith("f-string"):
        return (3, 12), "an f-string with quotes or a backslash in its braces"
    if _EXCEPT.match(line):
        return (3, 14), "several exceptions without brackets"
    if _TEMPLATE.search(line):
        return (3, 14), "a template string"
    return (0, 0), ""


def _python() -> str:
    return f"Python {sys.version_info[0]}.{sys.version_info[1]} ({sys.executable})"


def _newer_environment(version: str) -> str:
    python = f"python{version or '3.N'}"
    return (
        f"make an environment of that: {python} -m venv .venv, then .venv/bin/python -m pip install {DISTRIBUTION} and "
        "what the application needs, and start .venv/bin/forkserver"
    )


# The machine


def _of_the_system(error: OSError) -> str:
    path = _kept_text(error, OSError, "filename")
    read_only_here = _kept(error, OSError, "errno") == errno.EROFS and path
    return read_only.way_out(OSError(errno.EROFS, ""), path) if read_only_here else ""


def _no_memory() -> str:
    limits = (("RLIMIT_AS", "LimitAS=", "ulimit -v"), ("RLIMIT_DATA", "LimitDATA=", "ulimit -d"))
    for name, directive, command in limits:
        soft = resource.getrlimit(getattr(resource, name))[0]
        if soft != resource.RLIM_INFINITY:
            return f"this process may have {readable_size(soft)} ({name}); raise {command}, or {directive} of the unit"
    return "the machine has not so much memory to give; load less while the application is imported, or add memory"
