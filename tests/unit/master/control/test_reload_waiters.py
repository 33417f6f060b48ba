"""Each who waits for a reload is answered once, by the reload that began after the question."""

from __future__ import annotations

from typing import Any

from forkserver.master.control.reload_waiters import ReloadWaiters


def ask(reloads: ReloadWaiters) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    reloads.wait(said.append)
    return said


def test_the_generation_that_was_begun_after_the_question_answers() -> None:
    """The one that was loading already may have read the files before they changed."""
    reloads = ReloadWaiters()
    reloads.began(2)
    said = ask(reloads)
    reloads.serves(2, "serves")
    assert said == []
    reloads.began(3)
    reloads.serves(3, "generation 3 serves")
    assert said == [{"ok": True, "generation": 3, "text": "generation 3 serves"}]


def test_a_later_generation_answers_for_an_earlier_one() -> None:
    reloads, said = ReloadWaiters(), []
    reloads.wait(said.append)
    reloads.began(2)
    reloads.serves(3, "generation 3 serves")
    assert said[0]["generation"] == 3
    assert reloads.waiting == 0


def test_a_failure_is_told_with_its_traceback_and_forgotten_with_the_next_reload() -> None:
    reloads = ReloadWaiters()
    said = ask(reloads)
    reloads.began(2)
    reloads.failed(2, "reload failed: no", "Traceback")
    assert said == [{"ok": False, "error": "reload failed: no", "details": "Traceback"}]
    assert reloads.last_failure == "reload failed: no"
    reloads.began(3)
    assert reloads.last_failure == ""


def test_a_failure_that_is_heard_after_the_next_reload_began_is_not_the_last_ones() -> None:
    """A reload is asked for while the one before hangs: both are told at the same time that it has failed."""
    reloads = ReloadWaiters()
    first = ask(reloads)
    reloads.began(2)
    second = ask(reloads)
    reloads.began(3)
    reloads.failed(2, "reload failed: it hung", "")
    reloads.serves(3, "generation 3 serves")
    assert (first[0]["ok"], second[0]["ok"]) == (False, True)
    assert reloads.last_failure == ""


def test_wrong_settings_answer_who_has_asked_and_not_who_waits_for_code() -> None:
    reloads = ReloadWaiters()
    first = ask(reloads)
    reloads.began(2)
    second = ask(reloads)
    reloads.refused("reload failed: workers")
    assert (first, second[0]["ok"]) == ([], False)


def test_a_stop_answers_everyone_once() -> None:
    reloads = ReloadWaiters()
    first = ask(reloads)
    reloads.began(2)
    second = ask(reloads)
    reloads.stop("stopping")
    reloads.serves(2, "too late")
    assert first == second == [{"ok": False, "error": "stopping"}]
