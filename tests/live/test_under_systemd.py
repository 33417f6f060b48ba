"""The shipped units, and the README's own, under a real systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import needs, processes, reach
from harness.clients import Wire, get
from harness.journal import Journal
from harness.load import Load
from harness.program import APPS
from harness.service_manager import ServiceManager

pytestmark = pytest.mark.as_root
TOP = Path(__file__).parents[2]
SERVICE, SOCKET = "forkserver.service", "forkserver.socket"


@pytest.fixture(scope="module")
def manager() -> Iterator[ServiceManager]:
    for name in ("unshare", "nsenter", "systemctl", "journalctl"):
        needs.program(name)
    made = ServiceManager()
    yield made
    made.close()


class Site:
    """The shipped units with the lines changed that an operator changes, in a folder of their own."""

    def __init__(self, manager: ServiceManager, folder: Path, log: Journal) -> None:
        self.manager, self.folder, self.log = manager, folder, log
        self.address = str(folder / "site.sock")
        shutil.copy(APPS / "raw.py", folder)
        for unit in (SERVICE, SOCKET):
            manager.write(unit, (TOP / "systemd" / unit).read_text())
        manager.write(f"{SOCKET}.d/test.conf", f"[Socket]\nListenStream=\nListenStream={self.address}\n")
        self.configure("raw:app -w 2")

    def configure(self, arguments: str, more: str = "") -> None:
        self.manager.write(
            f"{SERVICE}.d/test.conf",
            f"[Service]\nWorkingDirectory={self.folder}\nExecStart=\n"
            f"ExecStart={sys.executable} -m forkserver {arguments}\n{visible()}{more}",
        )
        self.control("daemon-reload")

    def control(self, *arguments: str) -> None:
        ran = self.manager.systemctl(*arguments)
        assert ran.returncode == 0, f"{ran.stderr}\n{self.log.text()}"

    def workers(self) -> int:
        below = [child for child in processes.children() if processes.title(child).startswith("forkserver: worker")]
        return len(below)

    def close(self) -> None:
        self.manager.systemctl("stop", SOCKET, SERVICE)
        self.manager.systemctl("reset-failed", SERVICE)


def visible() -> str:
    """Lines that show the interpreter under test to a unit with ProtectHome= and PrivateTmp=."""
    places = " ".join(map(str, reach.places()))
    return f"ProtectHome=tmpfs\nBindReadOnlyPaths={places}\nEnvironment=PYTHONDONTWRITEBYTECODE=1\n"


@pytest.fixture
def site(manager: ServiceManager) -> Iterator[Site]:
    with reach.public_folder() as folder, manager.follow(SERVICE) as log:
        made = Site(manager, folder, log)
        yield made
        made.close()


def test_start_returns_when_every_worker_is_ready(site: Site) -> None:
    site.control("start", SERVICE)
    assert site.workers() == 2
    assert site.manager.show(SERVICE, "ActiveState") == "active"
    assert "2 workers" in site.manager.show(SERVICE, "StatusText")
    assert get(site.address).status == 200


def test_a_request_sent_before_the_start_is_answered(site: Site) -> None:
    """The socket unit listens before the service exists; the first request starts it."""
    site.control("start", SOCKET)
    assert site.manager.show(SERVICE, "ActiveState") == "inactive"
    assert get(site.address).status == 200
    site.control("start", SERVICE)  # joins the start that the request began
    assert site.manager.show(SERVICE, "ActiveState") == "active"


def test_systemctl_reload_under_load_loses_nothing(site: Site) -> None:
    site.control("start", SERVICE)
    with Load(site.address, clients=8) as load:
        load.more(500)
        for generation in (2, 3, 4):
            site.control("reload", SERVICE)
            site.log.wait(f"generation {generation} serves")
            load.more(200)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}


def test_a_restart_under_load_refuses_nobody(site: Site) -> None:
    """What is queued at the socket unit belongs to the successor."""
    site.control("start", SERVICE)
    with Load(site.address, clients=8) as load:
        load.more(200)
        site.control("restart", SERVICE)
        load.more(200)
    assert load.lost == []


def test_stop_is_clean(site: Site) -> None:
    site.control("start", SERVICE)
    with Wire(site.address) as parked:
        assert parked.get().status == 200
        site.control("stop", SERVICE)
        assert parked.ended()
    assert site.manager.show(SERVICE, "Result") == "success"
    assert site.manager.show(SERVICE, "ExecMainStatus") == "0"
    assert site.workers() == 0


def test_a_mistake_is_shown_and_not_tried_again(site: Site) -> None:
    """RestartPreventExitStatus=2 3: a typo is not mended by a restart loop."""
    site.configure("raw:no_such_app")
    assert site.manager.systemctl("start", SERVICE).returncode != 0
    site.log.wait("no_such_app")
    assert site.manager.show(SERVICE, "ExecMainStatus") == "2"
    assert site.manager.show(SERVICE, "ActiveState") == "failed"
    assert site.manager.show(SERVICE, "NRestarts") == "0"


def test_a_killed_master_is_started_again(site: Site) -> None:
    site.control("start", SERVICE)
    since = site.log.mark()
    site.manager.systemctl("kill", "--signal=KILL", "--kill-whom=main", SERVICE)
    site.log.wait("serving raw:app", since)
    assert get(site.address).status == 200
    assert site.manager.show(SERVICE, "NRestarts") == "1"


def test_the_service_is_shut_in_well() -> None:
    """2.0 of 10 at most; a unit that only names a user has 9.2."""
    analyze = needs.program("systemd-analyze")
    unit = TOP / "systemd" / SERVICE
    ran = subprocess.run([analyze, "security", "--offline=yes", "--threshold=20", str(unit)], capture_output=True)
    assert ran.returncode == 0, ran.stdout.decode()


def test_the_unit_in_the_readme_serves(manager: ServiceManager) -> None:
    """Ten lines that people copy have to work as they stand."""
    text = (TOP / "README.md").read_text()
    (unit,) = re.findall(r"```ini\n(\[Unit\]\n.*?)```", text, re.DOTALL)
    assert len([line for line in unit.splitlines() if line]) <= 10 + 3, "ten lines and three headings"
    with reach.public_folder() as folder:
        shutil.copy(APPS / "raw.py", folder)
        (folder / "run").mkdir()
        (folder / "run").chmod(0o1777)
        address = f"{folder}/run/readme.sock"
        manager.write("readme.service", unit)
        manager.write(
            "readme.service.d/test.conf",
            f"[Service]\nWorkingDirectory={folder}\nExecStart=\n"
            f"ExecStart={sys.executable} -m forkserver -b unix:{address} raw:app -w 2\n{visible()}",
        )
        manager.systemctl("daemon-reload")
        ran = manager.systemctl("start", "readme.service")
        try:
            assert ran.returncode == 0, manager.run("journalctl", "-u", "readme.service").stdout
            assert get(address).status == 200
            reloaded = manager.systemctl("reload", "readme.service")
            assert reloaded.returncode == 0, reloaded.stderr
        finally:
            stopped = manager.systemctl("stop", "readme.service")
        assert stopped.returncode == 0
        assert manager.show("readme.service", "Result") == "success"
