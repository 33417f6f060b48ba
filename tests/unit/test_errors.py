"""Errors, and where forkserver's own files are."""

from __future__ import annotations

import os

import forkserver
from forkserver.cli import serve
from forkserver.errors import PACKAGE, own_files_missing
from forkserver.worker.fork_safety import code_places
from forkserver.worker.loading import application


def test_the_packages_folder_is_known_from_any_depth() -> None:
    """Frames below it are left out of tracebacks and findings; another distribution is looked for beside it."""
    assert os.path.dirname(os.path.abspath(forkserver.__file__)) == PACKAGE
    assert application._OURS == code_places._OURS == PACKAGE + os.sep
    assert os.path.isdir(os.path.join(serve._INSTALLED_IN, "forkserver"))


def test_a_module_of_ours_that_has_gone_is_told_with_its_folder() -> None:
    missing = own_files_missing(ModuleNotFoundError("No module named 'forkserver.x'", name="forkserver.x"))
    assert os.path.dirname(PACKAGE) in missing
    assert own_files_missing(ModuleNotFoundError("No module named 'x'", name="x")) == ""
