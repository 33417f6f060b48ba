"""Workers that have done their work are replaced, start before stop, and nobody who is connected notices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.gate import Gate
from harness.load import Load
from harness.processes import wait_gone
from harness.program import StartProgram


def test_recycling_by_requests_under_load_loses_nothing(program: StartProgram) -> None:
    server = program("raw:app", "-w", "4", "--max-requests", "100", "--max-requests-jitter", "20")
    first = server.workers()
    with Load(server.address, clients=8) as load:
        load.more(200)
        for worker in first:
            assert wait_gone(worker.pid)
        load.more(200)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}
    server.log.wait(r"worker=\d gen=1 pid=\d+ is recycled: it has served 1\d\d requests")
    assert " ended: " not in server.log.text(), "who leaves as told is no death"
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("setting", "reason", "ask"),
    [
        (("--max-worker-lifetime", "1"), r"its age \(max_worker_lifetime: 1 s\)", "/pid"),
        (("--max-worker-memory", "96M"), r"its memory is \d+ MiB \(max_worker_memory: 96 MiB\)", "/grow"),
    ],
    ids=["lifetime", "memory"],
)
def test_a_worker_is_replaced_for(program: StartProgram, setting: tuple[str, str], reason: str, ask: str) -> None:
    """The log says what for; a connection that is kept alive lives on."""
    server = program("faults:app", *setting)
    (worker,) = server.workers()
    with server.connect() as wire:
        for _ in range(2):
            assert wire.get(ask).status == 200
        server.log.wait(rf"worker=1 gen=1 pid={worker.pid} is recycled: {reason}")
        assert wait_gone(worker.pid)
        assert int(wire.get("/pid").text) != worker.pid
    assert server.stop() == 0


def test_a_reload_among_recycled_workers_loses_nothing(program: StartProgram) -> None:
    """Both start a successor in the same slot, and the code that was wanted last is what serves."""
    server = program("raw:app", "-w", "2", "--max-requests", "50")
    with Load(server.address, clients=4) as load:
        load.more(50)
        server.reload()
        load.more(200)
    assert load.lost == []
    assert {worker.generation for worker in server.workers()} == {2}
    assert server.stop() == 0


@pytest.fixture
def spent_while_busy(program: StartProgram, gate: Gate) -> Callable:
    return lambda: program("faults:app", "-w", "1", "--max-worker-lifetime", "1", environ=gate.environ)


def test_a_call_in_hand_is_finished_by_the_worker_that_began_it(spent_while_busy: Callable, gate: Gate) -> None:
    server = spent_while_busy()
    with server.connect() as wire:
        wire.ask("/gate")
        gate.wait_for()
        server.log.wait("is recycled: its age")
        server.log.wait("is ready", server.log.mark() - 1)
        gate.open()
        assert wire.answer().text == "passed"
    assert server.stop() == 0
