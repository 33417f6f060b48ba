"""A write that fails by RLIMIT_FSIZE names that limit."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from forkserver.linux.files.file_size_limit import of_log, why_unwritten

REFUSED = OSError(errno.EFBIG, os.strerror(errno.EFBIG))


@pytest.mark.parametrize(
    ("limits", "command"), [((4096, 4096), "ulimit -Hf"), ((4096, resource.RLIM_INFINITY), "ulimit -f")]
)
def test_the_limit_of_a_files_size_is_named_with_the_way_out(
    limits: tuple[int, int], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    way_out = f"(RLIMIT_FSIZE is 4096 bytes; raise LimitFSIZE= of the unit, or {command})"
    assert why_unwritten(REFUSED) == f"File too large {way_out}"
    assert of_log(REFUSED) == f"file too large {way_out}"


def test_where_it_is_not_that_limit_the_reason_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may have a limit of its own."""
    limit = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert why_unwritten(REFUSED) == "File too large"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4096, 4096))
    assert why_unwritten(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
    assert of_log(OSError(errno.ENOSPC, "No space left on device")) == "no space left on device"
