"""Where in the code something happens, and whose code that is."""

from __future__ import annotations

import sys
import threading
from types import FrameType

import pytest

from forkserver.worker.fork_safety import code_places


@pytest.mark.parametrize(
    ("file", "whose"),
    [
        ("<frozen importlib._bootstrap>", "import"),
        ("<frozen os>", "stdlib"),
        ("<string>", "generated"),
        (threading.__file__, "stdlib"),
        (code_places.__file__, "ours"),
        (pytest.__file__, "installed"),
        ("/usr/lib/python3/dist-packages/x.py", "installed"),
        ("/srv/site/models.py", "application"),
    ],
)
def test_code_is_known_by_its_file(file: str, whose: str) -> None:
    assert code_places.kind_of(file) == whose


def frame_of(file: str, module: str, line: int) -> FrameType:
    """A frame of code in ``file``, called by the caller of this function."""
    blank = "\n" * (line - 1)
    names: dict[str, object] = {"__name__": module, "here": sys._getframe}
    exec(compile(f"{blank}frame = here()", file, "exec"), names)
    frame = names["frame"]
    assert isinstance(frame, FrameType)
    return frame


def test_a_place_is_the_library_s_line_and_the_application_s() -> None:
    frame = sys._getframe()
    assert code_places.place(frame) == f"{__name__}:{frame.f_lineno}"
    assert code_places.place(None) == ""


def test_a_line_of_a_library_is_told_with_the_line_that_led_to_it() -> None:
    """The line to change is the application's; the one to understand is the library's."""
    library = frame_of("/srv/venv/site-packages/pool.py", "pool", 12)
    assert code_places.place(library).startswith(f"pool:12, by {__name__}:")


@pytest.mark.parametrize("file", [threading.__file__, "<frozen importlib._bootstrap>", code_places.__file__])
def test_lines_of_python_and_of_forkserver_are_passed_over(file: str) -> None:
    assert code_places.place(frame_of(file, "any", 3)).startswith(f"{__name__}:")


def test_a_module_without_a_name_is_known_by_its_file() -> None:
    frame = frame_of("/srv/site/settings.py", "x", 1)
    frame.f_globals["__name__"] = None
    assert code_places.module_of(frame) == "settings.py"


def test_above_the_first_call_there_is_no_frame() -> None:
    assert code_places.caller(0) is sys._getframe()
    assert code_places.caller(100_000) is None
