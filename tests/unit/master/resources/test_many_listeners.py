"""Old and new addresses of a reload, which a worker has together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.config.validation import MOST_LISTENERS
from forkserver.errors import ConfigError
from forkserver.linux.privileges import Credentials
from forkserver.master.resources.listener_set import ListenerSet, Terms
from harness import processes

TERMS = Terms(16, 0o660, Credentials())


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ListenerSet]:
    monkeypatch.chdir(tmp_path)
    known = processes.children()
    made = ListenerSet(unix(range(150)), (), TERMS)
    yield made
    made.close()
    processes.await_end_of_new(known)  # those that were left to close a listener


def unix(numbers: range) -> list[str]:
    return [f"unix:s{number}" for number in numbers]


def test_a_reload_whose_old_and_new_addresses_are_too_many_together_is_refused(
    many: ListenerSet, tmp_path: Path
) -> None:
    """All that was there is served on, and nothing has been opened."""
    before = many.open
    with pytest.raises(ConfigError, match=r"150 new addresses beside 150 that are served .* 251 .*fewer new ones"):
        many.change(unix(range(150, 300)), TERMS)
    assert (many.open, many.changing) == (before, False)
    assert len(list(tmp_path.iterdir())) == 150


def test_a_reload_adds_as_many_addresses_as_a_worker_can_be_passed(many: ListenerSet) -> None:
    many.change(unix(range(MOST_LISTENERS)), TERMS)
    assert len(many.open) == MOST_LISTENERS
    many.undo()


def test_addresses_that_are_being_closed_count(many: ListenerSet) -> None:
    many.change(unix(range(100)), TERMS)
    many.settle(taken=True, now=0.0)
    with pytest.raises(ConfigError, match="102 new addresses beside 150 that are served"):
        many.change(unix(range(202)), TERMS)
    many.drop()
    many.change(unix(range(202)), TERMS)
    assert len(many.open) == 202
    many.undo()
