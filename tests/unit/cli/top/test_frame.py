"""A frame fits its terminal, whatever the service tells, and says what an operator must know."""

from __future__ import annotations

import re
from typing import Any

import pytest

from forkserver.cli.top import frame, styled, words
from forkserver.cli.top.frame import Standing
from forkserver.cli.top.rates import RecentReadings
from forkserver.cli.top.session import Session
from forkserver.cli.top.styled import Style
from harness.statuses import buckets, call_of, readings_of, status_of, worker_of

WELL = Standing(1.0)
DEATH = {"worker": 1, "pid": 9, "generation": 1, "cause": "killed by SIGSEGV, a crash", "seconds": 61.0,
         "remains": "it was serving GET /pay (2.0 s)"}  # fmt: skip


def shown(
    readings: RecentReadings, columns: int = 80, rows: int = 24, *keys: str, standing: Standing = WELL
) -> list[str]:
    session = Session(readings)
    for key in keys:
        session.key(key)
    lines = frame.lines(readings, session, standing, columns, rows)
    assert len(lines) <= rows
    assert all(words.width(styled.plain(each)) <= columns for each in lines)
    return [styled.plain(each) for each in lines]


def served() -> RecentReadings:
    busy = [call_of("GET /report", 3.2)]
    return readings_of(
        status_of(100.0),
        status_of(
            102.0, answers={"2xx": 200, "4xx": 1, "5xx": 3}, application=buckets(b4=100), waiting=buckets(b0=100),
            figures={"answer_bytes": 2 << 20}, backlogs=[3], last_deaths=[DEATH],
            ends={"reload": 2, "killed by SIGSEGV (a crash)": 1},
            workers=[worker_of(1, requests=100, busy=busy), worker_of(2, requests=104)],
        ),
    )  # fmt: skip


def test_at_80_columns_and_24_rows_all_of_it_is_there() -> None:
    lines = shown(served())
    assert len(lines) == 24
    assert lines[0] == f"{'forkserver 1.2.3  myapp:app  master 40  serving':72}every 1s"
    assert lines[1] == "generation 1 for 1m42s  up 1m42s  2 of 2 workers serve  at http://127.0.0.1:8000"
    text = "\n".join(lines)
    assert re.search(r"answers/s +102 +102 +application 0\.8ms 1\.0ms 1\.0ms +0\.8ms", text)
    assert re.search(r"4xx/s +0\.5 +0\.5 +waiting +0\.1ms 0\.1ms 0\.1ms", text)
    assert re.search(r"5xx/s +1\.5 +1\.5 +bodies: 0B/s in, 1\.0M/s out", text)
    assert "busy 40% of 4 threads  backlog 3  held 6: 4 parked, 0 unsent" in text
    assert re.search(r"(?m)^ +1 101 +1 serving 1m00s +50\.0 +80% +45M.* 3\.2s GET /report$", text)
    assert "ended: 1 killed by SIGSEGV (a crash), 2 reload" in text
    assert " 1m01s ago  worker=1 gen=1 pid=9 killed by SIGSEGV, a crash; it was serving GET\n  /pay (2.0 s)" in text
    assert lines[-1].startswith("q quit")


@pytest.mark.parametrize("columns", [60, 79, 80, 132, 250])
@pytest.mark.parametrize("rows", [16, 24, 60])
@pytest.mark.parametrize("keys", [(), ("h",), ("down", "t")], ids=" ".join)
def test_a_frame_fits_with_everything_as_long_as_it_becomes(columns: int, rows: int, keys: tuple[str, ...]) -> None:
    busy = [call_of("GET /" + "日" * 300, 3.2)] * 30
    workers = [
        worker_of(
            number, pid=4_000_000 + number, generation=12345, state="draining", seconds=8e6, requests=10**12, busy=busy
        )
        for number in range(200)
    ]
    crowded = {
        "workers": workers, "app": f"a.very.{'long.' * 40}app", "text": "reload failed: " + "no such module, " * 20,
        "last_failure": "the reload has failed: " + "import of it, " * 20, "clients_wait": True, "wanted": 4096,
        "listeners": [f"http://127.0.0.1:{port}" for port in range(50)], "lost_log_lines": 10**9, "generation": 12344,
        "ends": {f"cause number {number}": 10**6 for number in range(20)}, "state": "reloading", "threads": 64,
        "last_deaths": [DEATH | {"remains": "x" * 500}] * 20, "unreachable": ["unix:/run/x.sock"] * 5,
        "figures": {"answer_bytes": 2**63, "request_bytes": 2**63},
    }  # fmt: skip
    standing = Standing(1.0, "it is away\nfor long " * 30, 1e6)
    lines = shown(readings_of(status_of(1.0), status_of(2.0, **crowded)), columns, rows, *keys, standing=standing)
    if not keys and rows >= 24:
        assert any("GET /" in each for each in lines)


@pytest.mark.parametrize(("columns", "rows"), [(59, 24), (80, 15), (1, 1), (3, 200)])
def test_a_terminal_that_is_too_small_is_told_so(columns: int, rows: int) -> None:
    assert (
        shown(served(), columns, rows)[0]
        in f"the terminal is too small: {columns}x{rows}; 60x16 at least"[:columns] + "..."
    )


def test_in_a_narrow_terminal_the_minute_goes_first() -> None:
    text = "\n".join(shown(served(), 70))
    assert text.count("p95") == 1
    assert re.search(r"answers/s +102 +102 +application 0\.8ms 1\.0ms 1\.0ms$", text, re.MULTILINE)


def test_the_chosen_worker_is_in_sight_however_many_there_are() -> None:
    readings = readings_of(status_of(1.0, workers=[worker_of(number) for number in range(1, 100)]))
    for count in (1, 15, 99):
        text = "\n".join(shown(readings, 80, 24, *["down"] * count))
        assert re.search(rf"(?m)^ +{count} +{100 + count} ", text)
    assert re.search(r"\d+ workers above, 0 below", text)


def test_a_service_that_is_not_reached_is_told_beside_what_was_last_known() -> None:
    standing = Standing(1.0, "/run/x.sock: no server listens there; start the service", 12.0)
    lines = shown(served(), standing=standing)
    assert lines[2] == "no answer for 12s: /run/x.sock: no server listens there; start the service"
    assert any("GET /report" in each for each in lines)
    assert shown(RecentReadings()) == ["asking the service"]
    assert shown(RecentReadings(), standing=standing) == [lines[2]]


def test_a_reload_is_shown_as_it_rolls() -> None:
    loading = readings_of(
        status_of(1.0, state="reloading", text="loading generation 2; generation 1 serves: 2 workers")
    )
    assert "reload: the new code is being loaded" in shown(loading)
    workers = [worker_of(1, generation=2), worker_of(1, pid=9, state="draining"), worker_of(2)]
    rolling = shown(readings_of(status_of(1.0, state="reloading", workers=workers)))
    assert "reload: [##########..........] 1 of 2 workers serve generation 2, 2 to leave" in rolling
    assert not any("reload:" in each for each in shown(served()))


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"text": "generation 1 serves: 1 of 2 workers; worker 2: exit status 1"}, "worker 2: exit status 1"),
        ({"last_failure": "reload failed: no module x"}, "reload failed: no module x"),
        ({"clients_wait": True}, "clients wait: no worker has a free thread"),
        ({"unreachable": ["unix:/x"]}, "no client can connect at unix:/x; reload to listen there again"),
        ({"lost_log_lines": 1234}, "1,234 lines are missing in the logs"),
    ],
)
def test_what_an_operator_should_know_is_told(status: dict[str, Any], told: str) -> None:
    readings = readings_of(status_of(1.0, **status))
    assert any(told in each for each in shown(readings))
    assert not any(told in each for each in shown(served()))


def test_errors_and_bad_states_stand_out() -> None:
    readings = served()
    lines = frame.lines(readings, Session(readings), WELL, 80, 24)
    assert any(piece.style is Style.BAD and piece.text.strip() == "1.5" for each in lines for piece in each)


def test_as_text_every_worker_is_there() -> None:
    readings = readings_of(
        *(status_of(at, workers=[worker_of(number) for number in range(1, 100)]) for at in (1.0, 2.0))
    )
    lines = [styled.plain(each) for each in frame.everything(readings, WELL, 80)]
    assert sum(bool(re.match(r" +\d+ 1\d\d ", each)) for each in lines) == 99
    assert not any("quit" in each for each in lines)
