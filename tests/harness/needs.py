"""What a test needs of the machine. Where it is missing the test is skipped, and in CI it fails.

CI installs every program; a skip there would be a promise that nobody looked at.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

STRICT = "FORKSERVER_CI"  # set by .ci/run


def missing(what: str) -> None:
    if os.environ.get(STRICT):
        pytest.fail(f"{what}, and CI skips nothing")
    pytest.skip(what)


def program(name: str) -> str:
    """The path of ``name``: of this interpreter's environment, of PATH, or of /usr/sbin, where Debian keeps nginx."""
    places = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin")
    found = shutil.which(name, path=os.pathsep.join(places))
    if not found:
        missing(f"{name} is not installed")
    assert found
    return found
