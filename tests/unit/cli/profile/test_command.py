"""forkserverctl profile: what is asked, where the result goes, and what an answer that is none comes to."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.cli import control
from forkserver.cli.profile import command, options
from forkserver.ipc import profile_records
from forkserver.ipc.messages import BeginProfile
from forkserver.ipc.profile_records import (
    ProfiledCall,
    ProfiledFunction,
    ProfileEnd,
    ProfileRecord,
    ProfileSample,
    encode_record,
)
from forkserver.ipc.report_ring import Ends, Outbox
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.master.control import profiling
from forkserver.master.model.lifecycle import Worker

SEEN: list[ProfileRecord] = [
    ProfiledFunction(10, "shop", "view", "/srv/shop.py"),
    ProfiledCall(0, 0),
    ProfileSample(1, 0, 10_000_000),
    ProfileEnd(""),
]


class MasterOfOne:
    """Answers one question as a master with workers that write ``records`` and end."""

    def __init__(self, path: str, *records: list[ProfileRecord], answer: bytes | None = None) -> None:
        self.path, self.records, self.answer = path, records, answer
        self.asked: dict[str, Any] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client:
            self.asked = json.loads(client.recv(65536))
            if self.answer is not None:
                client.sendall(self.answer)
                return
            workers = [Worker(slot, 1, slot, 0.0, pid=100 + slot) for slot in range(len(self.records))]
            reply, numbers = profiling.begin(workers, BeginProfile(1.0, 100, False), self._work)
            socket.send_fds(client, [json.dumps(reply).encode() + b"\n"], numbers)
            for number in numbers:
                os.close(number)

    def _work(self, worker: Worker, _: BeginProfile, descriptors: Any) -> bool:
        memory, bell, link = map(os.dup, descriptors)
        outbox = Outbox(Ends(memory, bell))
        if self.records[worker.slot]:
            assert outbox.put_frame(b"".join(map(encode_record, self.records[worker.slot])))
        outbox.close()
        PlainSocket(fileno=link).close()
        return True

    def close(self) -> None:
        self._thread.join(20)
        self._listener.close()


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Any]:
    made: list[MasterOfOne] = []

    def start(*records: list[ProfileRecord], **more: Any) -> MasterOfOne:
        made.append(MasterOfOne(str(tmp_path / "control.sock"), *records, **more))
        return made[-1]

    yield start
    for each in made:
        each.close()


def run(master: MasterOfOne, *arguments: str) -> int:
    return control.main(["--socket", master.path, "profile", *arguments])


def test_the_summary_names_the_function(master: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = master(SEEN, SEEN)
    assert run(made, "--seconds", "2", "--rate", "50") == 0
    out, err = capsys.readouterr()
    assert made.asked == {"command": "profile", "seconds": 2.0, "rate": 50, "paths": False}
    assert out.startswith("profile of 2 workers, 2 s at 50 Hz: 2 samples, 0.02 s of threads at work\n")
    assert " 100.0 %  100.0 %  shop:view  /srv/shop.py:10\n" in out
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [
        (("--format", "collapsed"), "shop:view 10000\n"),
        (("--format", "speedscope"), '{"$schema"'),
        (("--format", "svg"), "<?xml"),
        (("--json",), '{\n  "ok": true'),
    ],
)
def test_a_form_without_a_file_goes_to_the_output(
    master: Any, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], begins: str
) -> None:
    assert run(master(SEEN), *arguments) == 0
    assert capsys.readouterr().out.startswith(begins)


@pytest.mark.parametrize(
    ("name", "begins"), [("a.svg", "<?xml"), ("a.json", '{"$schema"'), ("a.txt", "shop:view 10000\n")]
)
def test_the_ending_of_a_file_says_its_form(
    master: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, begins: str
) -> None:
    (tmp_path / name).write_text("what was there before, and longer " * 1000)
    assert run(master(SEEN), "--output", str(tmp_path / name)) == 0
    text = (tmp_path / name).read_text()
    assert text.startswith(begins)
    assert "before" not in text
    assert f"written to {tmp_path / name}" in capsys.readouterr().out


def test_a_file_that_was_made_for_nothing_is_removed(master: Any, tmp_path: Path) -> None:
    made = master(answer=b'{"ok": false, "error": "no"}\n')
    assert run(made, "--output", str(tmp_path / "x.svg")) == 1
    assert not (tmp_path / "x.svg").exists()


def test_a_refusal_is_told(master: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(master(answer=b'{"ok": false, "error": "worker=9: no such worker"}\n'), "9") == 1
    assert capsys.readouterr().err == "forkserverctl: worker=9: no such worker\n"


def test_a_worker_that_refuses_is_named_and_the_others_count(master: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(master(SEEN, [ProfileEnd("another profile is taken")])) == 0
    out, err = capsys.readouterr()
    assert "shop:view" in out
    assert err == "forkserverctl: worker=2 pid=101: another profile is taken\n"


@pytest.mark.parametrize("records", [[], [ProfileEnd("another profile is taken")]])
def test_without_any_worker_that_begins_there_is_none(
    master: Any, capsys: pytest.CaptureFixture[str], records: list[ProfileRecord]
) -> None:
    assert run(master(records)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("forkserverctl: worker=1 pid=100: ")


@pytest.mark.parametrize(
    "answer",
    [
        b'{"ok": true}\n',
        b'{"ok": true, "workers": [{"worker": 1, "pid": 2}], "left_out": []}\n',
        b'{"ok": true, "workers": 5, "left_out": []}\n',
    ],
)
def test_what_is_no_answer_to_it_is_told(master: Any, capsys: pytest.CaptureFixture[str], answer: bytes) -> None:
    assert run(master(answer=answer)) == 3
    assert "what answers there sends no profile; name another with --socket PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [("--seconds", "0"), ("--seconds", "x"), ("--rate", "0"), ("--rate", "1001"), ("--format", "png")]
)
def test_a_mistake_in_the_command_line_asks_no_master(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        control.main(["--socket", "/none", "profile", *arguments])
    assert caught.value.code == 2


def test_the_bounds_are_those_of_the_workers() -> None:
    """The options are read without what a profile needs."""
    bounds = options.LONGEST_SECONDS, options.MOST_RATE
    assert bounds == (profile_records.LONGEST_SECONDS, profile_records.MOST_RATE)


def test_workers_that_are_left_out_for_one_reason_are_told_in_one_line() -> None:
    most, stuck = "64 workers are sampled at most", "it takes no orders"
    told = [{"worker": 3, "why": stuck}, *({"worker": number, "why": most} for number in range(65, 101))]
    assert command.left_out(told) == [f"worker=3 is left out: {stuck}", f"36 workers are left out: {most}"]
