"""The channel on which the admin process asks the master for the status."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from forkserver.ipc.status_channel import (
    ANSWER_BYTES,
    PAUSE_SECONDS,
    TAKE_SECONDS,
    ClosedError,
    NoStatusError,
    StatusAnswers,
    StatusEnds,
    StatusQuestions,
)
from forkserver.linux import syscalls
from harness import BOUND

NOW = 1000.0
STATUS = {"ok": True, "state": "serving"}


@pytest.fixture
def pair() -> Iterator[tuple[StatusAnswers, StatusEnds]]:
    answers, ends = StatusAnswers.pair()
    yield answers, ends
    answers.close()
    ends.close()


def ring(ends: StatusEnds, count: int = 1) -> None:
    os.eventfd_write(ends.bell, count)


def readable(answers: StatusAnswers) -> bool:
    return syscalls.has_event(answers.fileno(), select.POLLIN)


def test_a_question_is_answered_with_the_status(pair: tuple[StatusAnswers, StatusEnds]) -> None:
    answers, ends = pair
    assert not answers.asked(NOW)
    questions = StatusQuestions(ends)
    with pytest.raises(NoStatusError, match="has not answered within 0 s"):
        questions.ask(0.0)
    assert readable(answers)
    assert answers.asked(NOW)
    answers.answer(STATUS, NOW)
    assert questions.ask(0.0) == STATUS


def test_an_answer_that_came_late_is_old_and_the_next_question_has_one_of_its_own(
    pair: tuple[StatusAnswers, StatusEnds],
) -> None:
    """The master was held up; the loop takes what comes, and no client waits for it any longer."""
    answers, ends = pair
    questions = StatusQuestions(ends)
    for number in range(2):
        with pytest.raises(NoStatusError):
            questions.ask(0.0)
        assert answers.asked(NOW + number)
        answers.answer(STATUS | {"number": number}, NOW + number)
        if not number:
            questions.receive()
    assert questions.ask(0.0) == STATUS | {"number": 1}


def test_a_question_that_waits_is_not_asked_twice(pair: tuple[StatusAnswers, StatusEnds]) -> None:
    _, ends = pair
    questions = StatusQuestions(ends)
    for seconds in (0.0, BOUND, BOUND):  # and it is not waited for again
        with pytest.raises(NoStatusError):
            questions.ask(seconds)
    assert syscalls.take_count(ends.bell) == 1


def test_questions_without_end_are_one_in_a_while(pair: tuple[StatusAnswers, StatusEnds]) -> None:
    """And do not wake the master in between."""
    answers, ends = pair
    ring(ends, 2**32)
    assert answers.asked(NOW)
    answers.answer(STATUS, NOW)
    ring(ends, 2**32)
    assert not answers.asked(NOW)
    assert not readable(answers)
    assert answers.next_look == NOW + PAUSE_SECONDS
    assert answers.asked(NOW + PAUSE_SECONDS)


def test_an_answer_that_is_not_taken_ends_the_channel_and_never_blocks(
    pair: tuple[StatusAnswers, StatusEnds],
) -> None:
    answers, ends = pair
    ring(ends)
    assert answers.asked(NOW)
    answers.answer(STATUS | {"text": "x" * 4_000_000}, NOW)
    assert not answers.asked(NOW + TAKE_SECONDS - 0.1)
    assert answers.next_look <= NOW + TAKE_SECONDS
    with pytest.raises(ClosedError, match="not taken in time"):
        answers.asked(NOW + TAKE_SECONDS)


def test_a_long_answer_comes_in_parts(pair: tuple[StatusAnswers, StatusEnds]) -> None:
    answers, ends = pair
    long = STATUS | {"text": "x" * 4_000_000}
    questions = StatusQuestions(ends)
    with pytest.raises(NoStatusError):
        questions.ask(0.0)
    assert answers.asked(NOW)
    answers.answer(long, NOW)
    for _ in range(1000):
        try:
            assert questions.ask(0.0) == long
            break
        except NoStatusError:
            answers.asked(NOW)
    else:
        raise AssertionError("it does not come")


def test_an_answer_has_a_bound(pair: tuple[StatusAnswers, StatusEnds]) -> None:
    answers, ends = pair
    questions = StatusQuestions(ends)
    with pytest.raises(NoStatusError):
        questions.ask(0.0)
    assert answers.asked(NOW)
    answers.answer(STATUS | {"text": "x" * ANSWER_BYTES}, NOW)
    with pytest.raises(NoStatusError, match="too many"):
        questions.ask(0.0)


def test_no_descriptor_reaches_the_master(pair: tuple[StatusAnswers, StatusEnds]) -> None:
    """It would be closed in the master's context, and could hold it up there."""
    _, ends = pair
    with pytest.raises(BrokenPipeError):
        socket.send_fds(ends.answers, [b"x"], [0])


def test_the_end_of_either_side_is_told(pair: tuple[StatusAnswers, StatusEnds]) -> None:
    answers, ends = pair
    questions = StatusQuestions(ends._replace(bell=os.dup(ends.bell), answers=ends.answers.dup()))
    answers._answers.shutdown(socket.SHUT_WR)
    with pytest.raises(NoStatusError, match="closed its end"):
        questions.ask(0.0)
    with pytest.raises(ClosedError, match="closed its end"):
        questions.receive()
    questions.close()


def test_an_answer_to_a_process_that_has_ended_is_an_end() -> None:
    answers, ends = StatusAnswers.pair()
    ring(ends)
    ends.close()
    assert answers.asked(NOW)
    with pytest.raises(ClosedError, match="the other end is closed"):
        answers.answer(STATUS, NOW)
    answers.close()
