"""What sharing saves is measured, and said in sentences."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from forkserver.worker.fork_safety import sharing_advice
from forkserver.worker.fork_safety.sharing_advice import Cost

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("preload", "findings", "said"),
    [
        ("auto", [], "workers share the import (preload=auto): each saves about 20 MiB of memory and 0.50 s of import"),
        ("on", [], "workers share the import (preload=on): each saves about "),
        ("off", [], "workers do not share the import (preload=off), but could: with --preload auto each saves about "),
        (
            "auto",
            ["thread x"],
            "workers do not share the import (preload=auto), so each takes about 20 MiB of",
        ),
        ("off", ["thread x"], "workers do not share the import (preload=off), so each takes about "),
        (
            "on",
            ["thread x"],
            "workers share the import (preload=on) although it left what processes cannot share:",
        ),
    ],
)
def test_the_advice_fits_the_setting_and_the_findings(preload: str, findings: list[str], said: str) -> None:
    advice = sharing_advice.advice(preload, findings, Cost(0.5, 20 * MIB))
    assert advice.startswith(said)
    assert all(f"\n  {finding}\n" in advice for finding in findings)
    assert (sharing_advice.WAY_OUT in advice) is bool(findings)


@pytest.mark.parametrize("memory", [None, 1000])
def test_memory_that_is_not_known_or_not_worth_it_is_not_told(memory: int | None) -> None:
    assert sharing_advice.advice("auto", [], Cost(0.5, memory)).endswith("each saves about 0.50 s of import")


def test_a_fork_writes_less_than_the_process_it_was_forked_from() -> None:
    block = bytearray(b"x" * (32 * MIB))
    written, again = sharing_advice.written_memory(), sharing_advice.written_by_a_fork()
    assert written is not None
    assert again is not None
    assert written - again > len(block) / 2


def test_a_kernel_without_the_file_leaves_memory_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.open

    def without(path: Any, *more: Any, **named: Any) -> Any:
        if path == "/proc/self/smaps_rollup":
            raise FileNotFoundError(path)
        return real(path, *more, **named)

    monkeypatch.setattr(builtins, "open", without)
    assert sharing_advice.written_memory() is None
    assert sharing_advice.written_by_a_fork() is None
