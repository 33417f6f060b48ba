"""The extension leaks nothing, and an allocation that fails is a MemoryError, wherever it fails.

``REQUESTS=1000000`` looks longer for leaks.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from forkserver.logs.access_format import Part
from forkserver.logs.access_log import AccessLog
from harness import plain_connections
from harness.alone import alone
from harness.plain_calls import (
    ALL_FACTS,
    HEAD,
    SEALED_WAYS,
    WAYS,
    PlainCalls,
    Start,
    generates,
    large,
    made,
    plain,
    raises,
)
from harness.plain_connections import PlainConnections

pytestmark = pytest.mark.extension
ROUNDS = int(os.environ.get("REQUESTS", "20000")) // WAYS
ALLOCATIONS = 120  # more than any request makes
App = Callable[[dict[str, Any], Start], Any]
SERVED = int(os.environ.get("REQUESTS", "20000")) // 10
AGAIN = 3  # measurements where something seems to have grown
SLACK = 200  # of what the interpreter itself keeps or drops meanwhile


FORMATS = (
    "combined",
    "json",
    '%(h)s %(m)s %(U)s?%(q)s %(H)s "%({X-A}i)s" "%({Content-Type}o)s" %({PATH_INFO}e)s %(D)s %(wait)s %(app)s %(id)s',
)


def parts_of(form: str) -> tuple[Part, ...]:
    log = AccessLog(None, form=form)
    log.close()
    return log.parts


@pytest.fixture(params=map(parts_of, FORMATS), ids=("combined", "json", "atoms"))
def calls(request: pytest.FixtureRequest) -> Iterator[PlainCalls]:
    yield from made(request.param)


def test_references_are_flat_over_many_requests(calls: PlainCalls) -> None:
    for way in range(60 * WAYS):
        calls.call(way)
    rounds = ROUNDS // len(ALL_FACTS) * len(ALL_FACTS)

    def grown() -> dict[str, int]:
        before = calls.references()
        for number in range(rounds * WAYS):
            calls.call(number)
        calls.context.hand_over_lines()
        after = calls.references()
        return {name: more for name in before if (more := after[name] - before[name]) >= SLACK}

    # Blocks are those of the whole process, in which a thread or a cache of another test may have taken some meanwhile.
    # A leak of ours grows each time.
    found = grown()
    for _ in range(AGAIN if found else 0):
        found = {name: more for name, more in grown().items() if name in found}
    assert found == {}
    assert calls.logged == calls.context.served > ROUNDS


def test_an_allocation_that_fails_costs_one_request(calls: PlainCalls) -> None:
    """Each allocation of each way fails once; then the next request is served as ever."""
    _testcapi = pytest.importorskip("_testcapi", exc_type=ImportError)

    def check() -> None:
        gc.disable()  # what a collection allocates is no concern of ours, nor what a measurement of coverage does
        sys.settrace(None)
        ways = {*range(WAYS), *SEALED_WAYS}
        failed = sum(_fails(calls, way, start, _testcapi) for way in ways for start in range(ALLOCATIONS))
        assert failed > 10 * len(ways)
        served = calls.context.served
        calls.call(0)
        assert calls.context.served == served + 1

    alone(check)


def _fails(calls: PlainCalls, way: int, start: int, _testcapi: object) -> bool:
    _testcapi.set_nomemory(start, start + 1)  # type: ignore[attr-defined]
    try:
        calls.call(way)
    except (MemoryError, SystemError):  # the latter is CPython's own where it cannot make a traceback
        return True
    finally:
        _testcapi.remove_mem_hooks()  # type: ignore[attr-defined]
    return False


@pytest.fixture
def connections() -> Iterator[PlainConnections]:
    yield from plain_connections.made()


@pytest.mark.parametrize("app", [plain, large, raises, generates])
def test_a_connection_that_is_served_again_and_again_leaves_nothing(connections: PlainConnections, app: App) -> None:
    connection = connections.connect()

    def grown() -> int:
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(SERVED):
            connections.serve_again(connection, HEAD, app)
        gc.collect()
        return sys.getallocatedblocks() - before

    grown()
    assert any(grown() < SLACK for _ in range(AGAIN))


@pytest.mark.parametrize("app", [plain, large, raises])
def test_an_allocation_that_fails_costs_one_connection_its_answer(connections: PlainConnections, app: App) -> None:
    _testcapi = pytest.importorskip("_testcapi", exc_type=ImportError)

    def check() -> None:
        gc.disable()
        sys.settrace(None)
        connection, failed = connections.connect(), 0
        for start in range(ALLOCATIONS):
            fail = partial(_testcapi.set_nomemory, start, start + 1)  # not in Python's own code: some versions crash
            try:
                told = connections.serve_again(connection, HEAD, app, fail, _testcapi.remove_mem_hooks)
            except (MemoryError, SystemError):
                failed += 1
            else:
                failed += any(isinstance(error, MemoryError) for error in told)
        assert failed
        served = connections.context.served
        connections.serve_again(connection, HEAD, plain)
        assert connections.context.served == served + 1

    alone(check)


def test_a_context_goes_with_what_it_refers_to(calls: PlainCalls) -> None:
    """The loop has the context, which has the loop."""
    gc.collect()  # what earlier tests have left
    count = _contexts(calls)
    circle = PlainCalls()
    circle.close()
    assert _contexts(calls) == count + 1
    del circle
    gc.collect()
    assert _contexts(calls) == count


IN_A_CIRCLE = """
import gc
from harness.alone import alone
from harness.plain_calls import PlainCalls, make_row
gc.collect()
gc.disable()
row = make_row()
circle = PlainCalls(row)
circle.close()
del row, circle
gc.collect()
"""


def test_a_row_may_be_collected_before_its_context() -> None:
    """The collector clears the oldest first, and a memoryview that has exported its memory must not outlive that."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-P", "-c", IN_A_CIRCLE], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def _contexts(calls: PlainCalls) -> int:
    return sum(type(each) is type(calls.context) for each in gc.get_objects())
