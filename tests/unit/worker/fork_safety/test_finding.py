"""One thing that an import left behind, in words."""

from __future__ import annotations

from forkserver.worker.fork_safety.finding import Finding


def test_a_place_is_told_where_it_is_known() -> None:
    assert str(Finding("thread x", "mysite.poll:7")) == "thread x (mysite.poll:7)"
    assert str(Finding("thread x")) == "thread x"
