"""HAProxy with the sections in deploy/ in front: what it says of clients, reloads, machines that leave one by one."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from harness import needs, proxies
from harness.clients import Address, Wire
from harness.load import Load
from harness.program import APPS, LaunchProgram, Program, StartProgram, listener

SECTIONS = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"
AROUND = "global\n    log stderr format raw local0 notice\n    hard-stop-after 5s\n"


@contextmanager
def in_front(folder: Path, *servers: Address, sections: str = "") -> Iterator[tuple[str, int]]:
    """HAProxy before ``servers``, on a listener that it inherits: no port is guessed."""
    haproxy = needs.program("haproxy")
    with listener() as made:
        names = [server if isinstance(server, str) else "{}:{}".format(*server) for server in servers]
        lines = [f"    server s{number} {name}" for number, name in enumerate(names)]
        text = proxies.changed(SECTIONS, sections or SECTIONS.read_text(), r"bind :80", f"bind fd@{made.fileno()}")
        text = proxies.changed(SECTIONS, text, r"(?m)^    server local .*", "\n".join(lines))
        (folder / "haproxy.cfg").write_text(AROUND + text)
        running = subprocess.Popen(
            [haproxy, "-db", "-f", folder / "haproxy.cfg"], pass_fds=[made.fileno()], stdin=subprocess.DEVNULL
        )
        try:
            yield made.getsockname()
        finally:
            running.send_signal(signal.SIGUSR1)  # a soft stop: it lets connections finish
            running.wait(60)


# What Debian's package brings, and the least that a page on the web tells.
PLAIN = """
defaults
    mode http
    timeout connect 5000
    timeout client 50000
    timeout server 50000
frontend web
    bind :80
    default_backend app
backend app
    server local 127.0.0.1:8000
"""


@pytest.fixture
def server(program: StartProgram, tmp_path: Path) -> Program:
    return program("raw:app", "-w", "2", listen=str(tmp_path / "site.sock"))


def test_what_a_client_says_of_itself_is_not_believed(server: Program, tmp_path: Path) -> None:
    """The application goes by these fields; the client must not be able to write them."""
    lies = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\n"
    with in_front(tmp_path, server.address) as front, Wire(front) as wire:
        seen = json.loads(wire.get("/environ", headers=lies).text)
    assert seen["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert seen["HTTP_X_FORWARDED_PROTO"] == "http"
    assert "HTTP_FORWARDED" not in seen
    assert seen["HTTP_HOST"] == "test"


def test_the_host_of_the_request_line_goes_before_the_field(server: Program, tmp_path: Path) -> None:
    with in_front(tmp_path, server.address) as front:
        proxies.tell_two_hosts(front, "two.example")


def test_reloads_are_not_noticed_behind_haproxy(server: Program, tmp_path: Path) -> None:
    with in_front(tmp_path, server.address) as front, Load(front, clients=8) as load:
        load.more(200)
        for _ in range(5):
            server.reload()
            load.more(100)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}


def test_machines_that_are_replaced_one_by_one_lose_nothing(launch: LaunchProgram, tmp_path: Path) -> None:
    """docs/scaling.md promises it of --drain-delay: kept connections leave first, refused ones go to the other one."""
    addresses = [str(tmp_path / name) for name in "ab"]

    def machine(address: str) -> Program:
        own = ("--bind", f"unix:{address}", "--drain-delay", "0.5", "--pythonpath", str(APPS))
        return launch("raw:app", *own).wait_ready()

    proxies.replace_one_by_one(addresses, machine, partial(in_front, tmp_path))


def test_nothing_is_lost_behind_haproxy_as_it_comes(start: Callable[..., Program], tmp_path: Path) -> None:
    with listener() as held, in_front(tmp_path, held.getsockname(), sections=PLAIN) as front:
        proxies.serve_through_reloads_and_restarts(front, partial(start, held))


def test_an_upload_that_is_too_large_is_answered_413(program: StartProgram, tmp_path: Path) -> None:
    server = program("raw:app", "--max-body", str(proxies.MIB))
    with in_front(tmp_path, server.address, sections=PLAIN) as front:
        proxies.refuse_uploads(front)
