"""Events in the journal's native protocol."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.logs.error_format import LogEvent, RequestFacts
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.journal import entry
from harness.log_files import journal_as_stderr

EVENT = LogEvent(0.0, "error", "worker=3 gen=2", 4711, "GET /x: broke", "one\ntwo", "01-a")


def parsed(data: bytes) -> dict[str, str]:
    """The fields of an entry, as the protocol has them."""
    found = {}
    while data:
        name, mark, data = data.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
        else:
            key, size = name, int.from_bytes(data[:8], "little")
            value, mark, data = data[8 : 8 + size], data[8 + size : 9 + size], data[9 + size :]
        assert mark == b"\n"
        found[key.decode()] = value.decode()
    return found


def test_an_event_is_one_entry_with_fields_of_its_own() -> None:
    assert parsed(entry(EVENT)) == {
        "MESSAGE": "worker=3 gen=2 GET /x: broke\n  one\n  two", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "forkserver",
        "FORKSERVER_PROCESS": "worker", "FORKSERVER_WORKER": "3", "FORKSERVER_GENERATION": "2",
        "FORKSERVER_REQUEST_ID": "01-a",
    }  # fmt: skip


def test_the_facts_of_a_slow_request_are_fields_that_nothing_forges() -> None:
    about = RequestFacts("GET /x\nPRIORITY=0", "01-a", "192.0.2.7\nPRIORITY=0", 2.0341)
    found = parsed(entry(EVENT._replace(about=about)))
    assert found["FORKSERVER_REQUEST"] == "GET /x\\nPRIORITY=0"
    assert found["FORKSERVER_CLIENT"] == "192.0.2.7\\nPRIORITY=0"
    assert (found["FORKSERVER_SECONDS"], found["PRIORITY"]) == ("2.034", "3")
    assert "FORKSERVER_CLIENT" not in parsed(entry(EVENT._replace(about=about._replace(client=""))))


def test_a_process_without_numbers_has_no_fields_for_them() -> None:
    found = parsed(entry(EVENT._replace(process="master", details="", request_id="", level="debug")))
    assert found == {
        "MESSAGE": "master GET /x: broke", "PRIORITY": "7", "SYSLOG_IDENTIFIER": "forkserver",
        "FORKSERVER_PROCESS": "master",
    }  # fmt: skip


def test_nothing_forges_a_field() -> None:
    found = parsed(entry(EVENT._replace(message="x\nPRIORITY=0\n", details="\x00\nMESSAGE\n", request_id="a\nB=c")))
    assert found["PRIORITY"] == "3"
    assert found["MESSAGE"].startswith("worker=3 gen=2 x\\nPRIORITY=0\\n\n  \\x00\n")
    assert found["FORKSERVER_REQUEST_ID"] == "a\\nB=c"
    assert len(found) == 7


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "socket"))
        made.setblocking(False)
        yield made


def test_events_go_to_the_journal_and_the_applications_lines_to_its_stream(
    journal: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with journal_as_stderr(monkeypatch, journal.getsockname()) as stream:
        log = ErrorLog("-", "info", "worker=3 gen=2")
        log.error("broke", request_id="01-a")
        log.pass_on("the application's\n")
        assert os.read(stream, 4096) == b"the application's\n"
        assert parsed(journal.recv(65536))["FORKSERVER_REQUEST_ID"] == "01-a"
        log.close()


def test_what_the_journal_does_not_take_goes_to_the_stream(
    journal: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full, or too long for one datagram: nothing waits, and nothing is lost."""
    with journal_as_stderr(monkeypatch, journal.getsockname()) as stream:
        log = ErrorLog("-", "info")
        log.info("x" * 60_000_000)
        os.set_blocking(stream, False)
        assert os.read(stream, 10).startswith(b"<6>")
        log.close()


@pytest.mark.parametrize("form", ["text", "json"])
def test_without_the_socket_lines_have_their_priority(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    with journal_as_stderr(monkeypatch) as stream:
        log = ErrorLog("-", "info", form=form)
        log.error("broke")
        assert os.read(stream, 4096).startswith(b"<3>")
        log.close()


def test_json_stays_json_in_the_journal(journal: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    with journal_as_stderr(monkeypatch, journal.getsockname()) as stream:
        log = ErrorLog("-", "info", form="json")
        log.error("broke")
        assert os.read(stream, 4096).startswith(b'<3>{"time"')
        log.close()
