"""What ``forkserverctl status`` shows to a person fits a terminal, and loses nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest

from forkserver.cli import status_table
from harness.control_program import STATUS


def crowded() -> dict[str, Any]:
    """A status with everything as long as it becomes."""
    busy = [{"request": f"GET /{'x' * 300}", "seconds": 3.21}, {"request": "GET /b", "seconds": 1}]
    worker = {
        "worker": 128, "pid": 4194303, "generation": 12345, "state": "starting", "seconds": 86400.0 * 99,
        "requests": 12_345_678_901, "held": 10_000, "parked": 10_000, "unsent": 10_000, "waiting": 0,
        "memory": 120_000 << 20, "busy": busy,
    }  # fmt: skip
    return STATUS | {
        "app": f"a.very.long.{'package.' * 12}wsgi:create_application()", "workers": [worker, worker],
        "text": "loading generation 12346; reload failed: " + "no such module, " * 8,
        "last_failure": "the reload to generation 12345 failed: " + "import of it, " * 12,
        "listeners": [f"http://127.0.0.1:{port}" for port in range(8000, 8020)],
        "ends": {f"cause number {number}": 1000 for number in range(12)}, "lost_log_lines": 12_345_678,
    }  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 200])
def test_status_fits_the_terminal_and_loses_nothing(width: int) -> None:
    status = crowded()
    shown = status_table.table(status, width)
    assert max(map(len, shown.splitlines())) <= width
    packed = "".join(shown.split())
    lost = "12,345,678 lines are missing in the logs: their reader was stuck, or a disk full"
    for text in (status["app"], status["last_failure"], *status["listeners"], "x" * 300, "GET /b (1.0 s)", lost):
        assert "".join(text.split()) in packed


def test_a_reload_that_failed_is_told_once() -> None:
    failure = "reload failed: there is no app:nope"
    status = STATUS | {"text": f"{failure}; since then generation 2 serves", "last_failure": failure, "requests": 1}
    shown = " ".join(status_table.table(status, 80).split())
    assert shown.count(failure) == 1
    assert "; 1 request; at " in shown
    assert failure in status_table.table(status | {"text": "stopping"}, 80)


def test_calls_stand_in_the_row_where_that_is_wide_enough() -> None:
    wide, narrow = status_table.table(STATUS, 132), status_table.table(STATUS, 80)
    assert "BUSY WITH" in wide
    assert re.search(r"(?m)^ +1 +41 .* 25 MiB  GET ", wide)
    assert re.search(r"(?m)^ +1 +41 .* 25 MiB\n {8}GET ", narrow)


@pytest.mark.parametrize(
    ("figure", "shown"),
    [
        (0, "0"),
        (9999, "9999"),
        (10_000, "10k"),
        (12_345, "12.3k"),
        (999_999, "1M"),
        (1_234_567, "1.23M"),
        (10**15, "1e+03T"),
    ],
)
def test_figures_are_shortened(figure: int, shown: str) -> None:
    assert status_table.short_figure(figure) == shown


def test_a_websocket_is_shown_as_one() -> None:
    """Where the master is of a version that does not tell, it is a call as any other."""
    call = {"request": "GET /ws", "seconds": 312.04}
    assert status_table._call(call | {"websocket": True}) == "GET /ws (312.0 s, WebSocket)"
    assert status_table._call(call | {"websocket": False}) == status_table._call(call) == "GET /ws (312.0 s)"


def test_what_the_extension_has_sent_and_left_is_counted() -> None:
    """Where plain requests decline, something is wrong; and an older master does not tell."""
    told = "C extension: 1,234 answers of these workers; 7 reads and answers left to Python"
    assert told in status_table.table(STATUS | {"accelerator": "C"}, 132)
    assert "extension" not in status_table.table(STATUS | {"accelerator": "python"}, 132)
    assert "extension" not in status_table.table(STATUS, 132)


def test_it_is_told_where_clients_wait() -> None:
    told = "clients wait: no worker has a free thread"
    assert told in status_table.table(STATUS | {"clients_wait": True}, 132)
    assert told not in status_table.table(STATUS | {"clients_wait": False}, 132)
    assert told not in status_table.table(STATUS, 132)


def test_it_is_told_where_no_client_can_connect() -> None:
    told = "no client can connect at unix:/run/x.sock: the file was removed or replaced, or the socket shut down"
    assert told in status_table.table(STATUS | {"unreachable": ["unix:/run/x.sock"]}, 200)
    of_systemd = {"unreachable": ["unix:/run/x.sock"], "unreachable_way_out": ["systemctl restart x.socket x.service"]}
    assert "; systemctl restart x.socket x.service" in status_table.table(STATUS | of_systemd, 200)
    assert "no client can connect" not in status_table.table(STATUS | {"unreachable": []}, 200)
    assert "no client can connect" not in status_table.table(STATUS, 200)
