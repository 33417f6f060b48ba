"""What is spooled lies in a file that no other process can open."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from forkserver.linux.files import nameless_file
from forkserver.linux.files.nameless_file import open_nameless


@pytest.fixture(params=["O_TMPFILE", "a name that is removed"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    real = os.open

    def without_tmpfile(path: Any, flags: int, *more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return real(path, flags, *more)

    if request.param != "O_TMPFILE":
        monkeypatch.setattr(os, "open", without_tmpfile)
    return tmp_path


def test_a_nameless_file_is_read_and_written_and_is_nowhere(folder: Path) -> None:
    with open_nameless(str(folder), "forkserver-") as file:
        assert file.write(b"abc") == 3
        file.seek(0)
        assert file.read() == b"abc"
        found = os.fstat(file.fileno())
        assert (found.st_nlink, found.st_mode & 0o777) == (0, 0o600)
        assert not os.get_inheritable(file.fileno())
        assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_nameless(str(folder / "missing"), "forkserver-")


def test_a_file_that_cannot_be_removed_is_not_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(nameless_file, "_LACKING", (errno.EIO,))
    real = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda path, flags, *more: refuse() if flags & os.O_TMPFILE == os.O_TMPFILE else real(path, flags, *more),
    )
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(OSError, match="broken"):
        open_nameless(str(tmp_path), "forkserver-")
