"""Forms of the error log's events."""

from __future__ import annotations

import json
from select import PIPE_BUF

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.logs.error_format import JsonForm, LogEvent, RequestFacts, SyslogForm, TextForm

EVENT = LogEvent(
    1_795_814_938.1239, "error", "worker=3 gen=2", 4711, "GET /x: the application raised", "a\n  b\n", "01-a"
)
TRACEBACK = "".join(
    f'  File "/srv/app/module{number}.py", line {number}, in name\n    code()\n' for number in range(400)
)


def test_text_has_a_line_for_the_event_and_indented_ones_for_its_details() -> None:
    assert TextForm().event(EVENT) == (
        "2026-11-27T21:28:58.123+00:00 error worker=3 gen=2 pid=4711 GET /x: the application raised\n  a\n    b\n"
    )
    assert TextForm(journal=True).event(EVENT).startswith("<3>2026")


def test_json_has_its_names() -> None:
    assert json.loads(JsonForm(PIPE_BUF).event(EVENT)) == {
        "time": "2026-11-27T21:28:58.123Z", "level": "error", "source": "forkserver", "process": "worker", "worker": 3,
        "generation": 2, "pid": 4711, "request_id": "01-a", "message": "GET /x: the application raised",
        "details": "a\n  b\n",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("process", "found"),
    [
        ("master", ("master", None, None)),
        ("template gen=7", ("template", None, 7)),
        ("worker=1 gen=2", ("worker", 1, 2)),
    ],
)
def test_json_tells_what_the_process_is(process: str, found: tuple[str, int | None, int | None]) -> None:
    shown = json.loads(JsonForm(PIPE_BUF).event(EVENT._replace(process=process, details="", request_id="")))
    assert (shown["process"], shown["worker"], shown["generation"]) == found
    assert "request_id" not in shown
    assert "details" not in shown


def test_the_applications_own_text_is_an_object_too() -> None:
    shown = json.loads(JsonForm(PIPE_BUF).application(EVENT._replace(level="", message="a line\nand another\n")))
    assert (shown["level"], shown["source"], shown["message"]) == (None, "application", "a line\nand another")
    assert TextForm().application(EVENT) == EVENT.message


@pytest.mark.parametrize("form", [TextForm(journal=True), SyslogForm(journal=True)])
def test_the_applications_text_is_no_more_severe_than_an_error(form: TextForm) -> None:
    """A user's text may get to the head of a line, which a carriage return begins, too, and in the journal NUL."""
    text = "<0>a\nb <0>\r<1>c\0<2>d\n<3>e\n<7>f\n<8>g\n"
    assert form.application(EVENT._replace(message=text)) == ("<3>a\nb <0>\r<3>c\0<3>d\n<3>e\n<7>f\n<8>g\n")
    assert TextForm().application(EVENT._replace(message=text)) == text
    assert form.event(EVENT._replace(level="critical")).startswith("<2>")


def test_a_long_traceback_comes_whole_in_several_objects() -> None:
    """Each is delivered unmixed with the lines of other processes."""
    lines = JsonForm(PIPE_BUF).event(EVENT._replace(details=TRACEBACK)).splitlines(keepends=True)
    objects = [json.loads(each) for each in lines]
    assert all(len(each) <= PIPE_BUF for each in lines)
    assert [each["part"] for each in objects] == list(range(1, len(objects) + 1))
    assert "\n".join(each["details"] for each in objects) == TRACEBACK
    assert {each["request_id"] for each in objects} == {"01-a"}
    assert len(JsonForm(1 << 20).event(EVENT._replace(details=TRACEBACK)).splitlines()) == 1


def test_in_the_journal_each_object_has_its_priority() -> None:
    assert JsonForm(PIPE_BUF, journal=True).event(EVENT).startswith('<3>{"time"')


@given(st.text(), st.text(), st.text())
def test_nothing_forges_an_object(message: str, details: str, request_id: str) -> None:
    event = EVENT._replace(message=message, details=details, request_id=request_id)
    for text in (JsonForm(PIPE_BUF).event(event), JsonForm(PIPE_BUF).application(event)):
        assert text.isascii()
        assert text.replace("\n", "").isprintable()
        for each in text.splitlines(keepends=True):
            assert len(each) <= PIPE_BUF
            assert json.loads(each)["pid"] == 4711


@given(st.integers(0, 6), st.integers(1, 9000))
def test_long_messages_are_bounded(times: int, size: int) -> None:
    event = EVENT._replace(message="\x00" * size * times, details="\x00" * size)
    assert all(len(each) <= PIPE_BUF for each in JsonForm(PIPE_BUF).event(event).splitlines(keepends=True))


def test_json_has_the_facts_of_a_slow_request_as_fields() -> None:
    about = RequestFacts("GET /x", "01-a", "192.0.2.7", 2.0341)
    shown = json.loads(JsonForm(PIPE_BUF).event(EVENT._replace(about=about)))
    assert (shown["request"], shown["client"], shown["seconds"]) == ("GET /x", "192.0.2.7", 2.034)
    assert json.loads(JsonForm(PIPE_BUF).event(EVENT._replace(about=about._replace(client=""))))["client"] is None


def test_the_longest_facts_leave_an_object_whole() -> None:
    """What one write delivers unmixed is for all of it, whatever a client has sent."""
    about = RequestFacts("\x01" * 192, "x" * 64, "\x01" * 64, 1e9)
    event = EVENT._replace(about=about, message="\x01" * 600, details=TRACEBACK, request_id="x" * 64)
    lines = JsonForm(PIPE_BUF).event(event).splitlines(keepends=True)
    assert max(map(len, lines)) <= PIPE_BUF
    assert all(json.loads(line)["seconds"] == 1e9 for line in lines)
