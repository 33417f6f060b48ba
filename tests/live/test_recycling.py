"""Workers that have done their work are replaced, start before stop, and nobody who is connected notices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.load import Load
from harness.processes import wait_gone


def test_recycling_by_requests_under_load_loses_nothing(serve) -> None:
    program = serve("raw:app", "-w", "4", "--max-requests", "100", "--max-requests-jitter", "20")
    first = program.workers()
    with Load(program.address, clients=8) as load:
        load.more(200)
        for worker in first:
            assert wait_gone(worker.pid)
        load.more(200)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}
    assert program.log.find(r"worker=\d gen=1 pid=\d+ is recycled: it has served 1\d\d requests")
    assert " ended: " not in program.log.text(), "who leaves as told is no death"
    assert program.stop() == 0


@pytest.mark.parametrize(
    ("setting", "reason", "ask"),
    [
        (("--max-worker-lifetime", "1"), r"its age \(max_worker_lifetime: 1 s\)", "/pid"),
        (("--max-worker-memory", "96M"), r"its memory is \d+ MiB \(max_worker_memory: 96 MiB\)", "/grow"),
    ],
    ids=["lifetime", "memory"],
)
def test_a_worker_is_replaced_for(serve, setting: tuple[str, str], reason: str, ask: str) -> None:
    """The log says what for; a connection that is kept alive lives on."""
    program = serve("faults:app", *setting)
    (worker,) = program.workers()
    with program.connect() as wire:
        for _ in range(2):
            assert wire.get(ask).status == 200
        program.log.wait(rf"worker=1 gen=1 pid={worker.pid} is recycled: {reason}")
        assert wait_gone(worker.pid)
        assert int(wire.get("/pid").text) != worker.pid
    assert program.stop() == 0


def test_a_reload_among_recycled_workers_loses_nothing(serve) -> None:
    """Both start a successor in the same slot, and the code that was wanted last is what serves."""
    program = serve("raw:app", "-w", "2", "--max-requests", "50")
    with Load(program.address, clients=4) as load:
        load.more(50)
        program.reload()
        load.more(200)
    assert load.lost == []
    assert {worker.generation for worker in program.workers()} == {2}
    assert program.stop() == 0


@pytest.fixture
def spent_while_busy(serve, gate) -> Callable:
    return lambda: serve("faults:app", "-w", "1", "--max-worker-lifetime", "1", environ=gate.environ)


def test_a_call_in_hand_is_finished_by_the_worker_that_began_it(spent_while_busy, gate) -> None:
    program = spent_while_busy()
    with program.connect() as wire:
        wire.ask("/gate")
        gate.wait_for()
        program.log.wait("is recycled: its age")
        program.log.wait("is ready", program.log.mark() - 1)
        gate.open()
        assert wire.answer().text == "passed"
    assert program.stop() == 0
