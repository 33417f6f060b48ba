"""What a worker writes of a profile is read to the first thing that cannot be meant, and never believed beyond that."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.cli.profile.profile import NO_REQUEST, OTHERS, Function
from forkserver.cli.profile.recording import Recording
from forkserver.ipc import profile_records
from forkserver.ipc.profile_records import (
    ProfiledCall,
    ProfiledFunction,
    ProfiledPath,
    ProfileEnd,
    ProfileLoss,
    ProfileRecord,
    ProfileSample,
    encode_record,
)
from forkserver.ipc.report_ring import Outbox, make_ends
from forkserver.linux.sockets.plain_socket import socketpair

TOLD = {"worker": 1, "pid": 41, "generation": 1}
KNOWN: list[ProfileRecord] = [
    ProfiledFunction(10, "shop", "view", "/srv/shop.py"),
    ProfiledFunction(20, "shop", "query", "/srv/shop.py"),
    ProfiledCall(0, 0),
    ProfiledCall(1, 1),
    ProfiledPath("GET /a"),
]
VIEW, QUERY = Function("shop", "view", "/srv/shop.py", 10), Function("shop", "query", "/srv/shop.py", 20)


class Written:
    """A recording, and the worker's end."""

    def __init__(self, paths: bool = False) -> None:
        ends = make_ends()
        self.worker = Outbox(type(ends)(*map(os.dup, ends)))
        ours, self.link = socketpair(socket.SOCK_STREAM)
        self.recording = Recording(TOLD, *ends, ours.detach(), paths)

    def write(self, *records: ProfileRecord) -> Recording:
        self.write_bytes(b"".join(map(encode_record, records)))
        return self.recording

    def write_bytes(self, data: bytes) -> None:
        assert self.worker.put_frame(data)
        self.recording.read()

    def close(self) -> None:
        self.recording.close()
        self.worker.close()
        self.link.close()


@pytest.fixture
def written() -> Iterator[Written]:
    made = Written()
    yield made
    made.close()


def test_samples_become_stacks(written: Written) -> None:
    recording = written.write(*KNOWN, ProfileSample(2, 1, 30), ProfileSample(2, 0, 5), ProfileSample(1, 0, 7))
    times = recording.times()
    assert times.weights == {(VIEW, QUERY): 35, (VIEW,): 7}
    assert times.samples == 3
    assert recording.begun
    assert not recording.ended
    written.write(ProfileLoss(4), ProfileEnd(""))
    assert (recording.ended, recording.why, recording.lost) == (True, "", 4)


def test_with_paths_a_stack_begins_with_its_request() -> None:
    written = Written(paths=True)
    times = written.write(*KNOWN, ProfileSample(2, 1, 30), ProfileSample(2, 0, 5)).times()
    assert times.weights == {
        (Function("", "GET /a"), VIEW, QUERY): 30,
        (Function("", NO_REQUEST), VIEW, QUERY): 5,
    }
    written.close()


@pytest.mark.parametrize(
    "lie",
    [
        ProfileSample(3, 0, 1),
        ProfileSample(1, 2, 1),
        ProfiledCall(3, 0),
        ProfiledCall(0, 2),
    ],
)
def test_what_names_the_unknown_ends_the_reading_and_keeps_what_came_before(
    written: Written, lie: ProfileRecord
) -> None:
    recording = written.write(*KNOWN, ProfileSample(1, 0, 9), lie)
    assert recording.ended
    assert recording.why.startswith("what it writes is no profile: ")
    assert recording.times().weights == {(VIEW,): 9}


@pytest.mark.parametrize(
    ("bound", "record"),
    [
        ("MOST_FUNCTIONS", ProfiledFunction(1, "m", "n", "f")),
        ("MOST_CALLS", ProfiledCall(0, 0)),
        ("MOST_PATHS", ProfiledPath("GET /")),
    ],
)
def test_more_than_a_worker_may_tell_is_no_profile(
    written: Written, monkeypatch: pytest.MonkeyPatch, bound: str, record: ProfileRecord
) -> None:
    """It must not fill the memory of this program."""
    monkeypatch.setattr(profile_records, bound, 8)
    recording = written.write(*KNOWN, *[record] * 20)
    assert recording.why.startswith("what it writes is no profile")


def test_more_stacks_than_are_kept_are_counted_with_others(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forkserver.cli.profile.recording.MOST_STACKS", 1)
    times = written.write(*KNOWN, ProfileSample(1, 0, 9), ProfileSample(2, 0, 3)).times()
    assert times.weights == {(VIEW,): 9, (Function("", OTHERS),): 3}


def test_names_are_made_printable(written: Written) -> None:
    """They end in a terminal, and root may read them."""
    function = ProfiledFunction(1, "\x1b[2J", "n\u202e\n", "\x9bf")
    recording = written.write(function, ProfiledCall(0, 0), ProfileSample(1, 0, 1), ProfileEnd("\x1b[31m"))
    ((seen,),) = recording.times().weights
    assert (*seen[:3], recording.why) == ("\\x1b[2J", "n\\u202e\\n", "\\x9bf", "\\x1b[31m")


def test_figures_are_bounded(written: Written) -> None:
    samples = [ProfileSample(1, 0, (1 << 64) - 1)] * 3
    recording = written.write(*KNOWN, *samples, ProfileLoss((1 << 64) - 1))
    assert recording.times().total == recording.lost == 2**53


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_are_read_without_harm(data: bytes) -> None:
    written = Written()
    try:
        written.write_bytes(data)
        written.recording.times()
    finally:
        written.close()


@pytest.mark.parametrize("size", [0, 100])
def test_memory_that_could_be_cut_off_is_not_mapped(size: int) -> None:
    """A process that could truncate it would kill this one (SIGBUS)."""
    memory, bell = os.memfd_create("test"), os.eventfd(0)
    os.ftruncate(memory, size)
    with pytest.raises(OSError, match="no ring of a profile"):
        Recording(TOLD, memory, bell, -1, False)
    os.close(memory)
    os.close(bell)


def test_what_the_master_says_of_a_worker_has_to_be_numbers() -> None:
    told: dict[str, Any] = {"worker": "\x1b", "pid": 1}
    with pytest.raises(ValueError, match="invalid literal"):
        Recording(told, -1, -1, -1, False)
