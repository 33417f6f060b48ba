"""Keys: they sort, choose and pause; and what changes the service waits for a yes."""

from __future__ import annotations

from typing import Any

import pytest

from forkserver.cli.top.rates import RecentReadings
from forkserver.cli.top.reading import read
from forkserver.cli.top.session import Session, View
from harness.statuses import readings_of, status_of, worker_of


@pytest.fixture
def readings() -> RecentReadings:
    return readings_of(status_of(1.0, workers=[worker_of(number) for number in (1, 2, 3)]))


@pytest.fixture
def session(readings: RecentReadings) -> Session:
    return Session(readings)


def press(session: Session, *keys: str) -> list[dict[str, Any]]:
    return [command for key in keys if (command := session.key(key))]


@pytest.mark.parametrize(
    ("keys", "command"),
    [
        (("r", "y"), {"command": "reload", "wait": False}),
        (("down", "down", "t", "y"), {"command": "retire", "worker": "pid=102"}),
        (("j", "s", "Y"), {"command": "stacks", "worker": "pid=101"}),
    ],
)
def test_a_command_is_given_after_its_question(
    session: Session, keys: tuple[str, ...], command: dict[str, Any]
) -> None:
    assert press(session, *keys[:-1]) == []
    assert session.question is not None
    assert press(session, keys[-1]) == [command]


@pytest.mark.parametrize("key", ["n", "q", "escape", "r", " ", "down"])
def test_any_other_key_than_yes_does_nothing(session: Session, key: str) -> None:
    assert press(session, "r", key) == []
    assert (session.question, session.over, session.message) == (None, False, "nothing was done")


@pytest.mark.parametrize("key", ["t", "s"])
def test_without_a_chosen_worker_it_says_how_to_choose(session: Session, key: str) -> None:
    press(session, key)
    assert session.question is None
    assert session.message == "choose a worker first: up and down"


@pytest.mark.parametrize(
    "after",
    [
        status_of(2.0, workers=[worker_of(1, pid=999), worker_of(2), worker_of(3)]),
        status_of(2.0, workers=[worker_of(1), worker_of(2), worker_of(3)], master={"pid": 41, "memory": 0}),
    ],
    ids=["the worker has ended", "another master"],
)
def test_a_question_about_what_is_gone_is_taken_back(
    readings: RecentReadings, session: Session, after: dict[str, Any]
) -> None:
    press(session, "down", "t")
    session.notice()
    assert session.question is not None
    readings.note(read(after))
    session.notice()
    assert press(session, "y") == []
    assert session.question is None


def test_what_is_chosen_is_a_worker_and_not_a_place(readings: RecentReadings, session: Session) -> None:
    """Sorting moves it; if it ends, the one in its place is chosen."""
    press(session, "down", "down", "down")
    assert session.chosen == 103
    press(session, "i")
    assert [row.worker.pid for row in session.rows()] == [103, 102, 101]
    press(session, "down")
    assert session.chosen == 102
    readings.note(read(status_of(2.0, workers=[worker_of(1), worker_of(3)])))
    assert [row.worker.pid for row in session.rows()] == [103, 101]
    assert session.chosen == 101
    press(session, "page down", "down")
    assert session.chosen == 101


def test_sorting_goes_through_the_columns_and_round(session: Session) -> None:
    assert session.by.heading == "WORKER"
    press(session, ">")
    assert session.by.heading == "PID"
    press(session, "left", "<")
    assert session.by.heading == "IN HAND"


def test_pausing_help_and_quitting(session: Session) -> None:
    press(session, "p")
    assert session.paused
    press(session, " ", "?")
    assert (session.paused, session.page) == (False, View.HELP)
    press(session, "escape")
    assert session.page is View.WORKERS
    press(session, "h", "q")
    assert session.over


def test_a_page_of_text_is_scrolled_and_ends_with_its_text(session: Session) -> None:
    session.show_text("stacks", "\n".join([*map(str, range(30)), "x" * 50, "\x1b[2J"]))
    assert session.text_lines(20, 5) == ["0", "1", "2", "3", "4"]
    press(session, "down", "page down", "up")
    assert session.text_lines(20, 5)[0] == "10"
    press(session, *["page down"] * 9)
    assert session.text_lines(20, 5)[-1] == r"\x1b[2J"
    assert all(len(each) <= 20 for each in session.text_lines(20, 5))
    press(session, "up")
    assert session.text_lines(20, 5)[-1].endswith("x")
    press(session, "x")
    assert session.page is View.WORKERS


def test_before_there_is_a_status_keys_are_harmless() -> None:
    session = Session(RecentReadings())
    assert press(session, "down", "r", "y", "t", "y", "s", "y", ">", "i", "page up") == []
