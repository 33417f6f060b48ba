"""What the error log says of clients and proxies, and that no client can fill or forge it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkserver.errors import ProtocolError
from forkserver.http1.headers import SCRIPT_NAME
from forkserver.logs.error_log import ErrorLog
from forkserver.server.client_notices import Notices

REFUSED = ProtocolError(400, "HTTP/1.1 without Host")


class House:
    """Notices that go to a file, with a clock that the test sets."""

    def __init__(self, path: Path, level: str = "info") -> None:
        self._path = path
        self._log = ErrorLog(str(path), level)
        self.now = 0.0
        self.notices = Notices(self._log, lambda: self.now)

    def refuse(self, client: str = "192.0.2.1", line: str = "GET / HTTP/1.1") -> None:
        self.notices.refused(client, REFUSED, lambda: line, "an-id")

    def lines(self) -> list[str]:
        """Level and message of each line."""
        found = self._path.read_text().splitlines()
        return [f"{line.split()[1]} {line.split(' ', 4)[4]}" for line in found]

    def text(self) -> str:
        """All of it, tracebacks included."""
        return self._path.read_text()

    def close(self) -> None:
        os.close(self._log.fileno())


Make = Callable[..., House]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[House] = []

    def start(level: str = "info") -> House:
        made.append(House(tmp_path / f"{len(made)}.log", level))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_a_refusal_names_status_client_reason_and_request(make: Make) -> None:
    house = make()
    house.refuse()
    house.refuse("", "")
    assert house.lines() == [
        'info refused 400 to 192.0.2.1: HTTP/1.1 without Host: "GET / HTTP/1.1" (request an-id)',
        'info refused 400 to a client of a Unix socket: HTTP/1.1 without Host: "-" (request an-id)',
    ]


@pytest.mark.parametrize("line", ['GET /"\\ HTTP/1.1', "GET /\x1b[31m\r\nforged\x85\u2028", "\x16\x03\xff"])
def test_what_a_client_sent_cannot_forge_a_line(make: Make, line: str) -> None:
    house = make()
    house.refuse(line=line)
    (said,) = house.lines()
    shown = said.partition("Host: ")[2]
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.count('"') == 2


def test_a_long_request_line_is_cut(make: Make) -> None:
    house = make()
    house.refuse(line="GET /" + "\xff" * 100_000)
    (said,) = house.lines()
    assert len(said) < 300
    assert said.endswith('\\xff..." (request an-id)')


def test_refusals_of_one_client_are_counted_not_told(make: Make) -> None:
    """And what is not told is not put into words either: an attack must not cost more than its answers."""
    house = make()
    worded = []

    def line() -> str:
        worded.append("")
        return "GET / HTTP/1.1"

    for _ in range(1000):
        house.notices.refused("192.0.2.1", REFUSED, line, "an-id")
    assert len(house.lines()) == len(worded) == 1
    house.now = 5.0
    house.refuse()
    assert house.lines()[1].endswith("; 999 more before it were not logged")


def test_refusals_of_many_clients_are_limited_together(make: Make) -> None:
    house = make()
    for number in range(1000):
        house.refuse(f"198.51.100.{number}")
    assert len(house.lines()) == 10
    for number in range(3600):
        house.now += 1
        house.refuse(f"203.0.113.{number}")
    assert len(house.lines()) == 10 + 1800


def test_each_refusal_is_told_at_debug_and_none_at_warning(make: Make) -> None:
    house, silent = make("debug"), make("warning")
    for _ in range(100):
        house.refuse()
        silent.refuse()
    assert len(house.lines()) == 100
    assert silent.lines() == []


@pytest.mark.parametrize(
    ("sender", "level", "shown", "listed"),
    [
        ("10.0.0.5", "warning", "10.0.0.5", "10.0.0.5"),
        ("::ffff:10.0.0.5", "warning", "::ffff:10.0.0.5", "10.0.0.5"),
        ("fe80::1%eth0", "warning", "fe80::1%eth0", "fe80::1"),
        ("100.64.0.1", "warning", "100.64.0.1", "100.64.0.1"),
        ("8.8.8.8", "info", "8.8.8.8", "8.8.8.8"),
        ("2606:4700::1", "info", "2606:4700::1", "2606:4700::1"),
        ("", "warning", "a client of a Unix socket", "unix"),
    ],
)
def test_a_dropped_field_names_its_sender_and_the_flag(
    make: Make, sender: str, level: str, shown: str, listed: str
) -> None:
    """Once for each sender: a private one is rather a proxy than a stranger, and a warning then."""
    house = make()
    for _ in range(3):
        house.notices.dropped(sender, ["HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_FOR"])
    (said,) = house.lines()
    assert said == (
        f"{level} X-Forwarded-For and X-Forwarded-Proto from {shown} dropped: "
        "the sender is not in forwarded_allow_ips; if it is your proxy, "
        f"set --forwarded-allow-ips {listed} or FORWARDED_ALLOW_IPS={listed}; told once per sender"
    )


def test_a_sender_that_is_no_address_gets_no_flag_that_would_be_refused(make: Make) -> None:
    """A server class may make addresses of its own."""
    house = make()
    house.notices.dropped("client\n" + "x" * 1000, [SCRIPT_NAME])
    (said,) = house.lines()
    assert said.startswith("warning SCRIPT_NAME from client\\nxxx")
    assert "if it is your proxy, name it there; " in said
    assert len(said) < 300


def test_senders_from_the_internet_do_not_silence_an_own_proxy(make: Make) -> None:
    house = make()
    for number in range(1000):
        house.notices.dropped(f"8.8.{number // 250}.{number % 250}", ["HTTP_X_FORWARDED_FOR"])
    assert len(house.lines()) == 5
    house.notices.dropped("10.0.0.5", ["HTTP_X_FORWARDED_FOR"])
    assert house.lines()[5].startswith("warning X-Forwarded-For from 10.0.0.5 ")


def test_a_client_that_may_be_a_proxy_is_told_of_once(make: Make) -> None:
    house = make()
    for _ in range(3):
        house.notices.took_inner("172.17.0.1", "10.0.0.3")
    (said,) = house.lines()
    assert said.startswith("warning ")
    assert "the last address, 10.0.0.3, is taken as the client" in said
    assert "--forwarded-allow-ips '*,10.0.0.3'" in said


def test_a_peer_that_is_turned_away_is_told_of_once_for_each_reason(make: Make) -> None:
    house, loud = make(), make("debug")
    for why in ("no PROXY header", "no PROXY header", "it is not in proxy_allow_ips"):
        house.notices.turned_away("10.0.0.5", why)
        loud.notices.turned_away("10.0.0.5", why)
    assert [line.partition("; ")[0] for line in house.lines()] == [
        "warning turned away 10.0.0.5: no PROXY header",
        "warning turned away 10.0.0.5: it is not in proxy_allow_ips",
    ]
    assert len(loud.lines()) == 3


def test_why_there_is_no_websocket_is_told_once_for_each_reason(make: Make) -> None:
    house = make()
    for why in ("with one thread", "in TLS", "with one thread"):
        house.notices.no_websocket("GET /ws\x1b", why)
        house.now += 10_000
    assert house.lines() == [
        r'warning "GET /ws\x1b": no socket for WebSocket: with one thread; told once',
        r'warning "GET /ws\x1b": no socket for WebSocket: in TLS; told once',
    ]


def test_that_nothing_can_be_accepted_is_told_rarely(make: Make) -> None:
    house = make()
    for _ in range(1000):
        house.notices.cannot_accept(OSError(24, "Too many open files"), 1.0)
    house.now = 61.0
    house.notices.cannot_accept(OSError(24, "Too many open files"), 1.0)
    first, second = house.lines()
    assert first.endswith(
        "cannot accept: [Errno 24] Too many open files; trying again in 1 s or when a connection closes; "
        "raise the limit of open files (LimitNOFILE=, ulimit -n)"
    )
    assert "; 999 more times since this was last told; " in second


def test_that_accepting_is_denied_is_told_once(make: Make) -> None:
    """A filter of system calls stays as long as the process."""
    house = make()
    for _ in range(1000):
        house.notices.accept_denied(PermissionError(1, "Operation not permitted"), 1.0)
        house.now += 100.0
    (line,) = house.lines()
    assert line.startswith("error cannot accept: [Errno 1] Operation not permitted: a system call filter or ")
    assert "(SystemCallFilter=@system-service, " in line
    assert line.endswith("; trying again every 1 s; told once")


def test_the_limit_of_the_machine_has_another_way_out_than_our_own(make: Make) -> None:
    house = make()
    house.notices.cannot_accept(OSError(23, "Too many open files in system"), 1.0)
    house.notices.cannot_accept(OSError(12, "Cannot allocate memory"), 1.0)
    files, memory = house.lines()
    assert "sysctl fs.file-max" in files
    assert "LimitNOFILE" not in files + memory
    assert "MemoryMax=" in memory


def test_late_exceptions_do_not_fill_the_log_and_are_counted(make: Make) -> None:
    house = make()
    for _ in range(50):
        house.notices.came_outside(1, LookupError("too late"))
    house.now += 2
    house.notices.came_outside(2, LookupError("too late"))
    lines = [line for line in house.text().splitlines() if "outside its requests" in line]
    assert len(lines) == 11
    assert "an exception has come in application thread 1 outside its requests" in lines[0]
    assert lines[-1].endswith("(the thread goes on); 40 more since the last such line")
