"""The first lines of a start."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from forkserver.config import loading, settings
from forkserver.config.accelerator import accelerator
from forkserver.config.version import VERSION
from forkserver.linux import process_info
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.master.reporting import startup_banner

MIB = 1024 * 1024
Known = dict[int, tuple[int, int | None]]


def lines(*listeners: ListeningSocket, **given: Any) -> list[str]:
    return startup_banner.lines(settings.defaults(app="m:a", **given), listeners, [os.getpid()], [], True)


def test_the_first_line_says_which_program_this_is() -> None:
    """The first question of every report of a fault."""
    assert lines()[0] == f"forkserver {VERSION} ({accelerator()}), CPython {sys.version.split()[0]}, pid {os.getpid()}"


def test_a_unix_socket_has_a_line_on_who_may_connect(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound, socket.create_server(("127.0.0.1", 0)) as tcp:
        bound.bind(str(tmp_path / "s"))
        told = lines(ListeningSocket(bound, True), ListeningSocket(tcp, True))
    assert sum(line.startswith(f"unix:{tmp_path / 's'} (mode ") for line in told) == 1
    assert len(told) == 5


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Known:
    """Processes made up: by pid the resident set, and the share where it may be read, in MiB."""
    made: Known = {}

    def resident(pid: int) -> int:
        if pid not in made:
            raise FileNotFoundError(2, "No such file or directory")
        return made[pid][0] * MIB

    def proportional(pid: int) -> int:
        share = made[pid][1]
        if share is None:
            raise PermissionError(13, "Permission denied")
        return share * MIB

    monkeypatch.setattr(process_info, "resident", resident)
    monkeypatch.setattr(process_info, "proportional", proportional)
    return made


def test_the_memory_of_all_processes_is_counted_once(known: Known) -> None:
    """Master and templates cost memory too; what they share with the workers counts once."""
    known.update({os.getpid(): (20, 9), 2: (30, 5), 3: (30, 7), 4: (30, 7)})
    told = startup_banner.lines(settings.defaults(app="m:a", threads=4), [], [3, 4, 5], [2], False)
    assert "3 workers of 4 threads (each imports for itself); 28 MiB in 4 processes" in told
    assert startup_banner.memory([3, 99]) == (7 * MIB, 1, True)


def test_of_workers_which_are_alike_a_few_are_looked_at(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel walks through all pages of a process for the answer."""
    asked: list[int] = []

    def size(pid: int) -> tuple[int, int | None]:
        asked.append(pid)
        return 3 * MIB, 2 * MIB if pid > 1 else 10 * MIB

    monkeypatch.setattr(startup_banner, "_size", size)
    assert startup_banner.memory([1], range(2, 34)) == (74 * MIB, 33, True)
    assert asked == [1, 2, 3, 4, 5]


def test_memory_that_cannot_be_told_apart_is_said_so(known: Known) -> None:
    """A sum of shares and of resident sets would be neither."""
    known.update({os.getpid(): (20, 9), 2: (30, None)})
    assert startup_banner.memory([os.getpid(), 2]) == (50 * MIB, 2, False)
    told = startup_banner.lines(settings.defaults(app="m:a"), [], [2], [], True)
    assert "1 worker (one import, shared); 50 MiB at most (what they share is counted for each) in 2 processes" in told


def test_an_abstract_socket_is_open_to_all_and_every_interface_is_told() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as dual,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.create_server(("0.0.0.0", 0)) as old,
    ):
        abstract.bind(f"\0forkserver-test-{os.getpid()}")
        listeners = [ListeningSocket(each, True) for each in (dual, abstract, old)]
        listeners[2].lacks_ipv6 = True
        told = lines(*listeners)
        warned = startup_banner.warnings(settings.defaults(app="m:a", user="nobody", workers=2), listeners)
    name = f"unix:@forkserver-test-{os.getpid()}"
    assert f"http://[::]:{listeners[0].name.rpartition(':')[2]} (IPv6 and IPv4), {name}, http://0.0.0.0:" in told[1]
    assert f"{name} has no file, so no permissions: every user of this machine may connect to it; give a path" in str(
        warned
    )
    assert any(line.startswith("http://0.0.0.0:") and "serves IPv4 alone; the next stop" in line for line in warned)


@pytest.mark.parametrize(("pid", "told"), [(1, 0), (4711, 1)])
def test_every_network_is_told_except_in_a_container(monkeypatch: pytest.MonkeyPatch, pid: int, told: int) -> None:
    """There loopback, the advice, is reached by no published port."""
    with socket.create_server(("0.0.0.0", 0)) as every:
        monkeypatch.setattr(os, "getpid", lambda: pid)
        warned = startup_banner.warnings(settings.defaults(app="m:a", workers=2), [ListeningSocket(every, True)])
    assert sum("is open to every network; bind 127.0.0.1" in line for line in warned) == told


# Without /proc


def test_the_start_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_banner, "PROCESS_FILES", "/nowhere/stat")
    said = [line for line in startup_banner.warnings(loading.load(["raw:app", "-w", "2"], {}), []) if "/proc" in line]
    assert len(said) == 1
    assert said[0].endswith("mount proc at /proc")


def test_the_memory_of_processes_that_cannot_be_seen_is_not_told(known: Known) -> None:
    assert not known
    assert startup_banner.memory([os.getpid()]).processes == 0


def test_a_person_who_develops_is_told_where_to_click() -> None:
    with socket.create_server(("0.0.0.0", 0)) as every, socket.create_server(("127.0.0.1", 0)) as own:
        made = [ListeningSocket(each, own=True) for each in (every, own)]
        told = startup_banner.lines(settings.defaults(app="m:a", dev="on"), made, [1], [2], False)
        assert f"open http://localhost:{every.getsockname()[1]}/" in told
        assert f"open http://127.0.0.1:{own.getsockname()[1]}/" in told
        assert "development mode" in told[0]
