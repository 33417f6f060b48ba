"""Workers are forked whatever the application has made of the process, and have nothing of each other."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from forkserver.worker.forking import worker_forks


class Unwritable:
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("stream", [object(), Unwritable(), None], ids=["no flush", "a full disk", "no stream"])
def test_a_fork_does_not_fail_by_a_stream_that_cannot_be_flushed(
    monkeypatch: pytest.MonkeyPatch, stream: object
) -> None:
    """An application may put an object of its own in place of sys.stderr; what it has printed may meet a full disk."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    worker_forks.flush()
