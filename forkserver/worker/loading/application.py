"""From a name such as ``myapp:create_app()`` to the application, in the process that is to run it.

Two faults are told apart: the user's (a name that leads nowhere: ConfigError, with what was looked for and what there
is) and the application's (its code fails while imported: LoadError, with its traceback and none of ours). The master
never calls this: it imports no application.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from keyword import iskeyword
from os import getpid  # the built-in function, whatever an application puts in its place
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from forkserver.config.settings import Settings
from forkserver.errors import PACKAGE, ConfigError, LoadError
from forkserver.linux.common.records import NamedTuple
from forkserver.worker.loading import env_files, load_errors, server_starts

if TYPE_CHECKING:
    import ast

    from _typeshed import ReadableBuffer

_OURS: Final = PACKAGE + os.sep
_IMPORT_SYSTEM: Final = ("<frozen importlib", importlib.__file__)


class _Name(NamedTuple):
    """An application's name taken apart; ``arguments`` is None where it is not called."""

    spec: str
    module: str
    path: tuple[str, ...]
    arguments: tuple[list[Any], dict[str, Any]] | None


def set_environment(settings: Settings, directory: str = "") -> None:
    """Have the variables of ``env_file`` and ``env``, before modules of the standard library read theirs on import.

    Relative names are meant from ``directory``, the current one where it is empty. Raises ConfigError.
    Source: https://docs.python.org/3/library/zoneinfo.html on PYTHONTZPATH, openssl-env(7) on OPENSSL_CONF.
    """
    for pair in env_files.variables(settings, directory):
        key, _, value = pair.partition("=")
        os.environ[key] = value


def enter(settings: Settings, directory: str = "") -> None:
    """Make this process the application's: its directory, import path, environment, and prints that come out at once.

    Directories are entered by their path, so after a switched link this is the new release. ``directory`` is as in
    ``set_environment``, which has read the files already. Raises ConfigError.
    """
    if settings.chdir is not None:
        try:
            os.chdir(settings.chdir)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise ConfigError(f"chdir {settings.chdir!r}: {reason}; fix that or name another directory") from None
    wanted = list(dict.fromkeys([*map(os.path.abspath, settings.pythonpath), os.getcwd()]))
    sys.path[:] = [*wanted, *(path for path in sys.path if path not in wanted)]
    set_environment(settings, directory)
    importlib.invalidate_caches()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
        if settings.dev == "on":
            sys.stdout = _unbuffered(sys.stdout)


class _AtOnce(io.BufferedWriter):
    """A buffer in place of that of ``stream``, which keeps nothing back. Unlike a file, it writes all it is given."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        file = io.FileIO(stream.fileno(), "wb", closefd=False)
        file.name = stream.name
        super().__init__(file)
        self._stream = stream  # which would close its file with its end

    def write(self, data: ReadableBuffer) -> int:
        written = super().write(data)
        self.flush()
        return written


def _unbuffered(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """``stream``, of which parts of lines come out at once, too: ``write_through`` takes them to its buffer alone."""
    stream.reconfigure(write_through=True)
    if type(stream.buffer) is not io.BufferedWriter:  # under PYTHONUNBUFFERED it is the file itself
        return stream
    return io.TextIOWrapper(_AtOnce(stream), stream.encoding, stream.errors, line_buffering=True, write_through=True)


def resolve(spec: str) -> Callable[..., Any]:
    """The WSGI application that ``spec`` names: mod:app, mod:obj.attr, mod:factory(), or mod.

    Arguments in the brackets may be literals. Raises ConfigError and LoadError.
    """
    name = _parse(spec)
    module = _import(name.module, spec)
    if not name.path:
        return _usable(spec, *_by_convention(spec, module), module)
    found = _follow(spec, module, name.path)
    if name.arguments is None:
        return _usable(spec, spec, found, module)
    made = _call(spec, found, *name.arguments)
    if made is None:
        raise ConfigError(f"application {spec!r}: the call returned None; let it return the application")
    return _usable(spec, spec, made, module)


def resolve_class(spec: str, base: type, setting: str) -> type:
    """The class that ``spec`` (MODULE:CLASS) names in ``setting``. Raises ConfigError, LoadError."""
    module_name, _, path = spec.partition(":")
    module = _import(module_name, spec, setting)
    found = _follow(spec, module, tuple(path.split(".")), setting)
    if not isinstance(found, type) or not issubclass(found, base):
        wanted = f"a subclass of {base.__module__}.{base.__name__}"
        what = "a class, but not" if isinstance(found, type) else f"{load_errors.a(found)}, not"
        raise ConfigError(f"{setting} {spec!r}: {what} {wanted}; name one that is")
    return found


def load_module(name: str, setting: str) -> ModuleType:
    """The module that ``setting`` names. Raises ConfigError, LoadError."""
    return _import(name, name, setting)


# The name


def _parse(spec: str) -> _Name:
    module, colon, expression = spec.partition(":")
    if module.endswith(".py") or not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(f"application {spec!r}: {module!r} is not a module's name; {load_errors.module_hint(spec)}")
    if not colon:
        return _Name(spec, module, (), None)
    path = tuple(expression.strip().split("."))
    if all(part.isascii() and part.isidentifier() and not iskeyword(part) for part in path):
        return _Name(spec, module, path, None)
    import ast  # late: seldom needed

    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        arguments = None
        if isinstance(tree, ast.Call):
            named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in tree.keywords if keyword.arg}
            if len(named) != len(tree.keywords):
                raise ValueError("** in the call")
            arguments = [ast.literal_eval(argument) for argument in tree.args], named
            tree = tree.func
        return _Name(spec, module, _dotted(tree), arguments)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ConfigError(
            f"application {spec!r}: {expression!r} is not a name in a module; "
            f"write such as {module}:app, {module}:obj.attr or {module}:create_app()"
        ) from None


def _dotted(tree: ast.expr) -> tuple[str, ...]:
    import ast

    if isinstance(tree, ast.Attribute):
        return (*_dotted(tree.value), tree.attr)
    if isinstance(tree, ast.Name):
        return (tree.id,)
    raise ValueError("not a dotted name")


# From the name to an object


def _import(name: str, spec: str, setting: str = "application") -> ModuleType:
    missing = ""
    with _running(spec, setting, "imported"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if _app_frames(error.__traceback__) is not None or not f"{name}.".startswith(f"{missing}."):
                raise
    raise ConfigError(f"{setting} {spec!r}: {load_errors.missing_module(name, missing, spec[len(name) :])}")


def _follow(spec: str, module: ModuleType, path: tuple[str, ...], setting: str = "application") -> Any:
    found: Any = module
    for at, part in enumerate(path):
        owner, missing = found, object()
        with _running(spec, setting, "looked up"):  # a property, or the module's own __getattr__
            found = getattr(owner, part, missing)
        if found is missing:
            why = load_errors.missing_attribute(module, ".".join(path[:at]), owner, part, call=setting == "application")
            raise ConfigError(f"{setting} {spec!r}: {why}")
    return found


def _by_convention(spec: str, module: ModuleType) -> tuple[str, Any]:
    """The application of a module that was named alone, and the name that was found."""
    for name in ("application", "app"):
        with suppress(AttributeError):
            return f"{spec}:{name}", getattr(module, name)
    raise ConfigError(f"application {spec!r}: {load_errors.no_convention(module)}")


def _call(spec: str, factory: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
    if not callable(factory):
        raise ConfigError(f"application {spec!r}: {load_errors.a(factory)} cannot be called; leave the brackets out")
    if why := load_errors.refuses_call(factory, arguments, named):
        raise ConfigError(f"application {spec!r}: {why}")
    with _running(spec, "application", "made"):
        return factory(*arguments, **named)


def _usable(spec: str, name: str, found: Any, module: ModuleType) -> Callable[..., Any]:
    if why := load_errors.not_an_application(name, found, module):
        raise ConfigError(f"application {spec!r}: {why}")
    application: Callable[..., Any] = found
    return application


# A child of the application's


@contextmanager
def _forks_end_here() -> Iterator[None]:
    """End a child that the application forks in the block and that leaves it, however it does.

    It would go on as the process that loads the application, and speak to the master in its name.
    """
    parent = getpid()
    try:
        yield
    except BaseException as error:
        if getpid() != parent:
            _end_child(error)
        raise
    if getpid() != parent:
        _end_child(None)


def _end_child(error: BaseException | None) -> NoReturn:
    """End with the status that ``error`` has in a program of its own; without one say why, for it had more to do."""
    try:
        if error is None:
            error = SystemExit("a child that was forked while the application was loaded came back from that; it ends")
        if not isinstance(error, SystemExit):
            traceback.print_exception(error)
        elif isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    finally:
        code = error.code if isinstance(error, SystemExit) else 1
        os._exit(code & 0xFF if isinstance(code, int) else int(code is not None))


# The application's own failure


@contextmanager
def _running(spec: str, setting: str, when: str) -> Iterator[None]:
    """Raise a LoadError for what the application raises in the block; its traceback begins in the application's code.

    SystemExit counts too: an application that exits while it is imported has failed.
    """
    try:
        with _forks_end_here(), server_starts.refused():
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        from forkserver.worker.loading import import_advice  # late: seldom needed

        frames = _app_frames(error.__traceback__)
        told = traceback.TracebackException(type(error), error, frames)
        while told.stack and told.stack[-1].filename.startswith(_OURS):
            told.stack.pop()
        what = load_errors.one_line(error)
        if advice := import_advice.of(error, frames, spec):
            what = f"{what.rstrip('.')}; {advice}"
        raise LoadError(f"{setting} {spec!r} failed while it was {when}: {what}", "".join(told.format())) from None


def _app_frames(frames: TracebackType | None) -> TracebackType | None:
    """``frames`` from the first that is neither ours nor the import system's, or None."""
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if not file.startswith((_OURS, *_IMPORT_SYSTEM)):
            return frames
        frames = frames.tb_next
    return None
