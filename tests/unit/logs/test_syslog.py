"""syslog as the target of a log."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from errno import ENETUNREACH
from pathlib import Path
from typing import Any

import pytest

from forkserver.config import loading
from forkserver.errors import ConfigError
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.logs.syslog import SyslogOutput, SyslogTarget, is_syslog, names_file, syslog_target
from harness import BOUND
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
        ("syslog", ("/dev/log", 3, False)),
        ("syslog:local0", ("/dev/log", 16, False)),
        ("syslog:/run/log", ("/run/log", 3, False)),
        ("syslog:user:/run/log", ("/run/log", 1, False)),
        ("syslog:udp://192.0.2.9", (("192.0.2.9", 514), 3, False)),
        ("syslog:local0:udp://192.0.2.9:5514", (("192.0.2.9", 5514), 16, False)),
        ("syslog:tcp://[2001:db8::9]:514", (("2001:db8::9", 514), 3, True)),
        ("./udp://192.0.2.9", None),
        ("./syslog", None),
        ("syslogs", None),
        ("-", None),
        (None, None),
    ],
)
def test_syslog_is_a_target_with_facility_and_socket(text: str | None, target: tuple[Any, int, bool] | None) -> None:
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


def test_a_user_of_the_application_raises_no_alarm(daemon: Daemon) -> None:
    log = ErrorLog(f"syslog:{daemon.path}", "info")
    log.pass_on("<0>emergency\n<4>careful\rno such page: <0>\n")
    log.close()
    assert daemon.read() == [(27, "emergency"), (28, "careful"), (30, "no such page: <0>")]


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


def test_a_log_of_the_program_before_goes_on_while_its_daemon_is_away(tmp_path: Path) -> None:
    """An upgrade must not end for what the running program would have gone on without."""
    path = str(tmp_path / "log")
    error = ErrorLog(f"syslog:{path}", "info", inherited=True)
    said: list[str] = []
    access = AccessLog(f"syslog:{path}", said.append, inherited=True)
    lost: list[int] = []
    error.on_lost = access.on_lost = lost.append
    assert error.away.startswith(f"error_log 'syslog:{path}': {path} cannot be reached: no such file or directory; ")
    assert access.away.startswith("access_log ")
    error.info("lost")
    access.add(*LINE)
    access.flush()
    assert sum(lost) == 2
    assert len(said) == 1
    daemon = Daemon(path)
    error.info("found")
    access.add(*LINE)
    access.flush()
    notice, found, answered = (line for _, line in daemon.read())
    assert "1 line is missing here" in notice
    assert found == "master found"
    assert "GET / HTTP/1.1" in answered
    error.close()
    access.close()
    daemon.end()


def test_what_the_interpreter_writes_goes_to_standard_error(daemon: Daemon) -> None:
    log = ErrorLog(f"syslog:{daemon.path}", "info")
    assert log.dump_fileno() == 2
    assert not log.moved
    log.part()
    log.reopen()
    log.info("still there")
    log.close()
    assert len(daemon.read()) == 1


# Another machine


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("syslog:udp://logs.example:514", "'logs.example' is no IP address, and names are not looked up"),
        ("syslog:udp://[fe80::x]", "'fe80::x' is no IP address"),
        ("syslog:udp://192.0.2.9:0", "give udp://ADDRESS:PORT; without a port it is 514"),
        ("syslog:udp://192.0.2.9:99999", "give udp://ADDRESS:PORT"),
        ("syslog:udp://192.0.2.9/x", "give udp://ADDRESS:PORT"),
        ("syslog:udp://", "give udp://ADDRESS:PORT"),
        ("syslog:local9:udp://192.0.2.9", "no facility 'local9'"),
        ("syslog:/run/log:udp://192.0.2.9", "no facility '/run/log'"),
        ("syslog:http://192.0.2.9", "no facility 'http'"),
        ("syslog:tcp://192.0.2.9:x", "tcp://192.0.2.9:x: give tcp://ADDRESS:PORT"),
        ("syslog:", "no facility ''"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(target: str, told: str) -> None:
    assert told in refusal("--error-log", target)


@pytest.fixture(params=["127.0.0.1", "::1"])
def remote(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A daemon of another machine, as far as the network tells."""
    made = socket.socket(socket.AF_INET6 if ":" in request.param else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.bind((request.param, 0))
    except OSError as error:
        made.close()
        pytest.skip(f"{request.param} cannot be bound: {error}")
    made.settimeout(BOUND)
    yield made
    made.close()


def target_of(remote: socket.socket) -> str:
    host, port = remote.getsockname()[:2]
    return f"syslog:local0:udp://[{host}]:{port}" if ":" in host else f"syslog:local0:udp://{host}:{port}"


RFC_5424 = r"<(\d+)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 ([!-~]+) forkserver (\d+) - - (.*)"


def test_another_machine_is_told_in_the_form_of_rfc_5424(remote: socket.socket) -> None:
    log = ErrorLog(target_of(remote), "info", "worker=3 gen=2")
    log.error("broke\x1b", details="one")
    log.part()
    log.info("went on")
    log.close()
    found = [re.fullmatch(RFC_5424, remote.recv(65536).decode()) for _ in range(3)]
    told = [(int(each[1]), each[4]) for each in found if each]
    assert told == [(131, "worker=3 gen=2 broke\\x1b"), (131, "  one"), (134, "worker=3 gen=2 went on")]
    assert {(each[2], int(each[3])) for each in found if each} == {(os.uname().nodename, os.getpid())}


def test_another_machine_that_is_away_costs_no_start_and_gets_what_comes_when_it_is_back() -> None:
    """Its host answers "port unreachable" to what was sent, which the socket says at the next line."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first:
        first.bind(("127.0.0.1", 0))
        address = first.getsockname()
    log = AccessLog(f"syslog:udp://127.0.0.1:{address[1]}")
    for _ in range(3):
        log.add(*LINE)
        log.flush()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
        back.bind(address)
        back.settimeout(BOUND)
        log.add(*LINE)
        log.flush()
        assert b'"GET / HTTP/1.1" 200 12' in back.recv(65536)
    log.close()


def test_where_no_way_leads_it_is_tried_again_with_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a boot the network may come later than the service."""
    reachable: list[bool] = []
    connect = PlainSocket.connect

    def connect_later(link: PlainSocket, address: Any) -> None:
        if not reachable:
            raise OSError(ENETUNREACH, os.strerror(ENETUNREACH))
        connect(link, address)

    monkeypatch.setattr(PlainSocket, "connect", connect_later)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(BOUND)
        output = SyslogOutput(SyslogTarget(daemon.getsockname(), 3), priorities=True)
        assert (output.write(b"lost\n"), output.reason) == (1, "network is unreachable")
        reachable.append(True)
        assert output.write(b"found\n") == 0
        assert daemon.recv(65536).endswith(b" - - found")
    output.close()
