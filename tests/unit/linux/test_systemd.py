"""What systemd gives is taken, what it should hear is said in its words."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.errors import ConfigError
from forkserver.linux import systemd


class Manager:
    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        return self.socket.recv(65536).decode().split("\n")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, systemd.Notifier]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@forkserver-test-{os.getpid()}"
    made = Manager(name.replace("@", "\0", 1) if name.startswith("@") else name)
    yield made, systemd.Notifier({"NOTIFY_SOCKET": name})
    made.socket.close()


def test_ready_and_status_are_one_datagram(manager: tuple[Manager, systemd.Notifier]) -> None:
    service_manager, notifier = manager
    notifier.ready("generation 1 serves")
    assert service_manager.heard() == ["READY=1", "STATUS=generation 1 serves"]


def test_reloading_carries_its_time_in_the_same_datagram(manager: tuple[Manager, systemd.Notifier]) -> None:
    """systemd compares it with when it sent the signal; in two datagrams, or by the wall clock, a reload hangs."""
    service_manager, notifier = manager
    before = time.monotonic_ns() // 1000
    notifier.reloading("loading")
    reloading, at, _ = service_manager.heard()
    assert reloading == "RELOADING=1"
    name, _, microseconds = at.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000


def test_stopping_is_said(manager: tuple[Manager, systemd.Notifier]) -> None:
    service_manager, notifier = manager
    notifier.stopping("SIGTERM")
    assert service_manager.heard()[0] == "STOPPING=1"


def test_a_status_cannot_smuggle_another_assignment(manager: tuple[Manager, systemd.Notifier]) -> None:
    """A reload's reason comes from the application's error, which may hold any text."""
    service_manager, notifier = manager
    notifier.status("failed:\nMAINPID=1 \x1b[2J\u202e /\udcff")
    assert service_manager.heard() == [r"STATUS=failed: MAINPID=1 \x1b[2J\u202e /\udcff"]


@pytest.mark.parametrize("text", ["x" * 100_000, "\u00e9" * 100_000, "\x1b" * 5_000, "\udcff" * 5_000])
def test_a_long_reason_does_not_make_systemd_ignore_that_a_reload_is_over(
    manager: tuple[Manager, systemd.Notifier], text: str
) -> None:
    """A datagram of 4096 bytes or more is ignored as a whole (NOTIFY_BUFFER_MAX), and the reload would go on for it."""
    service_manager, notifier = manager
    notifier.ready(f"reload failed: {text}")
    ready, status = service_manager.heard()
    assert ready == "READY=1"
    assert status.startswith("STATUS=reload failed: ")
    assert status.endswith("...")
    assert len(status.encode()) <= len("STATUS=") + systemd.STATUS_BYTES


def test_a_manager_that_is_gone_does_not_stop_the_service(tmp_path: Path) -> None:
    systemd.Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("serves")


def test_without_a_manager_nothing_is_said() -> None:
    assert not systemd.Notifier({}).enabled


def test_the_variables_do_not_reach_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that speaks sd_notify would otherwise speak for the whole service."""
    given = {"NOTIFY_SOCKET": "/nowhere", "LISTEN_PID": "1", "LISTEN_FDS": "1", "WATCHDOG_USEC": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    systemd.Notifier(os.environ)
    systemd.listen_fds(os.environ)
    assert not given.keys() & os.environ.keys()


@pytest.fixture
def third() -> Iterator[int]:
    """Descriptor 3 is a socket, whatever it was before."""
    kept = os.dup(3) if _is_open(3) else None
    made = socket.socket()
    os.dup2(made.fileno(), 3)
    if made.fileno() != 3:
        made.close()
    else:
        made.detach()
    yield 3
    os.close(3)
    if kept is not None:
        os.dup2(kept, 3)
        os.close(kept)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _given(**more: str) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", **more}


def test_given_descriptors_are_closed_on_exec_and_named(third: int) -> None:
    assert systemd.listen_fds(_given(LISTEN_FDNAMES="web")) == [(3, "web")]
    assert not os.get_inheritable(third)


def test_a_descriptor_without_a_name_is_unknown(third: int) -> None:
    assert systemd.listen_fds(_given()) == [(3, "unknown")]


def test_descriptors_for_another_process_are_left_alone(third: int) -> None:
    """A parent that was socket-activated may have left its variables in the environment."""
    assert systemd.listen_fds(_given(LISTEN_PID="1")) == []


def test_a_descriptor_that_is_not_open_is_told() -> None:
    with pytest.raises(ConfigError, match="LISTEN_FDS=500: descriptor"):
        systemd.listen_fds(_given(LISTEN_FDS="500"))


def test_a_closed_descriptor_is_told_where_a_file_of_ours_has_its_number(third: int) -> None:
    """What Python opens is closed on exec, and what was passed is not."""
    os.set_inheritable(third, False)
    with pytest.raises(ConfigError, match="LISTEN_FDS=1: descriptor 3 is not open; leave it to systemd to set it"):
        systemd.listen_fds(_given())


def test_a_count_that_is_no_number_is_told() -> None:
    with pytest.raises(ConfigError, match="LISTEN_FDS=many"):
        systemd.listen_fds(_given(LISTEN_FDS="many"))


# The watchdog, more time, and the store


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "9" * 30}, None),
    ],
)
def test_the_watchdog_is_heeded_where_it_is_meant_for_us(environ: dict[str, str], seconds: float | None) -> None:
    assert systemd.Notifier(environ).watchdog_seconds == seconds


def test_a_stop_says_how_long_it_may_take(manager: tuple[Manager, systemd.Notifier]) -> None:
    service_manager, notifier = manager
    notifier.stopping("SIGTERM", 40.5)
    assert service_manager.heard() == ["STOPPING=1", "STATUS=SIGTERM", "EXTEND_TIMEOUT_USEC=40500000"]


def test_a_ping_and_more_time_are_said(manager: tuple[Manager, systemd.Notifier]) -> None:
    service_manager, notifier = manager
    notifier.alive()
    notifier.extend(70)
    assert service_manager.heard() == ["WATCHDOG=1"]
    assert service_manager.heard() == ["EXTEND_TIMEOUT_USEC=70000000"]


@pytest.mark.parametrize(("usual", "while_it_loads"), [(3, 60), (90, 90)])
def test_a_program_that_is_run_in_our_place_has_time_to_load(
    monkeypatch: pytest.MonkeyPatch, manager: tuple[Manager, systemd.Notifier], usual: int, while_it_loads: int
) -> None:
    """On a busy machine an interpreter takes longer to start than a short watchdog waits."""
    service_manager, notifier = manager
    monkeypatch.setattr(notifier, "watchdog_seconds", float(usual))
    notifier.stretch_watchdog()
    notifier.restore_watchdog()
    assert service_manager.heard() == [f"WATCHDOG_USEC={while_it_loads}000000"]
    assert service_manager.heard() == [f"WATCHDOG_USEC={usual}000000"]


def test_a_manager_without_a_watchdog_is_not_given_one(manager: tuple[Manager, systemd.Notifier]) -> None:
    """WATCHDOG_USEC= would switch it on."""
    service_manager, notifier = manager
    notifier.stretch_watchdog()
    notifier.restore_watchdog()
    notifier.alive()
    assert service_manager.heard() == ["WATCHDOG=1"]


def test_the_same_status_is_said_once(manager: tuple[Manager, systemd.Notifier]) -> None:
    """Each one is a message to PID 1, which tells it on."""
    service_manager, notifier = manager
    for status in ("one", "one", "two"):
        notifier.status(status)
    assert service_manager.heard() == ["STATUS=one"]
    assert service_manager.heard() == ["STATUS=two"]
    with pytest.raises(BlockingIOError):
        service_manager.heard()


def test_a_status_does_not_wait_for_a_manager_that_does_not_read(manager: tuple[Manager, systemd.Notifier]) -> None:
    """The kernel's queue of datagrams is short; what is full must not hold up the master."""
    _, notifier = manager
    before = time.monotonic()
    for number in range(2000):
        notifier.status(f"status {number}")
    assert time.monotonic() - before < 5


def test_a_manager_that_answers_nothing_has_no_store(manager: tuple[Manager, systemd.Notifier]) -> None:
    """No manager reads: what is not known to be kept is not kept."""
    _, notifier = manager
    assert not notifier.has_room(0.01)


def test_without_descriptors_there_is_no_room_and_nothing_is_left_open(
    manager: tuple[Manager, systemd.Notifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that adds an address asks; the error ended the master."""
    _, notifier = manager
    made: list[int] = []

    def pipe() -> tuple[int, int]:
        if made:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        made.extend(os.pipe2(os.O_CLOEXEC))
        return made[0], made[1]

    monkeypatch.setattr(os, "pipe", pipe)
    assert not notifier.has_room()
    for number in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
