"""What is wrong with an object that was named as an application, and which one was probably meant.

Each function returns a sentence: what was found, and the way out. Nothing is imported, called or raised.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from forkserver.config.values.spelling import nearest

if TYPE_CHECKING:
    from inspect import Signature

# Modules that are imported in functions here are for what is wrong or unusual: no start waits for them. A template that
# gives up root's rights has them before (late_modules.py).
_FACTORY_WORDS: Final = ("create", "make", "get", "build", "new", "factory")
_NO_APPLICATIONS: Final = ("typing", "collections.abc", "functools", "builtins")
_CO_VARARGS, _CO_COROUTINE = 0x04, 0x80  # as inspect has them
_CALLED: Final = "a WSGI application is called with (environ, start_response)"


def a(thing: object) -> str:
    """What ``thing`` is, with its article: ``a dict``, ``the module json``, ``None``."""
    if thing is None:
        return "None"
    if isinstance(thing, ModuleType):
        return f"the module {thing.__name__}"
    name = type(thing).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def one_line(error: BaseException) -> str:
    """``error`` as the last line of its traceback would name it."""
    if isinstance(error, SystemExit):
        return f"it exited (SystemExit: {error.code})"
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"  # with file and line
    described = traceback.TracebackException(type(error), error, None).format_exception_only()
    return "".join(described).splitlines()[0]


def module_hint(spec: str) -> str:
    """How the module of ``spec`` should be written, where a path was given."""
    path, _, rest = spec.partition(":")
    folder, _, file = path.removesuffix(".py").rpartition("/")
    name = file if folder.startswith(("/", ".")) else path.removesuffix(".py").replace("/", ".")
    if not all(part.isidentifier() for part in name.split(".")):
        return "write such as myapp:app"
    chdir = f" with --chdir {folder}" if folder.startswith(("/", ".")) else ""
    return f"write {name}:{rest or 'app'}{chdir}"


def missing_module(name: str, missing: str, rest: str) -> str:
    """That the module ``name`` is not there, as ``missing`` (itself or a parent) is not; ``rest`` followed its name."""
    where = f"no module {missing!r} in {os.getcwd()} or elsewhere on sys.path"
    import pkgutil

    from forkserver.worker.loading import missing_modules

    parent, _, last = missing.rpartition(".")
    if not parent:
        known = [module.name for module in pkgutil.iter_modules([os.getcwd()])]
    else:
        package = sys.modules.get(parent)
        folders = getattr(package, "__path__", None)
        if folders is None:
            return f"{parent!r} is a module, not a package, so it has no {last!r}; did you mean {parent}:{last}?"
        where = f"no module {last!r} in the package {parent!r}"
        known = [module.name for module in pkgutil.iter_modules(folders)]
    if not parent and (folder := missing_modules.folder_with(last)):
        return f"{where}, but {folder} has it; add --pythonpath {folder}"
    near = nearest(last, known)
    if near:
        meant = ".".join(filter(None, (parent, near))) + name[len(missing) :] + rest
        return f"{where}; did you mean {meant}?"
    return f"{where}; " + ("name another" if parent else "give its directory with --chdir or --pythonpath")


def missing_attribute(module: ModuleType, owner: str, found: object, part: str, call: bool = True) -> str:
    """That ``part`` is not in ``found``, which is ``owner`` in ``module``, or the module itself."""
    from importlib.util import find_spec

    if owner:
        return f"{owner} in {_module(module)} is {a(found)} and has no attribute {part!r}; name one that it has"
    if hasattr(module, "__path__") and find_spec(f"{module.__name__}.{part}"):
        return f"looked for {part!r} in the package {module.__name__!r}; write {module.__name__}.{part}:NAME"
    names = callables(module) if call else _classes(module)
    near = nearest(part, [name for name in vars(module) if not name.startswith("__")])
    if near in names:
        names = [near, *(name for name in names if name != near)]
    return f"looked for {part!r} in {_module(module)}, which {_offer(module, names, call)}"


def no_convention(module: ModuleType) -> str:
    """That a module named alone has neither of the two conventional names."""
    from importlib.util import find_spec

    looked = f"looked for 'application' and 'app' in {_module(module)}"
    names = callables(module)
    if not names and hasattr(module, "__path__") and find_spec(f"{module.__name__}.wsgi"):
        return f"{looked}, a package with a module 'wsgi'; did you mean {module.__name__}.wsgi?"
    return f"{looked}, which {_offer(module, names, call=True)}"


def callables(module: ModuleType) -> list[str]:
    """Names in ``module`` that might be meant as an application, the likeliest first."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    found = [name for name, value in public.items() if _is_own_callable(module, value)]
    likely = {"application": 0, "app": 1}
    return sorted(found, key=lambda name: (likely.get(name, 3 - _is_factory_name(name)), name))


def refuses_call(factory: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> str | None:
    """Why ``factory`` cannot be called with these arguments, or None where it can, or that is not known."""
    if _is_coroutine(factory):
        return "an async function, and its result would be a coroutine; name a plain function"
    signature = _signature(factory)
    try:
        if signature is not None:
            signature.bind(*arguments, **named)
    except TypeError as error:
        if not arguments and not named and _takes_wsgi(signature):
            return f"it takes {signature} and looks like the application itself; leave the brackets out"
        return f"the call fails: {error}; it takes {signature}, so write literals for them in the brackets"
    return None


def not_an_application(name: str, found: Any, module: ModuleType) -> str | None:
    """Why ``found``, named ``name``, cannot be called as PEP 3333 says, or None where it can, or that is not known."""
    if not callable(found):
        way_out = f"{_module(module)} {_offer(module, callables(module), call=True)}"
        if "(" in name:
            way_out = "let it return the application"
        return f"{name} is {a(found)}, not callable ({_CALLED}); {way_out}"
    if _is_async(found):
        module_name, _, path = name.partition(":")
        return (
            f"{name} is an ASGI application (async), and forkserver serves WSGI; wrap it (pip install a2wsgi, then in "
            f"{module_name}: wsgi = a2wsgi.ASGIMiddleware({path})), or serve it with an ASGI server (uvicorn {name})"
        )
    if _takes_two_by_place(found):
        return _not_a_factory(name, found)
    signature = _signature(found)
    if isinstance(found, type):
        return _not_an_application_class(name, found, signature)
    if signature is None or _takes_wsgi(signature):
        return None
    if _binds(signature) and "(" not in name:
        return f"{name} takes {signature}, but {_CALLED}; did you mean `{name}()`?"
    if "(" not in name and _is_factory_name(name.rpartition(":")[2]):
        return f"{name} takes {signature}, but {_CALLED}; if it is a factory, write its arguments: `{name}('VALUE')`"
    return f"{name} takes {signature}, but {_CALLED}; name one that does"


def _not_a_factory(name: str, found: Any) -> str | None:
    """That ``found``, which can be called with two arguments, is meant to be called with none, as its name says."""
    defaults = found.__defaults__ if isinstance(found, FunctionType) else None
    if not _is_factory_name(name.rpartition(":")[2]) or len(defaults or ()) < 2:
        return None
    if len(defaults or ()) < found.__code__.co_argcount:
        return None
    return (
        f"{name} takes {_signature(found)}, all of it optional, as a factory does ({_CALLED}); did you mean `{name}()`?"
    )


def _not_an_application_class(name: str, found: type, signature: Signature | None) -> str | None:
    # PEP 3333 allows a class: its instance is then the response, so it must be iterable.
    iterable = hasattr(found, "__iter__") or hasattr(found, "__getitem__")
    if iterable and (signature is None or _takes_wsgi(signature)):
        return None
    called = any("__call__" in vars(base) for base in found.__mro__)
    way_out = f"did you mean `{name}()`?" if called else "name an instance that can be called"
    return f"{name} is a class, and what it makes is no response; {way_out}"


def _classes(module: ModuleType) -> list[str]:
    return sorted(name for name, value in vars(module).items() if isinstance(value, type) and not name.startswith("_"))


def _offer(module: ModuleType, names: list[str], call: bool) -> str:
    """What there is instead of what was looked for, and the first of it as a question."""
    if not names:
        return f"has no {'callable' if call else 'class'} of its own; name another module"
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    first = names[0]
    value = vars(module)[first]
    brackets = "()" if call and _is_factory(first, value) else ""
    return f"has {shown}; did you mean `{module.__name__}:{first}{brackets}`?"


def _module(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return f"module {module.__name__!r}" + (f" ({file})" if file else "")


def _is_own_callable(module: ModuleType, value: Any) -> bool:
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return value.__module__ == module.__name__
    return callable(value) and type(value).__module__ not in _NO_APPLICATIONS


def _is_factory_name(name: str) -> bool:
    return any(word in _FACTORY_WORDS for word in name.lower().split("_"))


def _is_factory(name: str, value: Any) -> bool:
    signature = _signature(value)
    return signature is not None and _binds(signature) and (isinstance(value, type) or not _takes_wsgi(signature))


def _is_async(found: Any) -> bool:
    if isinstance(found, type):
        return False
    return _is_coroutine(found) or _is_coroutine(type(found).__call__)


def _is_coroutine(found: Any) -> bool:
    """Whether a call gives a coroutine, as inspect.iscoroutinefunction says."""
    while isinstance(found, MethodType | partial):
        found = found.func if isinstance(found, partial) else found.__func__
    marked = hasattr(found, "_is_coroutine_mark")  # inspect.markcoroutinefunction, of Python 3.12
    return marked or (isinstance(found, FunctionType) and bool(found.__code__.co_flags & _CO_COROUTINE))


def _signature(found: Any) -> Signature | None:
    try:
        from inspect import signature

        # What a decorator put around it is what will be called, so its signature counts, not the wrapped one's.
        return signature(found, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # written in C without one


def _takes_two_by_place(found: Any) -> bool:
    """Whether ``found`` is called by code in Python that plainly takes two arguments; if not, a closer look tells."""
    function, its_own = (found, 0) if isinstance(found, FunctionType) else (type(found).__call__, 1)
    if isinstance(found, MethodType):
        function = found.__func__
    if not isinstance(function, FunctionType):
        return False
    code = function.__code__
    needed = code.co_argcount - len(function.__defaults__ or ())
    by_name = code.co_kwonlyargcount - len(function.__kwdefaults__ or ())
    most = code.co_argcount if not code.co_flags & _CO_VARARGS else sys.maxsize
    return needed <= its_own + 2 <= most and not by_name


def _binds(signature: Signature, *arguments: object) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _takes_wsgi(signature: Signature | None) -> bool:
    return signature is not None and _binds(signature, {}, None)
