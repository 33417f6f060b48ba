"""A pid that a template has named becomes a worker's only where the kernel confirms it."""

from __future__ import annotations

import signal

import pytest

from forkserver.master.model.fleet import Fleet
from forkserver.master.model.lifecycle import NEVER, Template, Worker
from forkserver.master.processes.children import NotHeldError
from forkserver.master.processes.worker_pids import MOST_STRANGERS, WorkerPids, is_end
from harness.master import PlayedChildren

PID = 4711


class Claims:
    """One worker that a template was told to fork."""

    def __init__(self) -> None:
        self.children = PlayedChildren()
        self.fleet = Fleet(1)
        self.fleet.templates.append(Template(1, 4710, True, NEVER))
        self.worker = Worker(0, 1, 0, NEVER)
        self.fleet.add(self.worker)
        self.pids = WorkerPids(self.fleet, self.children)

    def refusal(self) -> str:
        return self.pids.refusal(self.worker, roles={4710})


@pytest.fixture
def claims() -> Claims:
    return Claims()


def test_without_a_name_no_pid_is_taken(claims: Claims) -> None:
    assert claims.refusal() == "no template has named it"


def test_a_claim_that_holds_gives_the_pid_once(claims: Claims) -> None:
    claims.pids.claim(claims.worker, PID)
    assert claims.refusal() == ""
    assert claims.children.pids == {claims.worker: PID}
    assert claims.pids.take(claims.worker) == PID
    assert claims.refusal() == "no template has named it"


def test_a_pid_with_another_role_is_refused_unseen(claims: Claims) -> None:
    claims.pids.claim(claims.worker, 4710)
    assert claims.refusal() == "pid 4710 has another role"
    assert claims.children.pids == {}


def test_a_pid_that_is_no_child_is_refused(claims: Claims) -> None:
    claims.children.strangers.add(PID)
    claims.pids.claim(claims.worker, PID)
    assert claims.refusal() == f"pid {PID} is no child of the master's"


def test_where_no_descriptor_is_left_the_claim_stays(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(24, "Too many open files")

    claims.pids.claim(claims.worker, PID)
    with monkeypatch.context() as patch:
        patch.setattr(claims.children, "hold", full)
        with pytest.raises(NotHeldError, match="cannot hold a worker: Too many open files"):
            claims.refusal()
    assert claims.refusal() == ""


def test_a_child_whose_end_has_just_come_needs_no_holding(claims: Claims) -> None:
    """The kernel has told its end to us, so it was our child; its number may be another's from now on."""
    claims.children.changed.append((PID, 256))
    assert claims.pids.reap() == [(PID, 256)]
    claims.pids.claim(claims.worker, PID)
    assert claims.refusal() == ""
    assert claims.children.pids == {}


def test_an_end_is_kept_until_no_worker_is_unnamed(claims: Claims) -> None:
    claims.pids.add_stranger(PID, 256)
    claims.pids.end_turn()
    assert claims.pids.take_end(PID) == 256
    assert claims.pids.take_end(PID) is None
    claims.pids.add_stranger(PID, 256)
    claims.fleet.index.remove(claims.worker)
    claims.pids.end_turn()
    assert claims.pids.take_end(PID) is None


def test_an_application_that_leaves_any_number_of_processes_behind_takes_bounded_memory(claims: Claims) -> None:
    for pid in range(MOST_STRANGERS + 1):
        claims.pids.add_stranger(pid, 0)
    assert claims.pids.take_end(0) is None
    assert claims.pids.take_end(1) == 0


def test_the_next_program_goes_on_with_claims_and_ends(claims: Claims) -> None:
    claims.pids.claim(claims.worker, PID)
    claims.pids.add_stranger(4712, 9)
    processes = claims.fleet.processes
    strangers, named = claims.pids.snapshot({claims.worker: 1})
    after = WorkerPids(claims.fleet, claims.children)
    after.restore(strangers, named, processes)
    assert after.take(claims.worker) == PID
    assert after.take_end(4712) == 9


def test_a_claim_for_a_place_that_is_no_worker_is_left_out(claims: Claims) -> None:
    claims.pids.restore({}, {0: PID}, claims.fleet.processes)
    assert claims.pids.snapshot({claims.worker: 1}) == ({}, {})


@pytest.mark.parametrize(
    ("status", "ended"), [(0, True), (signal.SIGKILL, True), (0x7F | signal.SIGSTOP << 8, False), (0xFFFF, False)]
)
def test_a_stop_is_no_end(status: int, ended: bool) -> None:
    assert is_end(status) == ended
