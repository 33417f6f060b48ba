"""The program behind top: what it asks and when, and how it ends where there is nothing to draw at."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from forkserver.cli.control_client import UnreachableError
from forkserver.cli.top import program, styled
from forkserver.cli.top.asking import MasterAnswer, Questions
from forkserver.cli.top.program import STATUS, Top
from harness import BOUND
from harness.control_program import run
from harness.statuses import status_of


class Asked:
    """Questions that the test answers; ``asked`` are those that are open."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self._came: list[MasterAnswer] = []

    def begin(self, command: Mapping[str, Any]) -> None:
        self.asked.append(command)

    def answer(self, reply: dict[str, Any], trouble: str = "") -> None:
        self._came.append(MasterAnswer(self.asked.pop(0), reply, trouble))

    def taken(self) -> list[MasterAnswer]:
        came, self._came = self._came, []
        return came


class Driven:
    """A program with a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.questions = Asked()
        self.top = Top(self.questions, 1.0, lambda: self.now)  # type: ignore[arg-type]  # it has what is used

    def text(self) -> str:
        return "\n".join(map(styled.plain, self.top.lines(80, 24)))

    def answered(self, reply: dict[str, Any], trouble: str = "") -> None:
        self.questions.answer(reply, trouble)
        self.top.turn()


@pytest.fixture
def driven() -> Driven:
    made = Driven()
    made.top.turn()
    return made


def test_it_asks_once_in_an_interval_and_never_twice_at_a_time(driven: Driven) -> None:
    assert driven.questions.asked == [STATUS]
    driven.now += 5
    driven.top.turn()
    assert driven.questions.asked == [STATUS]
    driven.answered(status_of(1.0))
    assert driven.questions.asked == [STATUS], "it was due"
    driven.answered(status_of(2.0))
    assert driven.questions.asked == []
    assert driven.top.turn() == 1.0


def test_a_service_that_goes_away_and_comes_back_is_told(driven: Driven) -> None:
    driven.answered(status_of(50.0))
    driven.now += 1
    driven.top.turn()
    driven.answered({}, "x.sock: no server listens there; start the service")
    driven.now += 11
    assert "no answer for 12s: x.sock: no server listens there; start the service" in driven.text()
    driven.top.turn()
    driven.answered(status_of(1.0, version="1.2.4"))
    assert "no answer" not in driven.text()
    assert "forkserver 1.2.4" in driven.text()


def test_a_master_that_does_not_answer_is_told_before_the_question_times_out(driven: Driven) -> None:
    driven.now += 3
    assert "no answer for 3s: it was asked, and does not answer; is the master stopped?" in driven.text()


@pytest.mark.parametrize("reply", [{}, {"ok": True}, {"ok": False, "error": "no\x1b"}, {"ok": True, "workers": 3}])
def test_what_is_no_status_is_told(driven: Driven, reply: dict[str, Any]) -> None:
    driven.answered(reply)
    assert "no answer for 0s: " in driven.text()
    assert "\x1b" not in driven.text()


def test_while_it_is_paused_nothing_is_asked(driven: Driven) -> None:
    driven.answered(status_of(1.0))
    driven.top.keys(["p"])
    driven.now += 60
    driven.top.turn()
    assert driven.questions.asked == []
    assert "paused" in driven.text()
    driven.top.keys(["p"])
    driven.top.turn()
    assert driven.questions.asked == [STATUS]


def test_a_command_is_asked_and_its_answer_shown(driven: Driven) -> None:
    driven.answered(status_of(1.0))
    driven.top.keys(["r", "y"])
    assert driven.questions.asked == [{"command": "reload", "wait": False}]
    assert "reload: asked" in driven.text()
    driven.answered({"ok": False, "error": "the service is draining; only stop may follow\x1b"})
    assert r"reload: the service is draining; only stop may follow\x1b" in driven.text()


def test_stacks_have_a_page(driven: Driven) -> None:
    driven.answered(status_of(1.0))
    driven.top.keys(["down", "s", "y"])
    driven.answered({"ok": True, "worker": 1, "pid": 101, "stacks": "thread MainThread:\n  File x\x1b"})
    assert driven.text().startswith("stacks of worker 1, pid 101\nthread MainThread:\n  File x\\x1b")


def test_questions_are_asked_beside_the_screen_and_ring_its_bell() -> None:
    def ask(command: Mapping[str, Any]) -> dict[str, Any]:
        if command["command"] == "config":
            raise UnreachableError("away")
        if command["command"] == "stop":
            raise TimeoutError
        return {"ok": True}

    questions = Questions(ask)
    for name in ("status", "config", "stop"):
        questions.begin({"command": name})
    came: list[MasterAnswer] = []
    while len(came) < 3:
        came += questions.taken()
    for thread in threading.enumerate():
        if thread.name.startswith("ask "):
            thread.join(BOUND)
    questions.close()
    told = {each.command["command"]: each.trouble for each in came}
    assert told == {"status": "", "config": "away", "stop": "no answer in time; is the master stopped?"}


def test_once_is_text_of_two_looks_an_interval_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(program, "sleep", slept.append)
    replies = iter([status_of(1.0, answers={"2xx": 0}), status_of(3.0, answers={"2xx": 50})])
    text = program.once(lambda command: next(replies), 2.0, 80)
    assert "answers/s   25.0   25.0" in text
    assert slept == [2.0]
    with pytest.raises(UnreachableError, match="no forkserver of this program's version"):
        program.once(lambda command: {"ok": True}, 2.0, 80)


def test_without_a_terminal_it_says_what_to_do(master: Any, capfd: pytest.CaptureFixture[str]) -> None:
    path, _ = master(json.dumps(status_of(1.0)).encode() + b"\n")
    program_ended = run(capfd, "--socket", path, "top")
    told = "forkserverctl: top draws at a terminal; --once shows it once as text, status --json is for programs\n"
    assert program_ended == (2, "", told)
    run(capfd, "--socket", path, "status")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("top", "--interval", "soon"), "'soon': not a number with a known unit; give seconds, or write 500ms"),
        (("top", "--interval", "0.1s"), "'0.1s': give 0.2s to 3600s"),
        (("--json", "top"), "top has no JSON; status --json has the figures"),
    ],
)
def test_a_mistake_in_its_command_line_is_told(
    capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    status, out, err = run(capfd, *arguments)
    assert (status, out) == (2, "")
    assert told in " ".join(err.split())
