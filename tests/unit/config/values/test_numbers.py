"""Counts, times, sizes and modes."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from forkserver.config import loading
from forkserver.config.declaration import Setting
from forkserver.config.settings import TABLE
from forkserver.config.values.numbers import GIB, KIB, MIB
from forkserver.config.values.value_type import RefusedError
from harness.settings_files import refusal, write


@pytest.mark.parametrize(
    ("text", "size"), [("64KiB", 64 * KIB), ("1g", GIB), ("1.5M", 3 * MIB // 2), ("4096", 4096), ("10 MiB", 10 * MIB)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    """Nobody counts the zeros of a gigabyte."""
    assert loading.load(["--max-body", text], {}).max_body == size


@pytest.mark.parametrize(("text", "time"), [("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0), ("7", 7.0), ("1.5s", 1.5)])
def test_times_have_units(text: str, time: float) -> None:
    """Seconds are the unit, and others can be said."""
    assert loading.load(["--graceful-timeout", text], {}).graceful_timeout == time


@pytest.mark.parametrize("name", ["drain_delay", "queue_timeout", "max_worker_lifetime", "max_worker_memory"])
@pytest.mark.parametrize("written", ["0", "0.0"])
def test_off_is_zero(name: str, written: str) -> None:
    """Whoever reads the value asks no more than whether there is one."""
    assert getattr(loading.load([], {f"FORKSERVER_{name.upper()}": written}), name) == 0


def test_what_can_be_off_can_be_on() -> None:
    """In the units of its kind."""
    loaded = loading.load(["--drain-delay", "5s", "--max-worker-lifetime=2h", "--max-worker-memory", "512MiB"], {})
    assert (loaded.drain_delay, loaded.max_worker_lifetime, loaded.max_worker_memory) == (5.0, 7200.0, 512 * MIB)


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_a_refused_number_tells_that_zero_is_allowed_where_it_is(setting: Setting[Any]) -> None:
    """0 is how most limits are switched off, and who tries -1 looks for just that."""
    refused = _refusal_of(setting, "-1")
    if "out of range" in refused:
        zero_allowed = _refusal_of(setting, "0") == ""
        assert (re.search(r"\b0\b(?!\.)", refused) is not None) == zero_allowed


def _refusal_of(setting: Setting[Any], text: str) -> str:
    try:
        setting.value_type.parse(text)
    except RefusedError as refused:
        return str(refused)
    return ""


def test_infinity_is_no_limit_where_that_can_be_said() -> None:
    """TOML has a word for it."""
    write("timeout = inf")
    assert loading.load([], {}).timeout == math.inf
    write("drain_delay = inf")
    assert "out of range; give 0.001 seconds to a year, or 0 to switch it off" in refusal()
