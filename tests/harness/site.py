"""A shipped unit and its socket unit under a real systemd, with the lines changed that an operator changes."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import processes, reach
from harness.journal import Journal
from harness.program import APPS
from harness.service_manager import UNITS, ServiceManager

SHIPPED = Path(__file__).parents[2] / "systemd"


def visible() -> str:
    """Lines that show the interpreter under test to a unit with ProtectHome= and PrivateTmp=."""
    places = " ".join(map(str, reach.places()))
    return f"ProtectHome=tmpfs\nBindReadOnlyPaths={places}\nEnvironment=PYTHONDONTWRITEBYTECODE=1\n"


class Site:
    """``service`` is myapp.service or an instance, such as forkserver@a.service; its application is in ``folder``."""

    def __init__(self, manager: ServiceManager, service: str, folder: Path, log: Journal) -> None:
        self.manager, self.service, self.folder, self.log = manager, service, folder, log
        self.socket = service.removesuffix("service") + "socket"
        self.address = str(folder / "site.sock")
        shutil.copy(APPS / "raw.py", folder)
        for unit in (self.service, self.socket):
            template = re.sub("@.*[.]", "@.", unit)
            manager.write(template, (SHIPPED / template).read_text())
        self.configure_socket()
        self.configure("raw:app -w 2 --log-level debug")  # so that a test which fails says where it stood

    def configure(self, arguments: str, more: str = "") -> None:
        """Run ``arguments`` instead of the shipped ones from the next start on; ``more`` are lines of the drop-in."""
        program = f"{sys.executable} -m forkserver"
        self.manager.write(
            f"{self.service}.d/test.conf",
            f"[Service]\nWorkingDirectory={self.folder}\nExecStart=\nExecStart={program} {arguments}\n"
            f"ExecReload=\nExecReload={program}.cli.control reload --wait\n{visible()}{more}",
        )
        self.control("daemon-reload")

    def configure_socket(self, more: str = "") -> None:
        """Have the socket unit listen in the folder from the next start on; ``more`` are lines of its drop-in."""
        lines = f"[Socket]\nListenStream=\nListenStream={self.address}\n{more}"
        self.manager.write(f"{self.socket}.d/test.conf", lines)
        self.control("daemon-reload")

    def control(self, *arguments: str) -> None:
        """systemctl, which must succeed."""
        ran = self.manager.systemctl(*arguments)
        if ran.returncode != 0:
            shown = self.manager.systemctl("status", self.service).stdout
            pytest.fail(f"{ran.stderr}{shown}\n{self.log.text()}")

    def start(self) -> None:
        self.control("start", self.service)

    def show(self, name: str) -> str:
        return self.manager.show(self.service, name)

    def workers(self) -> int:
        below = [child for child in processes.children() if processes.title(child).startswith("forkserver: worker")]
        return len(below)

    def close(self) -> None:
        self.manager.systemctl("stop", self.socket, self.service)
        self.manager.systemctl("reset-failed", self.service)
        self.manager.remove_state()
        # The manager serves other tests too, which must not meet these units.
        for unit in (self.service, self.socket):
            self.manager.run("rm", "-r", f"{UNITS}/{re.sub('@.*[.]', '@.', unit)}", f"{UNITS}/{unit}.d")
        self.manager.systemctl("daemon-reload")


@contextmanager
def installed(manager: ServiceManager, service: str = "myapp.service") -> Iterator[Site]:
    """The site in a folder of its own, stopped at the end."""
    with reach.public_folder() as folder, manager.follow(service) as log:
        made = Site(manager, service, folder, log)
        try:
            yield made
        finally:
            made.close()
