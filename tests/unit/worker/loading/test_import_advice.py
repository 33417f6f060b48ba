"""What to do about an import that has failed: the cause where it shows, a guess where that is likely, else nothing.

The sentences for whole programs are in tests/live/test_first_mistakes.py.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from forkserver.worker.loading import import_advice


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def advice(module: str) -> str:
    """On the failure of ``module``, as it is told for the application ``module:app``."""
    with pytest.raises((ImportError, AttributeError)) as caught:
        __import__(module)
    error = caught.value
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    while frames is not None and "importlib" in frames.tb_frame.f_code.co_filename:
        frames = frames.tb_next
    return import_advice.of(error, frames, f"{module}:app")


@pytest.mark.parametrize(
    ("line", "version", "what"),
    [
        ("type X = int", (3, 11), "a type statement, which Python 3.12 has"),
        ("type Pair[T] = tuple[T, T]", (3, 11), "a type statement"),
        ("async def first[T](x: list[T]) -> T: ...", (3, 11), "type parameters in brackets"),
        ("class Box[T]:", (3, 11), "type parameters in brackets"),
        ("except KeyError, ValueError:", (3, 13), "several exceptions without brackets, which Python 3.14 has"),
        ("name = t'{x}'", (3, 13), "a template string, which Python 3.14 has"),
    ],
)
def test_a_line_of_a_newer_python_is_recognised(line: str, version: tuple[int, int], what: str) -> None:
    error = SyntaxError("invalid syntax", ("site.py", 1, 1, line))
    assert f"it looks like {what}" in import_advice.newer_syntax(error, version)
    assert import_advice.newer_syntax(error, (3, 14)) == ""


@pytest.mark.parametrize(
    "line", ["x = (", "def f(:", "print 'x'", "type = int int", "exceptional, = 1 1", "", "cat'x'"]
)
def test_any_other_line_is_not_guessed_about(line: str) -> None:
    assert import_advice.newer_syntax(SyntaxError("invalid syntax", ("site.py", 1, 1, line)), (3, 11)) == ""
    assert import_advice.newer_syntax(SyntaxError(), (3, 11)) == ""


def test_an_f_string_of_python_3_12_is_recognised_by_what_the_parser_says() -> None:
    error = SyntaxError("f-string expression part cannot include a backslash", ("site.py", 1, 1, "f'{a}'"))
    assert "an f-string with quotes or a backslash" in import_advice.newer_syntax(error, (3, 11))


def test_a_name_that_the_standard_library_does_not_have_may_be_of_a_newer_python(site: Path) -> None:
    (site / "advised_new.py").write_text("from typing import OfNoVersion\n")
    assert advice("advised_new").startswith("it may be of a newer Python than Python 3.")


def test_more_dots_than_packages_lead_to_the_package_above(site: Path) -> None:
    for name in ("advised_top/__init__.py", "advised_top/inner/__init__.py"):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).touch()
    (site / "advised_top/inner/wsgi.py").write_text("from ...models import X\n")
    told = advice("advised_top.inner.wsgi")
    assert told == "the import has more dots than there are packages above advised_top; write an absolute import"


def test_a_partly_imported_module_that_lacks_an_attribute_is_a_circle(site: Path) -> None:
    (site / "advised_one.py").write_text("import advised_two\n")
    (site / "advised_two.py").write_text("import advised_one\nadvised_one.app\n")
    assert advice("advised_one").startswith("advised_one imports advised_two, which imports advised_one; move one of")


def test_an_error_that_only_says_read_only_without_a_path_is_left_alone() -> None:
    assert import_advice.of(OSError(errno.EROFS, "Read-only file system"), None, "site:app") == ""
    assert "ReadWritePaths=/srv, " in import_advice.of(OSError(errno.EROFS, "x", "/srv/x"), None, "site:app")


def test_an_exception_of_the_applications_is_not_asked_anything() -> None:
    class Hostile(ImportError):
        name = msg = path = property(lambda self: 1 / 0)  # type: ignore[assignment]

        def __str__(self) -> str:
            raise AssertionError("asked")

    class ImproperlyConfigured(Exception):
        def __str__(self) -> str:
            raise AssertionError("asked")

    assert import_advice.of(ImproperlyConfigured(), None, "site:app") == ""
    assert import_advice.of(RuntimeError("no database"), None, "site:app") == ""
    assert import_advice.of(ImportError(), None, "site:app") == ""
    assert import_advice.of(Hostile(), None, "site:app") == ""
