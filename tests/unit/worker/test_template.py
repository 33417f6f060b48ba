"""What a template does first of all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from forkserver.linux import syscalls
from forkserver.worker import template


class TakesMemoryError(Exception):
    """What comes next writes to pages that the master has."""


def leave_behind() -> None:
    raise TakesMemoryError


def test_the_kernel_is_to_choose_a_template_before_that_takes_any_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(syscalls, "prefer_for_oom", told.append)
    config: Any = SimpleNamespace(oom_more=900, leave_behind=leave_behind)
    end: Any = None
    with pytest.raises(TakesMemoryError):
        template.main(config, end, 1)
    assert told == [900]


def test_where_proc_cannot_be_written_a_template_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_more: int) -> None:
        raise OSError(30, "Read-only file system")

    said: list[str] = []
    monkeypatch.setattr(syscalls, "prefer_for_oom", refuse)
    log = SimpleNamespace(debug=said.append)
    config: Any = SimpleNamespace(oom_more=900, leave_behind=leave_behind, generation=3, log=log)
    end: Any = None
    with pytest.raises(TakesMemoryError):
        template.main(config, end, 1)
    assert said == ["oom_score_adj of template gen=3 cannot be raised: [Errno 30] Read-only file system"]
