"""A reload that changes ``bind``: addresses come and go, and nobody who is served loses a request."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from harness import BOUND
from harness.clients import Address, Wire, connect, get
from harness.gate import Gate
from harness.load import Load
from harness.processes import descriptors, wait_gone
from harness.program import APPS, LaunchProgram, Program, StartProgram, own_address

Start = Callable[..., Program]
HOST, PORT = own_address()


def tcp(port: int = PORT) -> tuple[str, int]:
    return HOST, port


def write(folder: Path, *addresses: Address, more: str = "") -> None:
    """The configuration that names ``addresses``."""
    names = [f"unix:{each}" if isinstance(each, str) else f"{each[0]}:{each[1]}" for each in addresses]
    (folder / "forkserver.toml").write_text(f"bind = {names!r}\n{more}")


@pytest.fixture
def start(launch: LaunchProgram, tmp_path: Path) -> Start:
    """Start the program on addresses of its own, and wait for READY=1."""

    def run(*addresses: Address, arguments: tuple[str, ...] = ("raw:app",), **more: object) -> Program:
        write(tmp_path, *addresses)
        # Its socket would be one more among those that are counted.
        always = ("--log-level", "debug", "--pythonpath", str(APPS), "--control-socket", "off")
        return launch(*always, *arguments, **more).wait_ready()

    return run


def refused(address: Address) -> None:
    """Return once nobody can connect to ``address``: while workers hold it yet, a SYN is dropped and comes again."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as client:
        client.settimeout(BOUND)
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            client.connect(address)


def until_refused(address: Address) -> None:
    """Connect again and again until nobody listens any more; who is let in before is let down."""
    with suppress(ConnectionRefusedError):
        while True:
            connect(address).close()


def listening(pid: int) -> list[str]:
    """The Unix sockets that ``pid`` holds and that listen, by their paths; see proc_net(5)."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    paths = {f"socket:[{row[6]}]": row[7] for row in rows if int(row[3], 16) & 0x10000 and len(row) > 7}
    held = descriptors(pid).values()
    return sorted(paths[each] for each in held if each in paths)


def broken_off(load: Load) -> list[str]:
    """Requests that were sent and not answered; who came to an address that is gone has sent none."""
    return [each for each in load.lost if not each.startswith("connecting")]


def test_addresses_come_and_go_under_load(start: Start, tmp_path: Path) -> None:
    """On the address that stays nothing is lost; on the one that goes, whoever has connected is served on."""
    stays, goes, comes = str(tmp_path / "stays"), str(tmp_path / "goes"), str(tmp_path / "comes")
    server = start(stays, goes, arguments=("raw:app", "-w", "4"))
    with Load(stays, clients=8) as staying, Load(goes, clients=8) as going:
        staying.more(200)
        going.more(200)
        write(tmp_path, comes, stays)
        since = server.log.mark()
        server.reload()
        server.log.wait(f"now serving at unix:{comes} too", since)
        server.log.wait(f"no longer serving at unix:{goes}", since)
        assert get(comes).status == 200
        refused(goes)
        assert not os.path.exists(goes)
        staying.more(200)
    assert staying.lost == []
    assert broken_off(going) == []
    assert server.stop() == 0
    assert not os.path.exists(comes)
    assert not os.path.exists(stays)


def test_tcp_addresses_come_and_go_under_load(start: Start, tmp_path: Path) -> None:
    """Closing a TCP listener resets who stands in its queue, unless newcomers are kept out and the queue is emptied."""
    stays, goes, comes = tcp(), tcp(PORT + 1), tcp(PORT + 2)
    server = start(stays, goes, arguments=("raw:app", "-w", "4"))
    close = "Connection: close\r\n"
    with Load(stays, clients=8) as staying, Load(goes, clients=8, headers=close) as going:
        staying.more(200)
        going.more(200)
        write(tmp_path, stays, comes)
        server.reload()
        refused(goes)
        assert get(comes).status == 200
        staying.more(200)
    assert staying.lost == []
    assert broken_off(going) == []
    with socket.create_server(goes) as another:  # nobody holds it any more
        assert another.getsockname() == goes


def test_a_request_in_flight_on_an_address_that_goes_is_answered(start: Start, gate: Gate, tmp_path: Path) -> None:
    """The listener goes, the connection stays."""
    stays, goes = str(tmp_path / "stays"), str(tmp_path / "goes")
    server = start(stays, goes, arguments=("raw:app", "-w", "2"), environ=gate.environ)
    with Wire(goes) as wire:
        wire.ask("/gate")
        gate.wait_for()
        write(tmp_path, stays)
        since = server.log.mark()
        server.send(signal.SIGHUP)
        server.log.wait("no longer serving", since)
        gate.open()
        assert wire.answer().status == 200
    server.log.wait("generation 2 serves", since)


def test_who_stands_in_the_queue_of_an_address_that_goes_is_answered(start: Start, tmp_path: Path) -> None:
    """They have connected, and what is closed over them is a reset. No worker takes them until it is gone."""
    stays, goes, pause = str(tmp_path / "stays"), str(tmp_path / "goes"), str(tmp_path / "pause")
    (tmp_path / "pausing.py").write_text(
        f"def worker_ready(worker):\n    if worker.generation == 2:\n        open({pause!r}).read(1)\n"
    )
    os.mkfifo(pause)
    server = start(stays, goes, arguments=("raw:app", "--hooks", "pausing"))
    (old,) = server.workers()
    os.kill(old.pid, signal.SIGSTOP)
    with ExitStack() as stack:
        stack.callback(os.kill, old.pid, signal.SIGCONT)
        waiting = [stack.enter_context(Wire(goes)) for _ in range(16)]
        for wire in waiting:
            wire.ask()
        write(tmp_path, stays)
        server.send(signal.SIGHUP)
        server.log.wait(f"no longer serving at unix:{goes}")
        Path(pause).write_text(".")
        assert [wire.answer().status for wire in waiting] == [200] * 16


def test_an_address_in_use_refuses_the_reload_and_leaves_all_as_it_was(start: Start, tmp_path: Path) -> None:
    """Nothing is loaded even: what the operator mends is the file."""
    server = start(tcp(), arguments=("raw:app", "-w", "2"))
    before = server.family()
    with socket.create_server(tcp(PORT + 1)), Load(tcp(), clients=4) as load:
        since = server.log.mark()
        write(tmp_path, str(tmp_path / "new"), tcp(PORT + 1))
        server.send(signal.SIGHUP)
        failed = server.log.wait("reload failed", since).text
        assert f"cannot bind {HOST}:{PORT + 1}: address already in use" in failed
        load.more(50)
    assert load.lost == []
    assert server.family() == before
    assert not (tmp_path / "new").exists()


def test_an_address_is_not_kept_by_a_reload_that_is_refused_for_something_else(start: Start, tmp_path: Path) -> None:
    """It is bound first, so it has to be given back whatever comes after."""
    comes = str(tmp_path / "comes")
    server = start(tcp())
    since = server.log.mark()
    write(tmp_path, tcp(), comes, more=f"error_log = '{tmp_path}/no/such/folder/log'\n")
    server.send(signal.SIGHUP)
    assert "error_log" in server.log.wait("reload failed", since).text
    assert not os.path.exists(comes)
    assert listening(server.pid) == []
    assert get(tcp()).status == 200


def test_an_address_that_was_added_is_free_once_the_master_is_killed(start: Start, gate: Gate, tmp_path: Path) -> None:
    """A worker in a call cannot close it, so a template must know of it too."""
    comes = tcp(PORT + 1)
    server = start(tcp(), arguments=("raw:app", "--graceful-timeout", "5"), environ=gate.environ)
    write(tmp_path, tcp(), comes)
    server.reload()
    family = server.family()
    with Wire(comes) as wire:
        wire.ask("/gate")
        gate.wait_for()
        server.send(signal.SIGKILL)
        server.wait()
        until_refused(comes)
        with socket.create_server(comes) as another:
            assert another.getsockname() == comes
        gate.open()
        assert wire.answer().status == 200
    for member in family:
        assert wait_gone(member.pid)


@pytest.mark.parametrize("preload", ["on", "off"])
def test_a_reload_that_fails_takes_its_addresses_back(start: Start, tmp_path: Path, preload: str) -> None:
    """The old code serves on, at the old addresses."""
    goes, comes = str(tmp_path / "goes"), str(tmp_path / "comes")
    good = "from raw import app\n"
    (tmp_path / "mysite.py").write_text(good)
    server = start(tcp(), goes, arguments=("mysite:app", "-w", "2", "--preload", preload))
    with Load(tcp(), clients=4) as staying, Load(goes, clients=4) as going:
        since = server.log.mark()
        (tmp_path / "mysite.py").write_text("raise RuntimeError('broken')\n")
        write(tmp_path, tcp(), comes)
        server.send(signal.SIGHUP)
        server.log.wait("reload failed", since)
        refused(comes)
        staying.more(50)
        going.more(50)
        (tmp_path / "mysite.py").write_text(good)
        server.reload()
        assert get(comes).status == 200
        refused(goes)
    assert staying.lost == []
    assert broken_off(going) == []


def test_many_changes_leave_nothing_behind(start: Start, tmp_path: Path) -> None:
    """A descriptor that stays with each change is noticed after months."""
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    server = start(tcp(), one)
    for address in (two, one) * 3:
        write(tmp_path, tcp(), address)
        since = server.log.mark()
        server.reload()
        assert get(address).status == 200
        server.log.wait(r"worker=1 .* has emptied and closed listener \d+", since)
        (worker,) = server.workers()
        assert listening(worker.pid) == listening(server.pid) == [address]


def test_addresses_of_systemd_are_not_changed_by_bind(program: StartProgram, tmp_path: Path) -> None:
    """It has given them, and it is told so that a changed bind means nothing."""
    write(tmp_path, str(tmp_path / "one"))
    server = program("raw:app")
    write(tmp_path, str(tmp_path / "two"))
    since = server.log.mark()
    server.reload()
    server.log.wait("bind has changed and is not used: systemd has given the listeners", since)
    assert not (tmp_path / "two").exists()
    with server.connect() as wire:
        assert wire.get().status == 200


def test_what_only_new_addresses_get_is_said(start: Start, tmp_path: Path) -> None:
    """A queue that was to be longer and is not is found out at the worst time."""
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    server = start(one)
    write(tmp_path, one, two, more='socket_mode = "0600"\n')
    since = server.log.mark()
    server.reload()
    server.log.wait("socket_mode has changed: it applies to addresses that are added", since)
    assert os.stat(one).st_mode & 0o777 == 0o660
    assert os.stat(two).st_mode & 0o777 == 0o600


def test_more_addresses_than_a_worker_can_be_passed_are_refused_and_those_before_serve(
    start: Start, tmp_path: Path
) -> None:
    """At a reload by themselves, or beside those that are served until the new code is."""
    server = start(*(f"s{number}" for number in range(150)))
    for addresses, why in ((range(252), "252 addresses, "), (range(150, 300), "150 new addresses beside 150 ")):
        write(tmp_path, *(f"s{number}" for number in addresses))
        since = server.log.mark()
        server.send(signal.SIGHUP)
        server.log.wait(why, since)
        assert get(str(tmp_path / "s149")).status == 200
    assert server.stop() == 0
