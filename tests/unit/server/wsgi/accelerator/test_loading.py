"""Where the extension is loaded, where it is not, and what says so."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest

from forkserver.config.accelerator import VARIABLE
from forkserver.server.wsgi.accelerator import loading

WITHIN = """
from forkserver.server.wsgi.accelerator.loading import load
try:
    print(load())
except ImportError as error:
    print(error)
"""


def test_switched_off_it_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "OFF")
    assert loading.load() is None


def test_where_it_was_not_built_python_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(loading, "_NAME", "forkserver.server.wsgi.accelerator._not_built")
    assert loading.load() is None


@pytest.mark.parametrize("number", [0, loading.ABI + 1])
def test_one_of_another_versions_source_is_refused_by_its_number(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """An upgrade of the Python code in place may leave it; what it is called with does not fit then."""
    monkeypatch.delenv(VARIABLE, raising=False)
    other = ModuleType("_exchange")
    other.__file__ = "/site/_exchange.so"
    if number:
        vars(other)["ABI"] = number
    monkeypatch.setitem(sys.modules, loading._NAME, other)
    with pytest.raises(
        ImportError, match=rf"/site/_exchange.so was built for another version .*ABI {number}, not {loading.ABI}"
    ):
        loading.load()


@pytest.mark.extension
def test_another_interpreter_of_the_process_is_refused() -> None:
    """What it knows of the GIL and of interned strings holds in one."""
    pytest.importorskip("_testcapi", exc_type=ImportError)
    program = f"import _testcapi, sys; sys.exit(_testcapi.run_in_subinterp({WITHIN!r}))"
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-P", "-c", program], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "the extension serves the main interpreter alone\n"), done.stderr
