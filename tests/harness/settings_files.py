"""Settings as a test writes them, and the message that refuses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkserver.config import loading
from forkserver.errors import ConfigError


def refusal(*argv: str, **environ: str) -> str:
    """What is said of ``argv`` and ``environ``."""
    with pytest.raises(ConfigError) as caught:
        loading.load(argv, environ)
    return str(caught.value)


def write(text: str, name: str = "forkserver.toml") -> str:
    """Write ``text`` to the file ``name`` of the current directory, and return that."""
    Path(name).write_text(text, encoding="utf-8")
    return name
