"""What is wrong with an object that was named as an application, in a sentence with the way out.

The sentences for whole names, such as ``myapp:creat_app``, are tested where names are resolved (test_application.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from forkserver.worker.loading import load_errors


def module(**names: Any) -> ModuleType:
    made = ModuleType("site")
    for value in names.values():
        if isinstance(value, type) or hasattr(value, "__code__"):
            value.__module__ = "site"
    vars(made).update(names)
    return made


def wsgi(environ: object, start_response: object) -> list[bytes]:
    return []


@pytest.mark.parametrize(
    ("thing", "words"),
    [(None, "None"), ({}, "a dict"), (7, "an int"), (json, "the module json"), (ImportError(), "an ImportError")],
)
def test_a_thing_has_its_article(thing: object, words: str) -> None:
    assert load_errors.a(thing) == words


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("SECRET"), "KeyError: 'SECRET'"),
        (ValueError(), "ValueError"),
        (RuntimeError("first\nsecond"), "RuntimeError: first"),
        (SystemExit(3), "it exited (SystemExit: 3)"),
        (SyntaxError("never closed", ("site.py", 7, 1, "(")), "SyntaxError: never closed (site.py, line 7)"),
    ],
)
def test_an_error_is_one_line(error: BaseException, line: str) -> None:
    assert load_errors.one_line(error) == line


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("site.py", "write site:app"),
        ("src/site.py:make()", "write src.site:make()"),
        ("/srv/site/wsgi.py", "write wsgi:app with --chdir /srv/site"),
        ("my-site", "write such as myapp:app"),
    ],
)
def test_a_path_leads_to_the_name_of_its_module(spec: str, hint: str) -> None:
    assert load_errors.module_hint(spec) == hint


def test_a_missing_module_is_compared_with_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mysite.py").touch()
    told = load_errors.missing_module("mysit.wsgi", "mysit", ":app")
    assert told == f"no module 'mysit' in {tmp_path} or elsewhere on sys.path; did you mean mysite.wsgi:app?"
    told = load_errors.missing_module("json.decoderr", "json.decoderr", ":app")
    assert told == "no module 'decoderr' in the package 'json'; did you mean json.decoder:app?"
    assert load_errors.missing_module("json.zzzz", "json.zzzz", "").endswith("in the package 'json'; name another")


def test_the_likeliest_callable_is_offered_first() -> None:
    def create_site() -> Callable[..., object]:
        return wsgi

    def about() -> None: ...

    found = load_errors.callables(module(about=about, create_site=create_site, app=partial(wsgi), _hidden=about, x=1))
    assert found == ["create_site", "about"], "a partial is the stdlib's, not the module's own"
    assert load_errors.callables(module(app=wsgi, application=wsgi, about=about)) == ["application", "app", "about"]


def test_a_class_is_offered_where_a_class_is_wanted() -> None:
    class Handler: ...

    told = load_errors.missing_attribute(module(Handler=Handler, app=wsgi), "", None, "Handlr", call=False)
    assert told == "looked for 'Handlr' in module 'site', which has Handler; did you mean `site:Handler`?"
    told = load_errors.missing_attribute(module(app=wsgi), "", None, "Handler", call=False)
    assert told == "looked for 'Handler' in module 'site', which has no class of its own; name another module"


def test_a_call_is_refused_only_where_its_arguments_do_not_fit() -> None:
    async def coroutine() -> None: ...

    def make(name: str) -> None: ...

    assert load_errors.refuses_call(make, ["x"], {}) is None
    assert load_errors.refuses_call(max, [], {}) is None, "written in C: it does not tell"
    told = load_errors.refuses_call(make, [], {"debug": True})
    assert told is not None
    assert "so write literals for them in the brackets" in told
    assert "coroutine" in str(load_errors.refuses_call(coroutine, [], {}))
    assert "leave the brackets out" in str(load_errors.refuses_call(wsgi, [], {}))


class Response:
    """Its instance is the response, as PEP 3333 allows."""

    def __init__(self, environ: object, start_response: object) -> None: ...

    def __iter__(self) -> object:
        return iter(())


class Instance:
    def __call__(self, environ: object, start_response: object) -> object:
        return []


class Asgi:
    async def __call__(self, scope: object, receive: object, send: object) -> None: ...


@pytest.mark.parametrize("found", [wsgi, Response, Instance(), partial(wsgi), max])
def test_what_can_be_called_as_pep_3333_says_is_an_application(found: object) -> None:
    assert load_errors.not_an_application("site:app", found, module(app=wsgi)) is None


@pytest.mark.parametrize(
    ("name", "found", "told"),
    [
        ("site:app", {}, "site:app is a dict, not callable (a WSGI application is called with (environ, start_respons"),
        ("site:make()", {}, "; let it return the application"),
        ("site:app", Asgi(), "site:app is an ASGI application (async), and forkserver serves WSGI; wrap it"),
        ("site:App", Instance, "site:App is a class, and what it makes is no response; did you mean `site:App()`?"),
        ("site:App", ValueError, "name an instance that can be called"),
        (
            "site:make",
            lambda: None,
            "but a WSGI application is called with (environ, start_response); did you mean",
        ),
        ("site:make", lambda one: None, "if it is a factory, write its arguments: `site:make('VALUE')`"),
    ],
)
def test_what_cannot_is_told_with_the_way_out(name: str, found: object, told: str) -> None:
    assert told in str(load_errors.not_an_application(name, found, module(app=wsgi)))


_PLAIN = """
import functools, sys
from forkserver.worker.loading import load_errors

class Application:
    def __call__(self, environ, start_response): ...
    def method(self, environ, start_response, more=None): ...

def function(environ, start_response): ...

module = sys.modules["__main__"]
for found in (function, Application(), Application().method, lambda *arguments: []):
    assert load_errors.not_an_application("app", found, module) is None
assert "inspect" not in sys.modules
assert load_errors.not_an_application("app", lambda environ: [], module)
"""


def test_a_plain_application_is_known_for_one_without_the_module_inspect() -> None:
    """It takes 10 ms of a start."""
    search = f"import sys; sys.path[:] = {sys.path!r}"
    subprocess.run([sys.executable, "-I", "-S", "-c", search + _PLAIN], check=True)


@pytest.mark.parametrize(
    "found",
    [
        lambda environ: [],
        lambda environ, start_response, more: [],
        lambda environ, start_response, *, more: [],
        lambda *, environ, start_response: [],
        partial(wsgi, None),
    ],
)
def test_what_takes_no_two_arguments_is_no_application(found: Callable[..., Any]) -> None:
    assert load_errors.not_an_application("app", found, module()) is not None


@pytest.mark.parametrize(
    "found",
    [
        lambda environ, start_response, more=None, **named: [],
        lambda environ, *rest: [],
        lambda environ, start_response, *, more=None: [],
        partial(lambda more, environ, start_response: [], None),
    ],
)
def test_what_takes_two_arguments_is_an_application(found: Callable[..., Any]) -> None:
    assert load_errors.not_an_application("app", found, module()) is None
