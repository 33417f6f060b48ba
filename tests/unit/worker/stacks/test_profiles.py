"""One profile at a time is taken of a worker, and its client is told why there is none."""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.ipc import messages
from forkserver.ipc.profile_records import ProfiledFunction, ProfileEnd, ProfileRecord, decode_records
from forkserver.ipc.report_ring import Inbox
from forkserver.linux.sockets.plain_socket import socketpair
from harness import BOUND
from harness.worker_process import StartWorker, WorkerUnderTest

ORDER = messages.BeginProfile(60.0, 100, False)


class Client:
    """What a client has of one profile."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.link, self.other = socketpair(socket.SOCK_STREAM)
        self.link.settimeout(BOUND)

    def descriptors(self) -> tuple[int, ...]:
        """Those of the worker."""
        return (*map(os.dup, self.inbox.ends), self.other.detach())

    def records(self) -> list[ProfileRecord]:
        """What was written until the worker closed its end."""
        assert self.link.recv(1) == b""
        found: list[ProfileRecord] = []
        while (frame := self.inbox.take_frame()) is not None:
            found += decode_records(frame)
        return found

    def has_begun(self) -> bool:
        """Whether something is written, once it is."""
        return bool(select.select([self.inbox.ends.bell], [], [], BOUND)[0])

    def close(self) -> None:
        self.inbox.close()
        self.link.close()
        self.other.close()


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    made = [Client(), Client()]
    yield made
    for each in made:
        each.close()
    _join()


def _join() -> None:
    for thread in threading.enumerate():
        if thread.name == "profiler":
            thread.join(BOUND)


@pytest.fixture
def here(start_worker: StartWorker) -> WorkerUnderTest:
    made = start_worker()
    made.serving()
    return made


def begin(worker: WorkerUnderTest, client: Client) -> None:
    worker.worker._begin_profile(ORDER, client.descriptors())


def test_a_profile_begins_and_ends_with_its_client(here: WorkerUnderTest, clients: list[Client]) -> None:
    client, after = clients
    begin(here, client)
    assert client.has_begun()
    client.link.close()
    _join()
    begin(here, after)
    assert after.has_begun()
    after.link.close()


def test_a_second_client_is_refused_while_one_is_served(here: WorkerUnderTest, clients: list[Client]) -> None:
    first, second = clients
    begin(here, first)
    begin(here, second)
    assert second.records() == [ProfileEnd("another profile of it is being taken; ask again when that is over")]
    first.link.close()


def test_without_a_thread_the_client_is_told(
    here: WorkerUnderTest, clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    begin(here, clients[0])
    (told,) = clients[0].records()
    assert isinstance(told, ProfileEnd)
    assert told.why.startswith("can't start new thread")


def test_an_order_without_its_descriptors_is_logged(here: WorkerUnderTest) -> None:
    here.order(ORDER)
    assert "with 0 descriptors" in Path(here.log.target).read_text()


def test_a_fault_ends_the_profile_and_is_logged(
    here: WorkerUnderTest, clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forkserver.worker.stacks.profiler.Profile._pause", lambda _: 1 / 0)
    begin(here, clients[0])
    records = clients[0].records()
    assert isinstance(records[0], ProfiledFunction)
    assert records[-1] == ProfileEnd("a fault of forkserver's; the error log has more")
    assert "ZeroDivisionError" in Path(here.log.target).read_text()


def test_a_process_that_the_application_forks_keeps_nothing_of_a_profile(
    here: WorkerUnderTest, clients: list[Client]
) -> None:
    """Its client sees the end of the worker's copy, whatever becomes of the child."""
    before = sys.getswitchinterval()
    begin(here, clients[0])
    profiles = here.worker._profiles
    assert profiles is not None
    assert profiles._profile is not None
    outbox = profiles._profile._outbox
    bell = outbox.fileno()
    pid = os.fork()
    if pid == 0:
        profiles.forget()
        closed = not os.path.exists(f"/proc/self/fd/{bell}") and outbox.fileno() < 0
        os._exit(0 if closed and sys.getswitchinterval() == before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    clients[0].link.close()
