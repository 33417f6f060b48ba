"""syslog as the target of a log."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.config import loading
from forkserver.errors import ConfigError
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.syslog import SyslogOutput, SyslogTarget, is_syslog, names_file, syslog_target
from harness.log_files import LINE
from harness.settings_files import refusal

HEADER = r"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d forkserver\[\d+\]: (.*)"


class Daemon:
    """One that listens at ``path``, and reads when it is asked to."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.listen()

    def listen(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def end(self) -> None:
        self.socket.close()
        os.unlink(self.path)

    def read(self) -> list[tuple[int, str]]:
        """Facility and severity in one number, and the line, of each datagram."""
        found = []
        try:
            while True:
                match = re.fullmatch(HEADER, self.socket.recv(65536).decode(), re.DOTALL)
                assert match is not None
                found.append((int(match[1]), match[2]))
        except BlockingIOError:
            return found


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(str(tmp_path / "log"))
    yield made
    made.end()


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("syslog", ("/dev/log", 3)),
        ("syslog:local0", ("/dev/log", 16)),
        ("syslog:/run/log", ("/run/log", 3)),
        ("syslog:user:/run/log", ("/run/log", 1)),
        ("./syslog", None),
        ("syslogs", None),
        ("-", None),
        (None, None),
    ],
)
def test_syslog_is_a_target_with_facility_and_socket(text: str | None, target: tuple[str, int] | None) -> None:
    assert syslog_target(text) == target
    assert text is None or is_syslog(text) == (target is not None)
    assert names_file(text) == (target is None and text not in (None, "-"))


def test_a_facility_that_is_none_is_refused() -> None:
    assert "no facility 'local9': use one of kern" in refusal("--error-log", "syslog:local9")
    assert loading.load(["--access-log", "syslog:local1"], {}).access_log == "syslog:local1"


def test_events_come_with_their_severity_and_details_each_as_a_line(daemon: Daemon) -> None:
    log = ErrorLog(f"syslog:local0:{daemon.path}", "debug", "worker=3 gen=2")
    log.error("broke\x1b", details="one\ntwo")
    log.info("went on")
    log.pass_on("the application's\n")
    log.close()
    assert daemon.read() == [
        (16 * 8 + 3, "worker=3 gen=2 broke\\x1b"), (16 * 8 + 3, "  one"), (16 * 8 + 3, "  two"),
        (16 * 8 + 6, "worker=3 gen=2 went on"), (16 * 8 + 6, "the application's"),
    ]  # fmt: skip


def test_json_events_have_their_severity_too(daemon: Daemon) -> None:
    log = ErrorLog(f"syslog:{daemon.path}", "info", form="json")
    log.warning("careful")
    log.close()
    ((priority, line),) = daemon.read()
    assert (priority, line[0], line[-1]) == (3 * 8 + 4, "{", "}")


def test_each_request_is_a_datagram(daemon: Daemon) -> None:
    log = AccessLog(f"syslog:{daemon.path}")
    for _ in range(3):
        log.add(*LINE)
    log.flush()
    log.close()
    lines = daemon.read()
    assert [priority for priority, _ in lines] == [30, 30, 30]
    assert all('"GET / HTTP/1.1" 200 12' in line for _, line in lines)


def test_a_client_does_not_choose_the_severity_of_its_line(daemon: Daemon) -> None:
    log = AccessLog(f"syslog:{daemon.path}", form="%(u)s %(s)s")
    log.add("192.0.2.1", "<0>emergency", "GET / HTTP/1.1", 200, 12, "", "")
    log.flush()
    log.close()
    assert daemon.read() == [(30, "<0>emergency 200")]


def test_a_daemon_that_is_started_anew_gets_the_next_line(daemon: Daemon) -> None:
    log = ErrorLog(f"syslog:{daemon.path}", "info")
    daemon.end()
    log.info("lost")
    daemon.listen()
    log.info("found")
    log.close()
    (notice, found) = daemon.read()
    assert "1 line is missing here" in notice[1]
    assert found[1] == "master found"


def test_a_daemon_that_does_not_read_costs_lines_and_no_time(daemon: Daemon) -> None:
    output = SyslogOutput(SyslogTarget(daemon.path, 3), priorities=True)
    lost = 0
    for _ in range(1000):
        lost += output.write(b"x" * 4000 + b"\n")
    assert 0 < lost < 1000
    assert output.reason == "resource temporarily unavailable"
    assert len(daemon.read()) == 1000 - lost
    output.close()


def test_without_a_daemon_the_start_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="log cannot be reached: no such file or directory; start a syslog daemon"):
        ErrorLog(f"syslog:{tmp_path}/log", "info")


def test_what_the_interpreter_writes_goes_to_standard_error(daemon: Daemon) -> None:
    log = ErrorLog(f"syslog:{daemon.path}", "info")
    assert log.dump_fileno() == 2
    assert not log.moved
    log.part()
    log.reopen()
    log.info("still there")
    log.close()
    assert len(daemon.read()) == 1
