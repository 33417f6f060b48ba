"""What the sandbox of a printed unit denies: the words of docs/systemd.md, and the lines there that lift it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.clients import get
from harness.program import APPS, own_address
from harness.service_manager import ServiceManager

pytestmark = pytest.mark.as_root
PAGE = Path(__file__).parents[2] / "docs" / "systemd.md"
NAME = "denied"
FOLDER = f"/srv/{NAME}"
ACCOUNT = "www-data"


class Denial(NamedTuple):
    """Something that an application does (Python), the error that it meets, and the line that lifts it."""

    does: str
    says: str
    line: str


DENIALS = (
    Denial(f"database('{FOLDER}/data/there.db')", "attempt to write a readonly database", "ReadWritePaths="),
    Denial(f"database('{FOLDER}/data/new.db')", "unable to open database file", "ReadWritePaths="),
    Denial(f"write('{FOLDER}/data/file')", "Read-only file system", "ReadWritePaths="),
    Denial(f"write('/var/lib/{NAME}/file')", "No such file or directory", "StateDirectory="),
    Denial("os.listdir('/home')", "Permission denied", "ProtectHome="),
    Denial("os.nice(1)", "Operation not permitted", "SystemCallFilter=@resources"),
    Denial(
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()",
        "Address family not supported by protocol",
        "AF_NETLINK",
    ),
)
LIFTED = f"""\
[Service]
ReadWritePaths={FOLDER}/data
StateDirectory={NAME}
ProtectHome=read-only
SystemCallFilter=@resources
RestrictAddressFamilies=AF_NETLINK
"""
APPLICATION = f"""
import json, os, socket, sqlite3
from raw import PLAIN

def database(path):
    with sqlite3.connect(path) as link:
        link.execute("create table if not exists visits (number integer)")
        link.execute("insert into visits values (1)")

def write(path):
    with open(path, "w") as file:
        file.write("x")

def tried(text):
    try:
        eval(text)
    except Exception as error:
        return str(error)
    return ""

def app(environ, start_response):
    start_response("200 OK", PLAIN)
    return [json.dumps([tried(each) for each in {[each.does for each in DENIALS]!r}]).encode()]
"""


@pytest.fixture
def address(manager: ServiceManager) -> Iterator[tuple[str, int]]:
    """A printed unit that is installed, with a database that its account may write but for the sandbox."""
    if Path(sys.base_prefix).is_relative_to(Path.home()):
        pytest.skip("an interpreter outside of home folders, which the printed unit would have to show to its service")
    place = manager.path(FOLDER)
    (place / "data").mkdir(parents=True)
    (place / f"{NAME}.py").write_text(APPLICATION)
    shutil.copy(APPS / "raw.py", place)
    (place / ".venv").symlink_to(sys.prefix)
    host, port = own_address()
    unit = f"/run/systemd/system/{NAME}.service"
    made = 'import sqlite3; sqlite3.connect("data/there.db").execute("create table visits (number)")'
    command = f".venv/bin/forkserver {NAME}:app -u {ACCOUNT} -b {host}:{port}"
    script = (
        f"cd {FOLDER}; .venv/bin/python -c '{made}'; chown -R {ACCOUNT} data\n"
        f"{command} --systemd-unit > {unit}; systemctl daemon-reload"
    )
    ran = manager.run("bash", "-euc", script)
    assert ran.returncode == 0, ran.stderr
    yield host, port
    manager.systemctl("stop", NAME)
    manager.run("bash", "-c", f"rm -r {FOLDER} {unit}* /var/lib/{NAME}; systemctl daemon-reload")


def errors(manager: ServiceManager, address: tuple[str, int]) -> list[str]:
    """What the application meets, denial by denial, in a service that is started anew."""
    ran = manager.systemctl("restart", NAME)
    assert ran.returncode == 0, ran.stderr + manager.run("journalctl", "-u", NAME).stdout
    found: list[str] = json.loads(get(address).text)
    return found


def test_each_denial_says_what_the_manual_says_and_is_lifted_by_its_line(
    manager: ServiceManager, address: tuple[str, int]
) -> None:
    found = errors(manager, address)
    for denial, said in zip(DENIALS, found, strict=True):
        assert denial.says in said, f"{denial.does}: {said}"
    manager.write(f"{NAME}.service.d/lifted.conf", LIFTED)
    manager.systemctl("daemon-reload")
    assert errors(manager, address) == [""] * len(DENIALS)


@pytest.mark.parametrize("denial", DENIALS, ids=lambda denial: denial.does)
def test_the_manual_has_each_of_them(denial: Denial) -> None:
    rows = [row for row in PAGE.read_text().splitlines() if re.match(r"\| .*\|$", row)]
    assert any(denial.says in row and denial.line in row for row in rows), denial.says
