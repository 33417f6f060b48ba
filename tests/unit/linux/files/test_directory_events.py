"""What the kernel tells of directories."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.linux.files.directory_events import DirectoryEvents


@pytest.fixture
def events(tmp_path: Path) -> Iterator[DirectoryEvents]:
    made = DirectoryEvents()
    made.watch(str(tmp_path))
    yield made
    made.close()


def test_files_that_are_written_replaced_and_removed_are_named(events: DirectoryEvents, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("1")
    assert events.take() == {"one.py"}
    (tmp_path / "other").write_text("2")
    (tmp_path / "other").rename(tmp_path / "one.py")
    assert events.take() == {"other", "one.py"}
    os.utime(tmp_path / "one.py")
    assert events.take() == {"one.py"}
    (tmp_path / "one.py").unlink()
    assert events.take() == {"one.py"}


def test_a_file_that_is_only_read_is_not_named(events: DirectoryEvents, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("1")
    events.take()
    (tmp_path / "one.py").read_text()
    assert events.take() == set()


def test_a_folder_that_is_not_there_is_an_error_with_its_name(events: DirectoryEvents, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        events.watch(str(tmp_path / "nowhere"))
