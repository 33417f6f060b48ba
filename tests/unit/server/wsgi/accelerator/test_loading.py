"""Where the extension is loaded, where it is not, and what says so."""

from __future__ import annotations

import os
import subprocess
import sys

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


@pytest.mark.extension
def test_another_interpreter_of_the_process_is_refused() -> None:
    """What it knows of the GIL and of interned strings holds in one."""
    pytest.importorskip("_testcapi", exc_type=ImportError)
    program = f"import _testcapi, sys; sys.exit(_testcapi.run_in_subinterp({WITHIN!r}))"
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-P", "-c", program], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "the extension serves the main interpreter alone\n"), done.stderr
