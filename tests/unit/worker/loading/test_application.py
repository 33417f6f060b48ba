"""From a name to the application, and whose fault it is where there is none."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from forkserver.config import settings
from forkserver.errors import ConfigError, LoadError
from forkserver.worker.loading import application

GOOD = """
import collections, json
from typing import Any

def app(environ, start_response):
    return []

def create_app():
    return app

def make(name, *, debug=False):
    return {"name": name, "debug": debug}[name] if False else app

def none():
    return None

async def asgi(scope, receive, send):
    pass

class Callable:
    def __call__(self, environ, start_response):
        return []

class Asgi:
    async def __call__(self, scope, receive, send):
        pass

class Response:
    def __init__(self, environ, start_response):
        pass
    def __iter__(self):
        return iter([])

class Site:
    class inner:
        app = staticmethod(app)

instance = Callable()
asgi_instance = Asgi()
config = {}
nothing = None
"""


@pytest.fixture(autouse=True)
def _clean_import_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory with the module ``good``, and the process as it was when the test is over."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    module("good", GOOD)
    before, environ = set(sys.modules), dict(os.environ)
    application.enter(settings.defaults())
    yield
    os.environ.clear()
    os.environ.update(environ)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def module(name: str, source: str) -> None:
    path = Path(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


def refusal(spec: str) -> str:
    with pytest.raises(ConfigError) as caught:
        application.resolve(spec)
    assert str(caught.value).startswith(f"application {spec!r}: ")
    return str(caught.value).removeprefix(f"application {spec!r}: ")


def failure(spec: str) -> LoadError:
    with pytest.raises(LoadError) as caught:
        application.resolve(spec)
    return caught.value


# What resolves


@pytest.mark.parametrize(
    "spec",
    [
        "good:app",
        "good",
        "good:create_app()",
        "good:make('name', debug=True)",
        "good:instance",
        "good:Callable()",
        "good:Response",
        "good:Site.inner.app",
        "good: app",
    ],
)
def test_every_form_of_a_name_resolves(spec: str) -> None:
    """All of them are in use with the servers people come from."""
    assert callable(application.resolve(spec))


def test_application_comes_before_app_in_a_module_named_alone() -> None:
    """Django's name is the standard's, and both may be there."""
    module("both", "def application(e, s): return []\ndef app(e, s): return []")
    assert application.resolve("both").__name__ == "application"


def test_a_decorated_application_is_judged_by_what_is_called() -> None:
    """functools.wraps lends it the signature of something else."""
    source = """
        import functools
        def factory(): pass
        @functools.wraps(factory)
        def app(environ, start_response): return []
    """
    module("wrapped", "\n".join(line.strip() for line in source.splitlines()))
    assert callable(application.resolve("wrapped:app"))


def test_a_callable_written_in_c_is_believed() -> None:
    """It tells nothing about its arguments."""
    module("incc", "app = max")
    assert application.resolve("incc:app") is max


# The user's mistake


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("good:create_app", "did you mean `good:create_app()`?"),
        ("good:ap", "did you mean `good:app`?"),
        ("good:creat_app", "did you mean `good:create_app()`?"),
        (
            "good:config",
            "is a dict, not callable (a WSGI application is called with (environ, start_response))",
        ),
        ("good:nothing", "good:nothing is None, not callable"),
        ("good:json", "good:json is the module json, not callable"),
        (
            "good:Callable",
            "is a class, and what it makes is no response; did you mean `good:Callable()`?",
        ),
        ("good:asgi", "good:asgi is an ASGI application (async), and forkserver serves WSGI; wrap it"),
        ("good:asgi_instance", "good:asgi_instance is an ASGI application (async)"),
        ("good:make", "good:make takes (name, *, debug=False), but a WSGI application is called with"),
        ("good:make()", "missing a required argument: 'name'; it takes (name, *, debug=False), so write literals"),
        (
            "good:app()",
            "takes (environ, start_response) and looks like the application itself; leave the brackets out",
        ),
        ("good:none()", "the call returned None; let it return the application"),
        ("good:config()", "a dict cannot be called; leave the brackets out"),
        ("good:asgi()", "an async function"),
        ("good:app.inner", "app in module 'good'"),
        ("good:a b", "'a b' is not a name in a module; write such as good:app, good:obj.attr or good:create_app()"),
        ("good:", "'' is not a name in a module"),
        ("good:app[0]", "'app[0]' is not a name in a module"),
        ("good:make(open)", "'make(open)' is not a name in a module"),
        ("good:make(**{})", "'make(**{})' is not a name in a module"),
        ("good.py", "'good.py' is not a module's name; write good:app"),
        ("good.py:create_app()", "write good:create_app()"),
        ("src/good.py:app", "write src.good:app"),
        ("./src/good:app", "write good:app with --chdir ./src"),
        ("a-b:app", "'a-b' is not a module's name; write such as myapp:app"),
        (":app", "'' is not a module's name"),
        ("god:app", "or elsewhere on sys.path; did you mean good:app?"),
        ("zzzz:app", "or elsewhere on sys.path; give its directory with --chdir or --pythonpath"),
        ("good.app", "'good' is a module, not a package, so it has no 'app'; did you mean good:app?"),
    ],
)
def test_a_name_that_leads_nowhere_is_told(spec: str, message: str) -> None:
    """What was looked for, what there is, and what was probably meant."""
    assert message in refusal(spec)


def test_a_missing_name_lists_what_the_module_has() -> None:
    """Names that were imported there are not its own, and the likeliest comes first."""
    message = refusal("good:zzz")
    assert f"looked for 'zzz' in module 'good' ({os.getcwd()}/good.py), which has app, create_app, " in message
    assert "did you mean `good:app`?" in message
    assert "Any" not in message


def test_a_module_without_either_name_is_told_what_it_has() -> None:
    """The convention is worth a sentence, and a factory its brackets."""
    module("factories", "def make_site():\n    return None\nx = 1")
    message = refusal("factories")
    assert "looked for 'application' and 'app' in module 'factories'" in message
    assert "has make_site; did you mean `factories:make_site()`?" in message
    module("empty", "x = 1")
    assert "has no callable of its own; name another module" in refusal("empty")


def test_packages_lead_to_their_modules() -> None:
    """A Django project's name is not its application's."""
    module("mysite.__init__", "")
    module("mysite.wsgi", "def application(environ, start_response): return []")
    assert "did you mean mysite.wsgi?" in refusal("mysite")
    assert "no module 'wsgj' in the package 'mysite'; did you mean mysite.wsgi:application?" in refusal(
        "mysite.wsgj:application"
    )
    assert "write mysite.wsgi:NAME" in refusal("mysite:wsgi.application")
    assert application.resolve("mysite.wsgi").__name__ == "application"


# The application's failure


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("x = (", "SyntaxError: '(' was never closed (bad.py, line 1)"),
    ],
)
def test_code_that_fails_when_imported_is_the_applications_fault(source: str, what: str) -> None:
    """Its own traceback tells more than any sentence of ours, so it begins where its code does."""
    module("bad", source)
    error = failure("bad:app")
    assert str(error) == f"application 'bad:app' failed while it was imported: {what}"
    assert_begins_in_its_code(error)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'; if it is a library, "),
        ("raise ModuleNotFoundError('own', name='bad')", "ModuleNotFoundError: own; if it is a library, "),
        ("raise SystemExit(3)", "it exited (SystemExit: 3); if that line is for a run as a script, "),
    ],
)
def test_a_failure_that_newcomers_meet_comes_with_what_to_do(source: str, what: str) -> None:
    module("bad", source)
    error = failure("bad:app")
    assert str(error).startswith(f"application 'bad:app' failed while it was imported: {what}")
    assert_begins_in_its_code(error)


def assert_begins_in_its_code(error: LoadError) -> None:
    assert "bad.py" in error.traceback
    assert "importlib" not in error.traceback
    assert os.path.dirname(application.__file__) not in error.traceback


def test_a_factory_that_fails_is_the_applications_fault() -> None:
    """Missing configuration is found there more often than at import."""
    module("bad", "def create_app():\n    raise KeyError('SECRET_KEY')")
    error = failure("bad:create_app()")
    assert str(error) == "application 'bad:create_app()' failed while it was made: KeyError: 'SECRET_KEY'"
    assert error.traceback.splitlines()[1].endswith("line 2, in create_app")


def test_an_attribute_that_fails_is_the_applications_fault() -> None:
    """A lazy module may do anything when it is asked."""
    module("lazy", "def __getattr__(name):\n    raise RuntimeError(name)")
    assert str(failure("lazy:app")).endswith("failed while it was looked up: RuntimeError: app")


def test_an_interrupt_is_no_fault() -> None:
    """Ctrl-C during a long import must end the program."""
    module("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        application.resolve("slow:app")


# Classes


def test_a_class_of_the_right_base_is_found() -> None:
    """server_class and handler_class name one."""
    found = application.resolve_class(
        "wsgiref.simple_server:WSGIRequestHandler", BaseHTTPRequestHandler, "handler_class"
    )
    assert issubclass(found, BaseHTTPRequestHandler)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("good:Site", "handler_class 'good:Site': a class, but not a subclass of http.server.BaseHTTPRequestHandler"),
        ("good:config", "handler_class 'good:config': a dict, not a subclass of"),
        ("good:Sitee", "handler_class 'good:Sitee': looked for 'Sitee' in module 'good'"),
        ("zzzz:Handler", "handler_class 'zzzz:Handler': no module 'zzzz' in"),
    ],
)
def test_another_class_is_refused(spec: str, message: str) -> None:
    """With the setting's name, for the application's is not at fault."""
    with pytest.raises(ConfigError) as caught:
        application.resolve_class(spec, BaseHTTPRequestHandler, "handler_class")
    assert message in str(caught.value)


# The surroundings


def test_enter_puts_the_directory_and_the_paths_first(tmp_path: Path) -> None:
    """A stale copy elsewhere on the path must not win, and relative paths start in the application's directory."""
    site = tmp_path / "releases" / "1"
    (site / "lib").mkdir(parents=True)
    link = tmp_path / "current"
    link.symlink_to(site)
    application.enter(settings.defaults(chdir=str(link), pythonpath=["lib", "/srv/more"], env=["A_B=1=2"]))
    assert sys.path[:3] == [str(site / "lib"), "/srv/more", str(site)]
    assert sys.path.count(str(site)) == 1
    assert os.getcwd() == str(site)
    assert os.environ["A_B"] == "1=2"


def test_enter_finds_modules_made_since(tmp_path: Path) -> None:
    """The finders remember directories; a deploy adds files."""
    refusal("fresh:app")
    module("fresh", "def app(environ, start_response): return []")
    application.enter(settings.defaults())
    assert callable(application.resolve("fresh:app"))


def test_enter_tells_of_a_directory_that_is_gone() -> None:
    """It was there when the settings were read."""
    with pytest.raises(ConfigError, match="chdir 'gone': no such file or directory; fix that"):
        application.enter(settings.defaults(chdir="gone"))


def test_prints_come_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a block buffer they would show up after the worker's death, or never."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, line_buffering=False))
    application.enter(settings.defaults())
    print("hello")
    assert raw.getvalue() == b"hello\n"


@pytest.mark.parametrize("buffering", [-1, 0], ids=["as usual", "with PYTHONUNBUFFERED"])
def test_in_development_parts_of_lines_come_out_at_once_too(monkeypatch: pytest.MonkeyPatch, buffering: int) -> None:
    """A row of dots that shows progress, or a question before the answer is read."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as read, open(writer, "wb", buffering=buffering) as below:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(below))
        application.enter(settings.defaults(dev="on"))
        print(".", end="")
        sys.stdout.buffer.write(b"!")
        assert sys.stdout.fileno() == writer
        os.set_blocking(reader, False)
        assert read.read(10) == b".!"


@pytest.mark.parametrize(
    ("then", "status", "said"),
    [
        ("pass", 1, "came back"),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit('why')", 1, "why"),
        ("raise ValueError('x')", 1, "ValueError: x"),
    ],
)
@pytest.mark.parametrize("where", ["import", "call"])
def test_a_child_that_comes_back_from_the_application_s_code_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, then: str, status: int, said: str
) -> None:
    """It went on as the process that had forked it, and spoke to the master in its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    body = f"""
import os, sys
pid = os.fork()
if pid == 0:
    sys.stderr = open({str(tmp_path / "said")!r}, "w")
    {then}
else:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
    module, path = f"forking_{where}", tmp_path / f"forking_{where}.py"
    if where == "import":
        path.write_text(f"{body}\ndef app(environ, start_response): return status\n")
    else:
        indented = body.replace("\n", "\n    ")
        path.write_text(f"def make():{indented}\n    return lambda environ, start_response: status\n")
    app: Any = application.resolve(f"{module}:{'app' if where == 'import' else 'make()'}")
    del sys.modules[module]
    assert app({}, None) == status
    assert said in (tmp_path / "said").read_text()
