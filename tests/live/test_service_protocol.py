"""What a service without a .socket unit gets from a real systemd: kept listeners, a watchdog, patience, a status."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import processes, reach
from harness.clients import Wire, get
from harness.gate import Gate
from harness.journal import Journal
from harness.load import Load
from harness.program import APPS, own_address
from harness.service_manager import ServiceManager

pytestmark = pytest.mark.as_root
UNIT = "protocol.service"
SLOW = "import select\nselect.select([], [], [], 6.0)\nfrom raw import app\n"  # it is time itself that is tried here
STORE = """
import array, os, socket
made = os.memfd_create("state")
beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made]))]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
    sender.sendmsg([b"FDSTORE=1\\nFDNAME=state"], beside, 0, os.environ["NOTIFY_SOCKET"])
"""


class Service:
    """One unit that binds its addresses itself, with ``more`` lines in its [Service] section."""

    def __init__(self, manager: ServiceManager, folder: Path, log: Journal) -> None:
        self.manager, self.folder, self.log = manager, folder, log
        self.tcp, self.unix = own_address(), str(folder / "run" / "app.sock")
        shutil.copy(APPS / "raw.py", folder)
        (folder / "slow.py").write_text(SLOW)
        (folder / "run").mkdir()
        self.binds = f"bind = ['{self.tcp[0]}:{self.tcp[1]}', 'unix:{self.unix}']\n"
        self.settings(self.binds)

    def settings(self, text: str) -> None:
        (self.folder / "forkserver.toml").write_text(text)

    def configure(self, more: str = "", app: str = "raw:app", arguments: str = "-w 2") -> None:
        self.manager.write(
            UNIT,
            f"[Service]\nType=notify\nWorkingDirectory={self.folder}\nEnvironment=PYTHONDONTWRITEBYTECODE=1\n"
            f"ExecStart={sys.executable} -m forkserver {arguments} {app}\n"
            f"ExecReload={sys.executable} -m forkserver.cli.control reload --wait\n"
            f"KillMode=mixed\nRuntimeDirectory=protocol\n{more}",
        )
        self.control("daemon-reload")

    def control(self, *arguments: str) -> None:
        ran = self.manager.systemctl(*arguments)
        assert ran.returncode == 0, f"{ran.stderr}\n{self.log.text()}"

    def start(self) -> int:
        """Start it, and return where its log, after all that runs before have left there, has come to."""
        self.control("start", UNIT)
        self.log.wait(rf"serving .*{self.folder.name}")
        return self.log.mark()

    def show(self, name: str) -> str:
        return self.manager.show(UNIT, name)

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        socket = "--socket=/run/protocol/control.sock"
        return self.manager.run(sys.executable, "-m", "forkserver.cli.control", socket, *arguments)

    def master(self) -> int:
        """The master's pid as this side of the namespace has it."""
        (found,) = [each for each in processes.children() if processes.title(each).startswith("forkserver: master")]
        return found

    def close(self) -> None:
        self.manager.systemctl("stop", UNIT)
        self.manager.systemctl("reset-failed", UNIT)


@pytest.fixture
def service(manager: ServiceManager) -> Iterator[Service]:
    with reach.public_folder() as folder, manager.follow(UNIT) as log:
        made = Service(manager, folder, log)
        yield made
        made.close()


def addresses(service: Service) -> list[tuple[str, int] | str]:
    return [service.tcp, service.unix]


@pytest.mark.parametrize("which", [0, 1], ids=["tcp", "unix"])
def test_a_restart_without_a_socket_unit_refuses_nobody(service: Service, which: int) -> None:
    """systemd keeps the listeners: who comes between the two masters waits in their queues, and is answered."""
    service.configure("FileDescriptorStoreMax=8\n")
    service.start()
    assert service.show("NFileDescriptorStore") == "2"
    with Load(addresses(service)[which], clients=8) as load:
        for _ in range(3):
            load.more(200)
            service.control("restart", UNIT)
        load.more(200)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}
    assert service.show("NFileDescriptorStore") == "2"


def test_an_upgrade_keeps_watchdog_store_and_control_socket(service: Service) -> None:
    """All that the manager has given at the first start is the next program's too."""
    service.configure("FileDescriptorStoreMax=8\nWatchdogSec=20\nRestart=on-watchdog\n")
    since = service.start()
    with Load(service.tcp, clients=8) as load:
        load.more(200)
        service.control("kill", "--signal=USR2", "--kill-whom=main", UNIT)
        service.log.wait("upgraded to forkserver", since)
        service.log.wait("generation 2 serves", since)
        assert service.show("WatchdogUSec") == "20s"
        assert service.show("NFileDescriptorStore") == "2"
        assert service.ctl("status").returncode == 0
        service.control("reload", UNIT)
        load.more(200)
        service.control("restart", UNIT)
        load.more(200)
    assert load.lost == []
    assert service.show("NFileDescriptorStore") == "2"
    assert service.show("NRestarts") == "0"


def test_without_room_in_the_store_a_stop_empties_the_queues(service: Service) -> None:
    """What systemd does not keep ends with us: its queue has no successor, and its file is removed."""
    service.configure("FileDescriptorStoreMax=2\n")  # one more than there are addresses is needed to be sure
    service.start()
    assert service.show("NFileDescriptorStore") == "0"
    with Load(service.tcp, clients=8) as load:
        load.more(200)
        service.control("stop", UNIT)
    assert [loss for loss in load.lost if not loss.startswith("connecting: ConnectionRefusedError")] == []
    assert not Path(service.unix).exists()


def test_an_address_that_a_reload_gives_up_is_not_kept_any_more(service: Service) -> None:
    """Else systemd would hold the address for a service that does not serve it, and nobody else could have it."""
    service.configure("FileDescriptorStoreMax=8\n")
    since = service.start()
    service.settings(f"bind = ['unix:{service.unix}']\n")
    service.control("reload", UNIT)
    service.log.wait("no longer serving at http", since)
    assert service.show("NFileDescriptorStore") == "1"
    with pytest.raises(ConnectionRefusedError):
        get(service.tcp)
    service.settings(service.binds)
    service.control("reload", UNIT)
    assert service.show("NFileDescriptorStore") == "2"
    assert get(service.tcp).status == 200


def test_an_address_that_is_gone_after_a_restart_is_not_kept_any_more(service: Service) -> None:
    service.configure("FileDescriptorStoreMax=8\n")
    service.start()
    service.settings(f"bind = ['{service.tcp[0]}:{service.tcp[1]}']\n")
    service.control("restart", UNIT)
    assert service.show("NFileDescriptorStore") == "1"
    assert get(service.tcp).status == 200
    with pytest.raises(ConnectionRefusedError):
        get(service.unix)


def test_a_kept_unix_socket_whose_file_is_gone_is_bound_anew(service: Service) -> None:
    """Nobody could reach it any more."""
    service.configure("FileDescriptorStoreMax=8\n")
    service.start()
    os.unlink(service.unix)
    service.control("restart", UNIT)
    assert get(service.unix).status == 200
    assert service.show("NFileDescriptorStore") == "2"


def test_an_import_longer_than_timeoutstartsec_is_waited_for(service: Service) -> None:
    """It is bounded by boot_timeout, and systemd is told so before it loses patience."""
    service.configure("TimeoutStartSec=5\n", app="slow:app")
    service.start()
    assert service.show("ActiveState") == "active"


def test_an_import_longer_than_boot_timeout_is_not(service: Service) -> None:
    """More time is asked for once, not again and again: what hangs ends."""
    service.configure("TimeoutStartSec=5\n", app="slow:app", arguments="-w 2 --boot-timeout 1.5")
    assert service.manager.systemctl("start", UNIT).returncode != 0
    service.log.wait(r"the import took longer than boot_timeout \(1.5 s\)")


def test_a_stop_longer_than_timeoutstopsec_lets_the_request_in_flight_finish(service: Service) -> None:
    gate = Gate(service.folder)
    environment = "".join(f"Environment={name}={value}\n" for name, value in gate.environ.items())
    service.configure(f"TimeoutStopSec=1\n{environment}")
    try:
        service.start()
        with Wire(service.tcp) as wire, Wire(service.unix) as other:
            wire.ask("/gate")
            gate.wait_for(1)
            stopping = subprocess.Popen(service.manager.command("systemctl", "stop", UNIT))
            service.log.wait("stopping: SIGTERM")
            # TimeoutStopSec is over, and twice: it is time itself that is tried here.
            with pytest.raises(subprocess.TimeoutExpired):
                stopping.wait(2.5)
            gate.open(1)
            assert wire.answer().status == 200
            assert other.ended()
            assert stopping.wait() == 0
        assert service.show("Result") == "success"
    finally:
        gate.close()


def test_a_master_that_is_stopped_is_found_by_the_watchdog(service: Service) -> None:
    """A ping comes from the loop itself, so a loop that does not turn sends none."""
    service.configure("WatchdogSec=3\nRestart=on-watchdog\n")
    since = service.start()
    os.kill(service.master(), signal.SIGSTOP)
    service.log.wait("serving raw:app", since)
    assert service.show("NRestarts") == "1"
    assert get(service.tcp).status == 200


def test_a_master_that_is_stopped_after_a_reload_is_found_as_soon(service: Service) -> None:
    """systemd adds the time that a reload may take to its watchdog's."""
    service.configure("WatchdogSec=3\nRestart=on-watchdog\n")
    service.start()
    service.control("reload", UNIT)
    since = service.log.mark()
    os.kill(service.master(), signal.SIGSTOP)
    service.log.wait("serving raw:app", since)
    assert service.show("NRestarts") == "1"


def test_the_watchdog_is_not_told_that_all_is_well_while_nobody_serves(service: Service) -> None:
    """Every worker is stopped by a signal: the master's loop turns, and is worth nothing."""
    service.configure("WatchdogSec=3\nRestart=on-watchdog\nTimeoutAbortSec=5\n")
    since = service.start()
    for each in processes.children():
        if processes.title(each).startswith("forkserver: worker"):
            os.kill(each, signal.SIGSTOP)
    service.log.wait("serving raw:app", since)
    assert service.show("NRestarts") == "1"


def test_the_status_says_who_serves(service: Service) -> None:
    """`systemctl status` is where an operator looks first."""
    service.configure()
    service.start()
    assert service.show("StatusText") == "generation 1 serves: 2 workers"
    assert service.ctl("maintenance", "on").returncode == 0
    service.control("reload", UNIT)
    assert service.show("StatusText") == "generation 2 serves: 2 workers; maintenance, answering 503"
    assert get(service.tcp).status == 503


def test_systemctl_reload_fails_with_the_reason_and_the_old_code_serves(service: Service) -> None:
    service.configure()
    service.start()
    raw = service.folder / "raw.py"
    good = raw.read_text()
    raw.write_text("this is no Python\n")
    assert service.manager.systemctl("reload", UNIT).returncode != 0
    service.log.wait("forkserverctl: reload failed")
    service.log.wait(r"  File .*raw\.py")
    assert service.show("ActiveState") == "active"
    assert "reload failed" in service.show("StatusText")
    assert get(service.tcp).status == 200
    raw.write_text(good)
    service.control("reload", UNIT)
    assert service.show("StatusText").startswith("generation")


def test_a_first_start_tells_nobody_elses_descriptor_apart(service: Service) -> None:
    """A descriptor that a person has stored under another name is no listener of ours."""
    service.configure("FileDescriptorStoreMax=8\nNotifyAccess=all\n")
    service.start()
    (service.folder / "store.py").write_text(STORE)
    service.manager.write(
        f"{UNIT}.d/more.conf", f"[Service]\nExecStartPost={sys.executable} {service.folder}/store.py\n"
    )
    try:
        service.control("daemon-reload")
        service.control("restart", UNIT)
        assert service.show("NFileDescriptorStore") == "3"
        since = service.log.mark()
        service.control("restart", UNIT)
        service.log.wait("'state' .* no listener", since)
        assert get(service.tcp).status == 200
    finally:
        service.manager.run("rm", "-r", f"/run/systemd/system/{UNIT}.d")
