"""forkserverctl: what it shows, and the exit status that a script goes by. Where it asks: test_control_discovery.py."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forkserver.cli import control as ctl
from forkserver.master.control import protocol
from harness.control_program import STATUS, run


@pytest.mark.parametrize("answer", [b"x" * (ctl._MOST_BYTES + 1), b"[" * 100_000 + b"\n", b"[]\n"])
def test_what_is_no_answer_of_a_masters_is_told(master: Any, capfd: pytest.CaptureFixture[str], answer: bytes) -> None:
    """The service's user may listen in its own folder, and root asks there."""
    path, _ = master(answer)
    status, out, err = run(capfd, "--socket", path, "status")
    assert (status, out) == (3, "")
    assert "what answers there is not forkserver" in err


def test_an_answer_that_comes_byte_by_byte_has_no_more_time_than_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 5.0, 10.5))
    monkeypatch.setattr(ctl, "monotonic", lambda: next(clock))
    monkeypatch.setattr(socket.socket, "recv", lambda *_: b"x")
    with socket.socket() as link, pytest.raises(TimeoutError):
        ctl._answer(link, 10.0)


def test_status_is_a_table_and_no_client_reaches_the_terminal(master: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A request line comes from anybody; escape sequences in it are text here."""
    path, asked = master(json.dumps(STATUS).encode() + b"\n")
    status, out, err = run(capfd, "--socket", path, "status")
    assert (status, err) == (0, "")
    assert json.loads(asked[0]) == {"command": "status"}
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert "forkserver 1.2.3  myapp:app  master pid=40  serving" in out
    flowing = " ".join(out.split())
    assert "generation 2 serves: 1 worker; up 3h07m; 1,234,567 requests; at http://127.0.0.1:8000" in flowing
    assert "ended: 4 reload, 1 timeout" in out
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("1 ", "2 "))]
    assert rows[0][:10] == ["1", "41", "2", "serving", "59s", "7", "3", "2", "1", "25"]
    assert r"GET /\x1b]0;owned\x07\x9b2J (3.2 s)" in out
    assert rows[1][:5] == ["2", "-", "2", "ordered", "-"]


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
    shown = ctl.table(status, width)
    assert max(map(len, shown.splitlines())) <= width
    packed = "".join(shown.split())
    lost = "12,345,678 lines of the logs are missing: their reader was stuck, or a disk full"
    for text in (status["app"], status["last_failure"], *status["listeners"], "x" * 300, "GET /b (1.0 s)", lost):
        assert "".join(text.split()) in packed


def test_calls_stand_in_the_row_where_that_is_wide_enough() -> None:
    wide, narrow = ctl.table(STATUS, 132), ctl.table(STATUS, 80)
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
    assert ctl._short(figure) == shown


def test_a_websocket_is_shown_as_one() -> None:
    """Where the master is of a version that does not tell, it is a call as any other."""
    call = {"request": "GET /ws", "seconds": 312.04}
    assert ctl._call(call | {"websocket": True}) == "GET /ws (312.0 s, WebSocket)"
    assert ctl._call(call | {"websocket": False}) == ctl._call(call) == "GET /ws (312.0 s)"


def test_what_the_extension_has_sent_and_left_is_counted() -> None:
    """Where plain requests decline, something is wrong; and an older master does not tell."""
    told = "C extension: 1,234 answers of these workers; 7 reads and answers left to Python"
    assert told in ctl.table(STATUS | {"accelerator": "C"}, 132)
    assert "extension" not in ctl.table(STATUS | {"accelerator": "python"}, 132)
    assert "extension" not in ctl.table(STATUS, 132)


def test_it_is_told_where_clients_wait() -> None:
    told = "clients wait: no worker has a free thread"
    assert told in ctl.table(STATUS | {"clients_wait": True}, 132)
    assert told not in ctl.table(STATUS | {"clients_wait": False}, 132)
    assert told not in ctl.table(STATUS, 132)


def test_it_is_told_where_no_client_can_connect() -> None:
    told = "no client can connect at unix:/run/x.sock: the file was removed or replaced, or the socket shut down"
    assert told in ctl.table(STATUS | {"unreachable": ["unix:/run/x.sock"]}, 200)
    assert "no client can connect" not in ctl.table(STATUS | {"unreachable": []}, 200)
    assert "no client can connect" not in ctl.table(STATUS, 200)


def test_json_is_what_the_master_said(master: Any, capfd: pytest.CaptureFixture[str]) -> None:
    path, _ = master(json.dumps(STATUS).encode() + b"\n")
    status, out, _ = run(capfd, "--socket", path, "status", "--json")
    assert (status, json.loads(out)) == (0, STATUS)
    assert "\x1b" not in out


def test_a_refusal_is_status_1_with_its_traceback_on_standard_error(
    master: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = {"ok": False, "error": "reload failed: no", "details": "Traceback\n  File x\n"}
    path, asked = master(json.dumps(answer).encode() + b"\n")
    status, out, err = run(capfd, "--socket", path, "reload", "--wait")
    assert (status, out, err) == (1, "", "forkserverctl: reload failed: no\nTraceback\n  File x\n")
    assert json.loads(asked[0]) == {"command": "reload", "wait": True}


@pytest.mark.parametrize(
    "argv",
    [
        (), ("halt",), ("scale",), ("scale", "many"), ("maintenance", "perhaps"), ("kill",), ("stat",),
        ("--timeout", "0", "status"), ("--timeout", "soon", "status"), ("status", "extra"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_command_line_is_status_2(argv: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capfd, *argv)
    assert (status, out) == (2, "")
    assert "forkserverctl" in err


def test_every_command_line_is_a_command_that_the_master_knows() -> None:
    """The two tables must not part."""
    lines = (
        "status", "config", "reload", "reload --wait", "scale 4", "retire 3", "kill pid=41", "stacks worker=3", "drain",
        "maintenance on", "maintenance off", "stop", "stop --now",
    )  # fmt: skip
    known = set()
    for line in lines:
        given = ctl._parser().parse_args(line.split())
        asked = {name: getattr(given, name) for name in given.fields} | {"command": given.command}
        known.add(given.command)
        protocol.parse(json.dumps(asked).encode())
    assert known == set(protocol.NAMES)


def test_nobody_there_is_status_3_with_the_way_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capfd, "--socket", str(tmp_path / "none"), "status")
    assert status == 3
    assert "no such socket; name it with --socket PATH" in err
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    status, _, err = run(capfd, "--socket", str(tmp_path / "stale"), "status")
    assert (status, "no server listens there" in err) == (3, True)


@pytest.mark.parametrize("answer", [b"", b"{}", b"[1]\n", b"\xff\n", b'{"ok": tru'])
def test_nonsense_at_the_socket_is_told(master: Any, capfd: pytest.CaptureFixture[str], answer: bytes) -> None:
    """Whatever answers there, it ends with a sentence and not with a traceback."""
    path, _ = master(answer)
    status, _, err = run(capfd, "--socket", path, "drain")
    assert status in (1, 3)
    assert err.startswith("forkserverctl: ")
    assert "Traceback" not in err


def test_a_master_that_is_stopped_is_status_4(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        status, _, err = run(capfd, "--socket", str(tmp_path / "s"), "--timeout", "0.05", "status")
    assert status == 4
    assert "no answer" in err


@pytest.mark.process
def test_who_reads_our_output_may_stop_reading(master: Any) -> None:
    """`forkserverctl status | head -1` is no failure."""
    path, _ = master(json.dumps(STATUS).encode() + b"\n")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "forkserver.cli.control", "--socket", path, "status"]
    ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, b"")
