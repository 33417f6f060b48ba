"""An environment that is removed or replaced while the service runs neither ends the master nor is called a fault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forkserver.errors import own_files_missing
from forkserver.worker.loading import late_modules, loader


def test_what_is_needed_later_is_there_when_the_environment_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    late_modules.load()
    monkeypatch.setattr(sys, "path", [])
    late_modules.load()
    assert "difflib" in sys.modules


def test_a_module_of_most_applications_that_this_python_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zoneinfo", None)
    late_modules.load_for_many()
    assert {"asyncio", "logging.config", "ssl"} <= sys.modules.keys()


_OF_A_MASTER = """
import sys
from forkserver.config.settings import defaults
from forkserver.worker.loading import late_modules
late_modules.load_for_master(defaults(app="site:app", reload_on_change=sys.argv[1]), sys.argv[2])
print("forkserver.server.loop.worker_server" in sys.modules, "asyncio" in sys.modules)
"""


@pytest.mark.parametrize(("watched", "said"), [("on", "True True"), ("off", "False False")])
def test_where_files_are_watched_no_reload_waits_for_modules_that_are_not_the_applications(
    watched: str, said: str, tmp_path: Path
) -> None:
    """Nor does one of the application's take the place of one that the standard library has."""
    (tmp_path / "asyncio.py").write_text("raise SystemExit('the application was imported')")
    command = [sys.executable, "-c", _OF_A_MASTER, watched, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    assert found.stdout.split() == said.split()


def test_what_an_application_that_is_none_needs_is_there_before_root_gives_up_its_rights() -> None:
    """Its user may not be able to read the interpreter's own files."""
    late_modules.load_for_application()
    assert {"ast", "difflib", "importlib.util", "inspect", "pkgutil"} <= sys.modules.keys()


_WITHOUT_FILES = """
import sys
from forkserver.config import loading
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.loading import loader

class Removed:
    def find_spec(self, name, path=None, target=None):
        assert not name.startswith("forkserver"), name

settings = loading.load(["wsgiref.simple_server:demo_app", "--root-path", "/shop"], {})
loader.preload_modules()
sys.meta_path.insert(0, Removed())
loader.mounted(loader.load(settings, ErrorLog("-", "info", "test")).app, settings)
"""


def test_a_worker_that_imports_for_itself_needs_none_of_our_files() -> None:
    """Else no worker that dies is replaced while the installation is removed or replaced."""
    subprocess.run([sys.executable, "-c", _WITHOUT_FILES], check=True)


def test_a_removed_environment_is_named_with_the_way_out() -> None:
    report = loader.load_failed(ModuleNotFoundError("No module named 'forkserver.server'", name="forkserver.server"))
    assert "own files in " in report.message
    assert "install it there again, and upgrade (USR2) or restart" in report.message
    assert report.traceback == ""


def test_a_module_of_the_applications_that_is_missing_is_its_own_business() -> None:
    assert own_files_missing(ModuleNotFoundError("No module named 'shop'", name="shop")) == ""
    assert own_files_missing(ValueError("forkserver")) == ""
