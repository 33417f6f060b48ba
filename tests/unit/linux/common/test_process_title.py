"""A process shows its title, and nothing else is loaded for that."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import PathFinder

import pytest
import setproctitle

from forkserver.linux.common import process_title

_TITLED = """
import sys
from forkserver.linux.common.process_title import set_title
set_title("forkserver: a test")
assert open("/proc/self/cmdline").read().startswith("forkserver: a test")
assert not {"logging", "setproctitle"} & sys.modules.keys()
import setproctitle
assert setproctitle.getproctitle() == "forkserver: a test"
"""


def test_a_title_is_set_without_the_package_that_imports_logging() -> None:
    """The application may load that package all the same."""
    search = f"import sys; sys.path[:] = {sys.path!r}"
    subprocess.run([sys.executable, "-I", "-S", "-c", search + _TITLED], check=True)


def test_the_package_is_asked_where_the_extension_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PathFinder, "find_spec", lambda *_: None)
    assert process_title._setter() is setproctitle.setproctitle
