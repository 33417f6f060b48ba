"""The access log of a worker whose lines are made by the extension."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkserver.ipc.scoreboard import REQUESTS
from forkserver.logs.access_log import AccessLog
from harness.plain_answers import GET, Start, both, receive
from harness.worker import StartWorker, Worker, wait_until

pytestmark = pytest.mark.extension

LINES = (
    GET,
    b"GET /a HTTP/1.1\r\nHost: a\r\nReferer: http://a/?b\r\nUser-Agent: some one\r\n\r\n",
    b'GET /"a"\\ HTTP/1.1\r\nHost: a\r\nUser-Agent: a"b\\c\r\n\r\n',
    b"GET /a HTTP/1.1\r\nHost: a\r\nReferer:\r\nUser-Agent: J\xf6rg\t\r\n\r\n",
    b"GET /" + b"a" * 3000 + b" HTTP/1.0\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n",
    b"GET /a|b;c?d=e,f HTTP/1.1\r\nHost: a:80\r\nX-Twice: a\r\nx-twice: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-Twice:  a b \t\r\nX-Other: \r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-Twice:a b \r\n\r\n",
    b"GET /a?b?c HTTP/1.1\r\nhost:a\r\nX-Twice:\t a b \t\r\n\r\n",
)
FORMATS = (
    "combined",
    "json",
    "%(h)s|%(l)s|%(u)s|%(t)s|%(m)s|%(U)s|%(q)s|%(H)s|%(s)s|%(b)s|%(B)s|%(p)s|%(worker)s|%(generation)s|%(id)s",
    '"%(r)s" "%(f)s" "%(a)s" %(T)s/%(M)s/%(D)s %(L)s %(wait)s %(app)s',
    '%({X-Forwarded-For}i)s "%({USER-Agent}i)s" %({host}i)s "%({x_twice}i)s" "%({none}i)s"',
    '%({X-Two}o)s "%({X-two}o)s" %({content-length}o)s "%({x-none}o)s" %({X-Empty}o)s "%({Date}o)s"',
    "%({REMOTE_USER}e)s,%({wsgi.version}e)s;%({wsgi.multithread}e)s:%({HTTP_HOST}e)s=%({a.number}e)s%%{%({none}e)s}",
)
OWN = '%(h)s "%(r)s" %({X-Tenant}i)s %({X-Kind}o)s %({wsgi.url_scheme}e)s %(T)s %(M)s %(D)s %(L)s %(wait)s %(app)s'
USERS: tuple[dict[str, Any], ...] = (
    {},
    {"REMOTE_USER": "a b"},
    {"REMOTE_USER": "a\n"},
    {"REMOTE_USER": "a\x7f"},
    {"REMOTE_ADDR": "eight..\\"},
    {"REMOTE_ADDR": ""},
    {"REMOTE_ADDR": 'a"'},
    {"a.number": 7, "answer": [("X-Two", "one"), ("X-Empty", "")]},
    {"a.number": "7", "answer": [("x-two", "a|b c"), ("X-Two", "two"), ("Content-Length", "4")]},
)
DATE_BYTES = re.compile(rb"\[(.*?)\]")
TIMES = re.compile(  # and ids
    r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\]|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|\d+\.\d{6}\b"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|\d+/\d+/\d+(?= )"
)


def of(user: dict[str, Any], body: bytes) -> Callable[[dict[str, Any], Start], list[bytes]]:
    def app(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        environ.update(user)
        start_response("200 OK", list(user.get("answer", [])) if body else [])
        return [body]

    return app


class GatheredLog(AccessLog):
    """Notes what it is given at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.given: list[bytes] = []

    def add_lines(self, lines: bytes) -> None:
        self.given.append(lines)
        super().add_lines(lines)


@pytest.fixture
def gathered(worker: StartWorker, tmp_path: Path) -> Iterator[tuple[Worker, GatheredLog, Path]]:
    """A worker, its access log, and the path of that."""
    path = tmp_path / "log"
    log = GatheredLog(path)
    server = worker()
    server.replace(access=log)
    yield server, log, path
    server.loop.close()
    log.close()


def ask(server: Worker, client: socket.socket, path: str, agent: bytes = b"a") -> None:
    client.sendall(b"GET /%s HTTP/1.1\r\nHost: a\r\nUser-Agent: %s\r\n\r\n" % (path.encode(), agent))
    assert b" 200 OK" in server.until_answered(client)


def test_lines_of_the_access_log_are_given_to_it_many_at_a_time(
    gathered: tuple[Worker, GatheredLog, Path],
) -> None:
    """In the order of the answers, and at once at most what a pipe takes whole."""
    server, log, path = gathered
    client = server.client()
    for number in range(100):
        client.sendall(b"GET /%d/%s HTTP/1.1\r\nHost: a\r\n\r\n" % (number, b"x" * 100))
        server.turn_until(lambda number=number: server.row.words[REQUESTS] == number + 1)
        receive(client)
    log.flush()
    assert re.findall(r"GET /(\d+)/", path.read_text()) == [str(number) for number in range(100)]
    assert max(map(len, log.given)) <= 4096
    assert len(log.given) < 20
    assert all(lines.endswith(b"\n") for lines in log.given)


def test_lines_of_two_seconds_are_not_given_together(gathered: tuple[Worker, GatheredLog, Path]) -> None:
    """Else those of the first would wait for the second to end."""
    server, log, _ = gathered
    client = server.client()

    def ask_once() -> bool:
        client.sendall(GET)
        server.turn_until(lambda: receive(client))
        return len(log.given) >= 3 and len({DATE_BYTES.findall(lines)[0] for lines in log.given}) > 1

    wait_until(ask_once)
    assert all(len(set(DATE_BYTES.findall(lines))) == 1 for lines in log.given)


def test_lines_of_both_ways_stand_in_the_order_of_the_answers(gathered: tuple[Worker, GatheredLog, Path]) -> None:
    """One that needs an escape is written by Python."""
    server, log, path = gathered
    client = server.client()
    for number in range(6):
        ask(server, client, str(number), b'a"b' if number % 3 == 2 else b"ab")
    log.flush()
    assert re.findall(r"GET /(\d+) ", path.read_text()) == list("012345")


def test_a_line_is_written_before_the_worker_sleeps_and_while_a_call_lasts(
    gathered: tuple[Worker, GatheredLog, Path],
) -> None:
    server, _, path = gathered
    client = server.client()
    ask(server, client, "first")
    server.loop.turn(0.001)
    assert "GET /first " in path.read_text()
    client.sendall(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
    server.turn_until(lambda: server.row.words[REQUESTS] == 2)
    server.tend()
    assert "GET /second " in path.read_text()


def test_a_forked_child_leaves_gathered_lines_to_its_worker(gathered: tuple[Worker, GatheredLog, Path]) -> None:
    server, log, path = gathered
    client = server.client()
    client.sendall(GET)
    server.turn_until(lambda: server.row.words[REQUESTS] == 1)
    extension = server.loop.plain
    assert extension is not None
    extension.forget()
    extension.hand_over_lines()
    log.flush()
    assert path.read_text() == ""


@pytest.mark.parametrize("form", FORMATS)
def test_the_lines_of_the_access_log_are_the_same(tmp_path: Path, form: str) -> None:
    """But for the times in them: the harness has a clock of its own."""
    written = []
    with both() as pair:
        for number, told in enumerate(pair):
            log = AccessLog(str(tmp_path / f"{number}.log"), form=form)
            told.worker.replace(access=log)
            for user in USERS:
                for request in LINES:
                    told.ask(of(user, b""), request)
                    told.ask(of(user, b"body"), request)
            log.flush()
            log.close()
            written.append((tmp_path / f"{number}.log").read_text())
    shown = [TIMES.sub("<time>", text) for text in written]
    assert shown[0].splitlines() == shown[1].splitlines()
    assert shown[0].count("\n") == len(LINES) * len(USERS) * 2


def test_a_format_of_ones_own_needs_no_python_for_a_plain_request(worker: StartWorker, tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "log"), form=OWN)
    server = worker(fields)
    server.replace(access=log)
    added: list[object] = []
    log.add = lambda *line: added.append(line)  # type: ignore[method-assign]
    client = server.client()
    client.sendall(b"GET /a?b HTTP/1.1\r\nHost: a\r\nX-Tenant:  ann\t\r\n\r\n")
    server.until_answered(client)
    server.loop.close()
    log.flush()
    log.close()
    line, _, times = (tmp_path / "log").read_text().partition(" http ")
    assert line.endswith('127.0.0.1 "GET /a?b HTTP/1.1" ann plain')
    seconds, milliseconds, microseconds, exact, waited, called = map(float, times.split())
    assert microseconds == round(exact * 1e6)
    assert (seconds, milliseconds) == (microseconds // 1e6, microseconds // 1e3)
    assert -1e-9 < exact - waited - called < 3e-6  # but for what a float rounds
    assert added == []


def fields(_environ: dict[str, Any], start_response: Start) -> list[bytes]:
    start_response("200 OK", [("X-Kind", "plain"), ("Content-Length", "0")])
    return []
