"""A worker may open as many files as its connections need; the master and the import go on under the old limit."""

from __future__ import annotations

import resource

import pytest


@pytest.mark.parametrize("nofile", ["auto", "keep"])
def test_only_a_worker_has_the_limit_that_its_connections_need(serve, nofile: str) -> None:
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    program = serve("raw:app", "--nofile", nofile, "--worker-connections", "5000")
    (worker,) = program.workers()
    wanted = max(before, min(hard, 11_024)) if nofile == "auto" else before
    assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE) == (wanted, hard)
    assert resource.prlimit(program.pid, resource.RLIMIT_NOFILE) == (before, hard)
    assert program.stop() == 0
