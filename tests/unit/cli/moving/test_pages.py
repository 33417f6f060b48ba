"""The pages in docs/moving/ say what the rows say."""

from __future__ import annotations

import pytest

from forkserver.cli.moving.rows import Server
from harness import moving_pages


@pytest.mark.parametrize("server", moving_pages.SERVERS, ids=lambda server: server.name)
def test_a_page_has_the_rows_of_its_server(server: Server) -> None:
    remake = "PYTHONPATH=tests python tests/harness/moving_pages.py"
    assert moving_pages.in_page(server) == moving_pages.tables(server), f"{server.page} is old: run {remake}"
