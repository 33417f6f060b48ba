"""The extension as an operator sees it: in the log, in the status, and by its variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkserver.config.accelerator import VARIABLE
from harness.controlled import StartControlled

pytestmark = pytest.mark.extension
ASKED = 20
PLAIN = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"plain"]
"""


@pytest.mark.parametrize(("variable", "word", "sent"), [("", "C", ASKED), ("off", "python", 0)])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_plain_requests_are_served_by_the_code_that_status_names(
    controlled: StartControlled, tmp_path: Path, variable: str, word: str, sent: int, threads: str
) -> None:
    """A plain request that declines is a fault."""
    (tmp_path / "plain.py").write_text(PLAIN)
    service = controlled("plain:app", "-w", "1", "--threads", threads, environ={VARIABLE: variable})
    service.program.log.wait(rf"forkserver \S+ \({word}\), CPython")
    with service.program.connect() as wire:
        for _ in range(ASKED):
            assert wire.get("/").status == 200
        service.program.until(lambda: service.do("status")["requests"] == ASKED, "every request's count")
    status = service.do("status")
    (worker,) = status["workers"]
    assert (status["accelerator"], worker["accelerated"], worker["declined"]) == (word, sent, 0)
