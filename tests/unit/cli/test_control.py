"""forkserverctl: what it shows, and the exit status that a script goes by. Where it asks: test_control_client.py."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forkserver.cli import control as ctl
from forkserver.cli import control_client
from forkserver.master.control import protocol
from harness.control_program import STATUS, run

FOREIGN = [
    b"x" * (control_client._MOST_BYTES + 1), b"[" * 100_000 + b"\n", b"[]\n", b"<html>\n",
    b'{"ok": true, "seconds": NaN}\n', b'{"ok": true, "seconds": 1e999}\n',
    b'{"ok": true, "seconds": 1' + b"0" * 5000 + b"}\n", b'{"ok": true, "text": ' + b"[" * 900 + b"]" * 900 + b"}\n",
]  # fmt: skip


@pytest.mark.parametrize("answer", FOREIGN)
def test_what_is_no_answer_of_a_masters_is_told(master: Any, capfd: pytest.CaptureFixture[str], answer: bytes) -> None:
    """The service's user may listen in its own folder, and root asks there."""
    path, _ = master(answer)
    status, out, err = run(capfd, "--socket", path, "status")
    assert (status, out) == (3, "")
    assert "what answers there is not forkserver" in err


def odd() -> list[tuple[str, dict[str, Any]]]:
    """For each command a status or a list of slow requests with a value missing, or of another type."""
    call = {
        "time": 1e9, "seconds": 2.5, "running": False, "worker": 1, "client": "", "request": "GET / HTTP/1.1",
        "request_id": "", "place": "",
    }  # fmt: skip
    slow = {"ok": True, "limit": 2.0, "slow": [call]}
    found: list[tuple[str, dict[str, Any]]] = []
    for command, good in (("status", STATUS), ("slow", slow)):
        for name in good.keys() - {"ok"}:
            found += [(command, {**good, name: value}) for value in ([[]], {"x": "y"}, 10**19, -1e300, None, "x")]
            found.append((command, {key: value for key, value in good.items() if key != name}))
    found += [("slow", {**slow, "slow": [{**call, name: [7]}]}) for name in call]
    found += [("slow", {**slow, "slow": [{**call, "time": time}]}) for time in (1e300, 10**19)]
    workers: Any = STATUS["workers"]
    found += [("status", {**STATUS, "workers": [{**workers[0], name: [7]}]}) for name in workers[0]]
    return [*found, ("drain", {"ok": "x", "error": [[7]], "details": {"x": 1}})]


def test_an_answer_of_another_shape_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told = 0
    for command, reply in odd():
        monkeypatch.setattr(ctl, "ask", lambda *_, reply=reply: reply)
        status, out, err = run(capfd, "--socket", "/x", command)
        assert status in ((1,) if command == "drain" else (0, 3)), reply
        if status == 3:
            assert out == ""
            assert err.startswith("forkserverctl: /x: what answers there is no forkserver of this program's version (")
            assert err.count("\n") == 1
            told += 1
    assert told > 50


def test_status_is_a_table_and_no_client_reaches_the_terminal(master: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Any client sends a request line; escape sequences in it are text here."""
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
        "status", "slow", "config", "reload", "reload --wait", "scale 4", "retire 3", "kill pid=41", "stacks worker=3",
        "profile", "profile 3 --seconds 2 --rate 50 --by-path", "drain", "maintenance on", "maintenance off", "stop",
            "stop --now",
    )  # fmt: skip
    known = set()
    for line in lines:
        given = ctl.command_parser().parse_args(line.split())
        asked = {name: getattr(given, name) for name in given.fields} | {"command": given.command}
        known.add(given.command)
        protocol.parse(json.dumps(asked).encode())
    assert known == set(protocol.NAMES)


def test_no_server_there_is_status_3_with_the_way_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
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
