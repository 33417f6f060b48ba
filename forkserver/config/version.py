"""Which forkserver this is: the code that runs, whatever is installed in its place meanwhile."""

from __future__ import annotations

from typing import Final

DISTRIBUTION: Final = "forkserver-wsgi"
DOCUMENTATION: Final = f"https://pypi.org/project/{DISTRIBUTION}/"  # as in pyproject.toml
VERSION: Final = "0.1.0"  # as in pyproject.toml; importlib.metadata would cost a third of a master's start
