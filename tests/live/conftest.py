"""Scripts are asked of both modules: what wsgiref answers, forkserver must answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness.script import Script

MODULES = ("wsgiref.simple_server", "forkserver")


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def script(module: str) -> Iterator[Callable[[str], Script]]:
    started: list[Script] = []

    def start(text: str) -> Script:
        started.append(Script(module, text))
        return started[-1]

    yield start
    for each in started:
        each.close()
