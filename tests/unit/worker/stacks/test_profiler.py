"""A profile weighs what it sees by the time that has passed, and gives the interpreter back as it was."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from forkserver.ipc.messages import BeginProfile
from forkserver.ipc.profile_records import (
    ProfiledPath,
    ProfileEnd,
    ProfileLoss,
    ProfileRecord,
    ProfileSample,
    decode_records,
)
from forkserver.ipc.report_ring import Ends, Inbox, Outbox
from forkserver.linux.sockets.plain_socket import socketpair
from forkserver.worker.stacks.profiler import Profile, refuse
from forkserver.worker.stacks.serving_threads import ThreadAtWork

MS = 1_000_000


class Threads:
    """In place of ServingThreads: what is at work is the test's."""

    several = False

    def __init__(self) -> None:
        self.seen: list[ThreadAtWork] = []
        self.lasted = 0

    def work(self, since: int = 0, line: str = "") -> None:
        self.seen = [ThreadAtWork([sys._getframe()], since, line)]

    def at_work(self, *_: object) -> list[ThreadAtWork]:
        return self.seen


class Recorder:
    """A profile of a stand-in's threads, its client's end, and a clock that each wait moves."""

    def __init__(self, seconds: float = 1.0, paths: bool = True) -> None:
        self.now = 1000 * MS
        self.threads = Threads()
        self.inbox = Inbox()
        self.client, link = socketpair(socket.SOCK_STREAM)
        outbox = Outbox(Ends(*map(os.dup, self.inbox.ends)))
        order = BeginProfile(seconds, 100, paths)
        self.profile = Profile(order, outbox, link, self.threads, lambda: self.now, dict)  # type: ignore[arg-type]

    def records(self) -> list[ProfileRecord]:
        found: list[ProfileRecord] = []
        while (frame := self.inbox.take_frame()) is not None:
            found += decode_records(frame)
        return found

    def samples(self) -> list[ProfileSample]:
        return [each for each in self.records() if isinstance(each, ProfileSample)]

    def look(self, elapsed: int) -> None:
        self.now += elapsed
        self.profile.look(self.now, elapsed)

    def close(self) -> None:
        self.profile.close()
        self.inbox.close()
        self.client.close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.close()


def test_a_sample_weighs_the_time_since_the_last_look(recorder: Recorder) -> None:
    recorder.threads.work(since=1)
    recorder.look(8 * MS)
    recorder.look(13 * MS)
    assert [each.weight for each in recorder.samples()] == [8 * MS, 13 * MS]


def test_a_call_that_held_the_interpreter_has_all_of_that_time(recorder: Recorder) -> None:
    """No thread can look meanwhile; the first look after it sees the call that held the lock."""
    recorder.threads.work(since=1)
    recorder.look(3000 * MS)
    (sample,) = recorder.samples()
    assert sample.weight == 3000 * MS


def test_a_call_that_began_since_the_last_look_does_not_have_what_was_before(recorder: Recorder) -> None:
    recorder.threads.work(since=recorder.now + 2960 * MS)
    recorder.look(3000 * MS)
    assert [each.weight for each in recorder.samples()] == [40 * MS]


def test_what_ended_while_it_could_not_look_is_counted_as_unseen(recorder: Recorder) -> None:
    recorder.threads.lasted += 2900 * MS
    recorder.look(3000 * MS)
    (sample,) = recorder.samples()
    assert (sample.call, sample.weight) == (1, 2900 * MS)
    recorder.threads.lasted += 9 * MS
    recorder.look(10 * MS)
    assert recorder.samples() == []


def test_a_thread_that_is_idle_is_no_sample(recorder: Recorder) -> None:
    recorder.look(10 * MS)
    assert recorder.samples() == []


def test_the_path_of_a_request_is_told_with_its_sample(recorder: Recorder) -> None:
    recorder.threads.work(1, "GET /a")
    recorder.look(10 * MS)
    recorder.threads.work(1, "")
    recorder.look(10 * MS)
    assert [each.path for each in recorder.samples()] == [1, 0]


def test_what_the_client_does_not_read_is_counted_and_the_rest_is_told_later(recorder: Recorder) -> None:
    """It may be stopped; the worker never waits for it."""
    recorder.threads.work(1)
    for _ in range(8000):
        recorder.look(10 * MS)
    records = recorder.records()
    recorder.threads.work(1, "GET /new")
    recorder.look(10 * MS)
    last = recorder.records()
    samples = [each for each in records if isinstance(each, ProfileSample)]
    assert 0 < len(samples) < 8000
    lost = sum(each.samples for each in (*records, *last) if isinstance(each, ProfileLoss))
    assert lost == 8000 - len(samples)
    assert ProfiledPath("GET /new") in last
    assert isinstance(last[-1], ProfileSample)
    assert last[-1].path == 1


def test_it_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setattr(Profile, "_sleep", lambda _, nanoseconds: _wait(recorder, nanoseconds))
    recorder.threads.work(1)
    recorder.profile.run()
    records = recorder.records()
    assert records[-1] == ProfileEnd("")
    assert recorder.profile.over
    assert sum(each.weight for each in records if isinstance(each, ProfileSample)) == 1000 * MS


def _wait(recorder: Recorder, nanoseconds: int) -> bool:
    recorder.now += nanoseconds
    return False


def test_it_ends_when_its_client_has_gone(recorder: Recorder) -> None:
    recorder.client.close()
    recorder.threads.work(1)
    recorder.profile.run()
    assert recorder.samples() == []
    assert recorder.profile.over


def test_a_fault_is_told_to_the_client(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setattr(Profile, "look", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        recorder.profile.run()
    assert recorder.records()[-1] == ProfileEnd("a fault of forkserver's; the error log has more")


def test_threads_have_the_time_again_that_they_had_before() -> None:
    """Other threads give way sooner while it sleeps, and as ever while it looks, and afterwards."""
    before = sys.getswitchinterval()
    recorder = Recorder()
    intervals: list[float] = []

    def at_work(*_: object) -> list[ThreadAtWork]:
        intervals.append(sys.getswitchinterval())
        recorder.client.close()
        return []

    recorder.threads.at_work = at_work  # type: ignore[method-assign]
    recorder.profile._clock = _running(recorder)  # type: ignore[assignment]
    try:
        recorder.profile.run()
        assert set(intervals) == {before}
        assert sys.getswitchinterval() == before
    finally:
        sys.setswitchinterval(before)
        recorder.close()


def test_what_the_application_sets_meanwhile_stays() -> None:
    before = sys.getswitchinterval()
    recorder = Recorder()
    try:
        recorder.profile._sleep(0)
        sys.setswitchinterval(0.002)
        recorder.profile._sleep(0)
        assert sys.getswitchinterval() == pytest.approx(0.002)
    finally:
        sys.setswitchinterval(before)
        recorder.close()


def test_several_threads_give_way_sooner_for_a_moment_before_a_look_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """They compete, and all the time it would cost each request a tenth."""
    before = sys.getswitchinterval()
    monkeypatch.setattr(Threads, "several", True)
    recorder = Recorder()
    waits: list[tuple[float, bool]] = []

    def has_event(_number: int, _events: int, seconds: float) -> bool:
        waits.append((seconds, sys.getswitchinterval() == before))
        return False

    monkeypatch.setattr("forkserver.linux.syscalls.has_event", has_event)
    try:
        for looks in range(20):
            recorder.profile._looks = looks
            waits.clear()
            assert not recorder.profile._sleep(10 * MS)
            (long, usual), (short, usual_at_last) = waits
            assert (usual, usual_at_last) == (True, False)
            assert short < 0.003 < long
            assert long + short == pytest.approx(0.01)
    finally:
        sys.setswitchinterval(before)
        recorder.close()


def _running(recorder: Recorder) -> Any:
    def clock() -> int:
        recorder.now += MS
        return recorder.now

    return clock


def test_a_refusal_is_told_and_ends_the_ring() -> None:
    inbox = Inbox()
    client, link = socketpair(socket.SOCK_STREAM)
    with client:
        refuse(Outbox(Ends(*map(os.dup, inbox.ends))), link, "no thread to be had")
        frame = inbox.take_frame()
        assert frame is not None
        assert decode_records(frame) == [ProfileEnd("no thread to be had")]
        assert client.recv(1) == b""
    inbox.close()
