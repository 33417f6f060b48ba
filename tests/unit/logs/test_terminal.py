"""Both logs at a terminal."""

from __future__ import annotations

import os
import pty
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.logs.access_format import Facts, Line
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_format import LogEvent
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.terminal import TerminalForm, TerminalFormat, has_colours
from harness.log_files import LINE

COLOURS, NONE = {"TERM": "xterm"}, {"TERM": "xterm", "NO_COLOR": "1"}
SGR = re.compile(r"\x1b\[[0-9;]+m")


def event(level: str, message: str, details: str = "") -> LogEvent:
    return LogEvent(1_795_814_938.1239, level, "worker=3 gen=2", 4711, message, details)


def line(request: str, status: int = 200, seconds: float | None = 0.0123, peer: str = "192.0.2.1") -> Line:
    return Line(peer, "", request, status, 1234, "", "", Facts(), seconds, 1_795_814_938.1239, "", 3, 2, 4711)


def test_events_are_aligned_and_their_levels_coloured() -> None:
    form = TerminalForm(COLOURS)
    lines = [form.event(event(level, "told")) for level in ("debug", "info", "warning", "error", "critical")]
    assert {SGR.sub("", each).index("told") for each in lines} == {46}
    assert len({SGR.findall(each)[0] for each in lines}) == 5
    assert SGR.sub("", lines[3]) == "21:28:58.123Z error    worker=3 gen=2    4711 told\n"


def test_without_colours_there_is_no_escape_sequence() -> None:
    assert TerminalForm(NONE).event(event("error", "a\x1b[2J\u202e", "b\x1b\n")) == (
        "21:28:58.123Z error    worker=3 gen=2    4711 a\\x1b[2J\\u202e\n  b\\x1b\n"
    )
    assert TerminalFormat(NONE).write(line("GET /\x1b[2J"), 4096) == (
        "21:28:58.123Z 200      12.3 ms      1234 B 192.0.2.1       GET /\\x1b[2J\n"
    )


def test_what_is_not_known_of_a_request_is_a_dash() -> None:
    assert TerminalFormat(NONE).write(line("", 400, None, ""), 4096) == (
        "21:28:58.123Z 400         - ms      1234 B -               -\n"
    )


@given(st.text(), st.integers(0, 999))
def test_no_client_writes_to_the_terminal(text: str, status: int) -> None:
    shown = SGR.sub("", TerminalFormat(COLOURS).write(line(text, status, peer=text), 4096))
    assert shown[:-1].isprintable()
    assert len(shown) <= 4096


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [(COLOURS, True), (NONE, False), ({"TERM": "dumb"}, False), ({}, False), (COLOURS | {"NO_COLOR": ""}, True)],
)
def test_colours_are_left_out_where_the_environment_says_so(environ: dict[str, str], coloured: bool) -> None:
    assert has_colours(environ) is coloured


@contextmanager
def terminal_as_standard_streams() -> Iterator[int]:
    """A terminal in place of standard output and standard error; gives its other end."""
    kept = os.dup(1), os.dup(2)
    ours, theirs = pty.openpty()
    for number in (1, 2):
        os.dup2(theirs, number)
    os.close(theirs)
    try:
        yield ours
    finally:
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)
        os.close(ours)


def test_a_terminal_gets_what_a_person_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with terminal_as_standard_streams() as terminal:
        errors, access, plain = ErrorLog("-", "info"), AccessLog("-", form="auto"), AccessLog("-", form="combined")
        errors.info("told")
        access.add(*LINE)
        access.flush()
        shown = ""
        while shown.count("\n") < 2:
            shown += os.read(terminal, 4096).decode()
        for log in (errors, access, plain):
            log.close()
    assert (access.plain, plain.plain) == (False, True)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3}Z info     master +\d+ told\r\n"
        r"\d\d:\d\d:\d\d\.\d{3}Z 200         - ms        12 B 192\.0\.2\.1       GET / HTTP/1\.1\r\n",
        shown,
    )


def test_a_file_gets_what_it_got(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "log"), form="auto")
    assert log.plain
    log.close()
