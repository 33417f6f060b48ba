"""Whatever bytes come on the control socket, a checked command comes of them, or a sentence that says what is wrong."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.master.control import protocol
from forkserver.master.control.protocol import CommandError, Target, parse, written
from forkserver.master.control.socket import QUESTION_BYTES, LineError, Question

GOOD: list[tuple[dict[str, Any], Any, str]] = [
    ({"command": "status"}, protocol.StatusCommand(), "status"),
    ({"command": "config"}, protocol.ConfigCommand(), "config"),
    ({"command": "slow"}, protocol.SlowCommand(), "slow"),
    ({"command": "reload"}, protocol.ReloadCommand(wait=False), "reload wait=False"),
    ({"command": "reload", "wait": True}, protocol.ReloadCommand(wait=True), "reload wait=True"),
    ({"command": "scale", "workers": 4}, protocol.ScaleCommand(4), "scale workers=4"),
    ({"command": "retire", "worker": 3}, protocol.RetireCommand(Target(3)), "retire worker=3"),
    ({"command": "kill", "worker": "pid=41"}, protocol.KillCommand(Target(41, "pid")), "kill pid=41"),
    ({"command": "stacks", "worker": "worker=3"}, protocol.StacksCommand(Target(3, "worker")), "stacks worker=3"),
    ({"command": "stacks", "worker": "3"}, protocol.StacksCommand(Target(3)), "stacks worker=3"),
    ({"command": "profile"}, protocol.ProfileCommand(10.0, 100, False), "profile seconds=10.0 rate=100 paths=False"),
    (
        {"command": "profile", "worker": 3, "seconds": 2, "rate": 50, "paths": True},
        protocol.ProfileCommand(2.0, 50, True, Target(3)),
        "profile seconds=2.0 rate=50 paths=True worker=3",
    ),
    ({"command": "drain"}, protocol.DrainCommand(), "drain"),
    ({"command": "maintenance", "on": False}, protocol.MaintenanceCommand(on=False), "maintenance on=False"),
    ({"command": "stop"}, protocol.StopCommand(now=False), "stop now=False"),
]

BAD: list[tuple[bytes, str]] = [
    (b"", "not JSON"),
    (b"status", 'write such as {"command": "status"}'),
    (b'["status"]', "not an object"),
    (b"{}", "command null: no such command; give one of status,"),
    (b'{"command": "halt"}', 'command "halt": no such command'),
    (b'{"command": ["status"]}', "no such command"),
    (b'{"command": "status", "now": true}', '"now": no field of status; it takes none'),
    (b'{"command": "reload", "wiat": true}', '"wiat": no field of reload; it takes wait'),
    (b'{"command": "reload", "wait": 1}', "wait 1: neither true nor false"),
    (b'{"command": "scale"}', "scale: workers is missing"),
    (b'{"command": "scale", "workers": 0}', "workers 0: not a number of workers; give 1 to 4096"),
    (b'{"command": "scale", "workers": true}', "workers true: not a number of workers"),
    (b'{"command": "scale", "workers": 4.0}', "workers 4.0: not a number of workers"),
    (b'{"command": "scale", "workers": NaN}', "NaN is no number"),
    (b'{"command": "kill", "worker": -1}', "worker -1: names no worker"),
    (b'{"command": "kill", "worker": "pid="}', "names no worker"),
    (b'{"command": "kill", "worker": "=4"}', "names no worker"),
    (b'{"command": "kill", "worker": "gen=4"}', "names no worker; give its number or pid, such as 3 or pid=4711"),
    (b'{"command": "kill", "worker": "\xc2\xb2"}', "names no worker"),
    (b'{"command": "kill", "worker": "%s"}' % (b"9" * 3000), "names no worker"),
    (b'{"command": "profile", "seconds": 0}', "seconds 0: not a time to profile; give seconds, up to 3600"),
    (b'{"command": "profile", "seconds": true}', "seconds true: not a time to profile"),
    (b'{"command": "profile", "seconds": 1e400}', "not a time to profile"),
    (b'{"command": "profile", "rate": 1001}', "rate 1001: not a rate; give samples in a second, 1 to 1000"),
    (b'{"command": "profile", "rate": 1.5}', "rate 1.5: not a rate"),
    (b'{"command": "\xff"}', "not JSON"),
    (b"[" * 4000, "not JSON"),  # CPython 3.13 reads it to its end, older ones give up before
    (b"1" * 4000, "not an object"),
]


@pytest.mark.parametrize(("written_as", "command", "shown"), GOOD, ids=lambda each: getattr(each, "__name__", None))
def test_every_command_is_read_and_shown(written_as: dict[str, Any], command: protocol.Command, shown: str) -> None:
    assert parse(json.dumps(written_as).encode()) == command
    assert written(command) == shown


def test_no_command_is_left_out_here() -> None:
    assert {written_as["command"] for written_as, _, _ in GOOD} == set(protocol.NAMES)


@pytest.mark.parametrize(("line", "why"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_meant_is_refused_with_the_way_out(line: bytes, why: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse(line)
    assert why in str(caught.value)
    assert len(str(caught.value)) < 400, "an answer to nonsense must not be as long as the nonsense"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(("wait", "workers", "worker", "on", "now", "x"))
OBJECTS = st.builds(
    lambda name, fields: {"command": name, **fields},
    st.sampled_from((*protocol.NAMES, "", "halt")) | VALUES,
    st.dictionaries(FIELDS, VALUES | st.sampled_from(("pid=4", "worker=1", 3)), max_size=3),
)


@given(st.binary(max_size=200) | OBJECTS.map(lambda each: json.dumps(each).encode()))
def test_any_line_is_a_command_or_a_commanderror(line: bytes) -> None:
    """Any other exception would be a fault in the master."""
    try:
        command = parse(line)
    except CommandError as error:
        json.dumps(str(error))
        return
    assert written(command)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_a_line_is_the_same_however_it_comes_in_pieces(data: bytes, cuts: list[int]) -> None:
    line = data.replace(b"\n", b"")
    whole, question, found = line + b"\n", Question(), None
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    for begin, end in pairwise(places):
        assert found is None
        found = question.feed(whole[begin:end])
    assert found == line.removesuffix(b"\r")


def test_the_end_of_the_bytes_ends_a_line_too() -> None:
    """printf and netcat send no line feed of themselves."""
    question = Question()
    assert question.feed(b'{"command": "status"}') is None
    assert question.feed(b"") == b'{"command": "status"}'


@pytest.mark.parametrize("data", [b"x" * (QUESTION_BYTES + 1), b"x" * (QUESTION_BYTES + 1) + b"\n", b"one\ntwo"])
def test_more_than_one_short_line_is_refused(data: bytes) -> None:
    """Nobody may fill the master's memory."""
    with pytest.raises(LineError):
        Question().feed(data)
