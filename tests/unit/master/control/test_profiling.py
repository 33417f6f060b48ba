"""A profile is begun without its samples: the worker gets one half, the client the other, the master keeps nothing."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest

from forkserver.ipc import report_ring
from forkserver.ipc.messages import BeginProfile
from forkserver.ipc.report_ring import Ends, Inbox, Outbox, ReportRingSnapshot
from forkserver.master.control import profiling
from forkserver.master.control.profiling import DESCRIPTORS_EACH, begin
from forkserver.master.control.protocol import CommandError
from forkserver.master.model.lifecycle import State, Worker
from harness.control_clients import NOW, STATUS, ControlClients
from harness.master import Service

ORDER = BeginProfile(1.0, 100, False)


def worker(number: int) -> Worker:
    made = Worker(number - 1, 1, number, NOW)
    made.pid = 1000 + number
    return made


def close(numbers: Any) -> None:
    for number in numbers:
        os.close(number)


class Workers:
    """Takes orders as workers do."""

    def __init__(self, deaf: tuple[int, ...] = ()) -> None:
        self.deaf = deaf
        self.halves: list[list[int]] = []

    def send(self, to: Worker, order: BeginProfile, descriptors: Any) -> bool:
        assert order == ORDER
        if to.slot + 1 in self.deaf:
            return False
        self.halves.append([os.dup(number) for number in descriptors])
        return True


def test_what_a_worker_writes_the_client_reads() -> None:
    workers = Workers()
    reply, (memory, bell, link) = begin([worker(1)], ORDER, workers.send)
    assert reply["workers"] == [{"worker": 1, "pid": 1001, "generation": 1}]
    assert reply["left_out"] == []
    (half,) = workers.halves
    outbox, inbox = Outbox(Ends(*half[:2])), Inbox(ReportRingSnapshot(memory, bell, 0, 0))
    assert outbox.put_frame(b"a sample")
    assert inbox.take_frame() == b"a sample"
    for end in (outbox, inbox):
        end.close()
    close((half[2], link))


def test_a_worker_cannot_send_a_descriptor_to_the_client() -> None:
    """It would be closed in the context of the receiver, which the kernel makes wait for one that lingers."""
    workers = Workers()
    _, numbers = begin([worker(1)], ORDER, workers.send)
    with socket.socket(fileno=workers.halves[0].pop()) as sock, pytest.raises(BrokenPipeError):
        socket.send_fds(sock, [b"."], [0])
    close([*workers.halves[0], *numbers])


def test_each_side_sees_the_end_of_the_other() -> None:
    workers = Workers()
    _, (*ring, link) = begin([worker(1)], ORDER, workers.send)
    with socket.socket(fileno=workers.halves[0].pop()) as sock:
        os.close(link)
        assert sock.recv(1) == b""
    close([*workers.halves[0], *ring])


def test_a_worker_that_takes_no_order_is_left_out_and_named() -> None:
    workers = Workers(deaf=(2,))
    reply, numbers = begin([worker(1), worker(2)], ORDER, workers.send)
    assert len(numbers) == DESCRIPTORS_EACH
    assert [each["worker"] for each in reply["left_out"]] == [2]
    assert "stuck in C code" in reply["left_out"][0]["why"]
    close([*numbers, *workers.halves[0]])
    with pytest.raises(CommandError, match="worker=2 gen=1 pid=1002: it takes no orders"):
        begin([worker(2)], ORDER, Workers(deaf=(2,)).send)


def test_no_more_workers_are_begun_than_descriptors_go_with_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "MOST_PROFILED", 1)
    workers = Workers()
    reply, numbers = begin([worker(1), worker(2)], ORDER, workers.send)
    assert [each["worker"] for each in reply["workers"]] == [1]
    assert reply["left_out"] == [{"worker": 2, "pid": 1002, "why": "1 workers are sampled at most"}]
    close([*numbers, *workers.halves[0]])


def test_without_a_descriptor_nothing_is_begun_and_nothing_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    ends, made = report_ring.make_ends, []

    def make() -> Ends:
        if made:
            raise OSError(24, "Too many open files")
        made.append(ends())
        return made[0]

    monkeypatch.setattr(report_ring, "make_ends", make)
    workers = Workers()
    with pytest.raises(CommandError, match="Too many open files; ask again in a moment"):
        begin([worker(1), worker(2)], ORDER, workers.send)
    close(workers.halves[0])
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_command_orders_the_workers_that_serve(service: Service) -> None:
    answers: list[tuple[dict[str, Any], list[int]]] = []
    before = len(os.listdir("/proc/self/fd"))
    line = json.dumps({"command": "profile", "seconds": 3, "rate": 50}).encode()
    service.obedient = False
    service.master._handlers.ask(line, lambda *answer: answers.append(answer), service.now)
    ((reply, numbers),) = answers
    assert [each["pid"] for each in reply["workers"]] == service.pids()
    orders = [order for child in service.workers for order, descriptors in child.hear() if close(descriptors) is None]
    assert orders == [BeginProfile(3.0, 50, False)] * 2
    close(numbers)
    assert len(os.listdir("/proc/self/fd")) == before
    assert "forkserverctl: profile seconds=3.0 rate=50 paths=False" in service.said()


def test_a_worker_that_does_not_serve_is_refused_with_what_it_does(service: Service) -> None:
    service.worker(service.pids()[0]).state = State.LEAVING
    answers: list[dict[str, Any]] = []
    service.master._handlers.ask(b'{"command": "profile", "worker": 1}', answers.append, service.now)
    assert "no worker that serves can be sampled: worker=1 gen=1" in answers[0]["error"]
    assert "is leaving" in answers[0]["error"]


def test_descriptors_go_with_the_answer_and_are_the_clients_alone(clients: ControlClients) -> None:
    client = clients.connect()
    client.sendall(STATUS)
    (asked,) = clients.turn()
    reading, writing = os.pipe()
    asked.answer({"ok": True}, NOW, [reading])
    data, numbers, _, _ = socket.recv_fds(client, 4096, 4)
    assert json.loads(data) == {"ok": True}
    os.close(writing)
    assert os.read(numbers[0], 1) == b""
    close(numbers)
    assert not os.path.exists(f"/proc/self/fd/{reading}")


def test_descriptors_for_a_client_that_has_gone_are_closed(clients: ControlClients) -> None:
    client = clients.connect()
    client.sendall(STATUS)
    (asked,) = clients.turn()
    asked.close()
    reading, writing = os.pipe()
    asked.answer({"ok": True}, NOW, [reading])
    assert not os.path.exists(f"/proc/self/fd/{reading}")
    os.close(writing)
