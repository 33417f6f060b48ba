"""The README's way to a service, the units of systemd/ as they stand, and deploy/'s accounts: under a real systemd."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import credentials, needs
from harness.clients import get
from harness.load import Load
from harness.program import APPS, own_address
from harness.service_manager import ServiceManager
from harness.site import SHIPPED, installed, visible

pytestmark = pytest.mark.as_root
TOP = Path(__file__).parents[2]
DYNAMIC_UIDS = range(61184, 65520)  # https://systemd.io/UIDS-GIDS


def run(manager: ServiceManager, script: str) -> str:
    """A shell script beside the manager, which must succeed."""
    ran = manager.run("bash", "-euc", script)
    assert ran.returncode == 0, f"{script}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def lay_out(manager: ServiceManager, name: str) -> Path:
    """/srv/NAME as an operator has it, an application and an environment; gives the path that leads there from here."""
    place = manager.path(f"/srv/{name}")
    place.mkdir()
    text = (APPS / "raw.py").read_text()
    (place / "myapp.py").write_text(text)
    (place / ".venv").symlink_to(sys.prefix)
    return place


def seen_by(address: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(get(address, "/environ").text)  # type: ignore[arg-type]
    return found


@pytest.fixture
def followed(manager: ServiceManager) -> Iterator[tuple[ServiceManager, tuple[str, int]]]:
    """The commands of the README's section, typed; only the address is another, as the tests have many of them."""
    (commands,) = re.findall(r"### Under systemd\n(?:.*\n)*?((?: {4}.+\n)+)", (TOP / "README.md").read_text())
    assert len(commands.splitlines()) <= 10
    lay_out(manager, "myapp")
    host, port = own_address()
    run(manager, commands.replace("-w auto", f"-w 2 -b {host}:{port}"))
    yield manager, (host, port)
    run(manager, "systemctl disable --now myapp.socket myapp.service; rm -r /srv/myapp /etc/systemd/system/myapp.*")
    manager.remove_state()


def test_the_readme_leads_to_a_service_that_is_hardened_socket_activated_and_reloadable(
    followed: tuple[ServiceManager, tuple[str, int]],
) -> None:
    manager, address = followed
    assert manager.show("myapp.service", "ActiveState") == "active"
    assert seen_by(address)["uid"] in DYNAMIC_UIDS
    units = "/etc/systemd/system/myapp.service /etc/systemd/system/myapp.socket"
    assert manager.run("systemd-analyze", "verify", *units.split()).stderr == ""
    run(manager, f"systemd-analyze security --offline=yes --threshold=13 {units.split(maxsplit=1)[0]}")
    with Load(address, clients=4) as load:
        load.more(50)
        run(manager, "systemctl reload myapp")
        load.more(50)
        run(manager, "systemctl restart myapp")
        load.more(50)
    assert load.lost == []
    run(manager, "systemctl stop myapp.service")
    assert get(address).status == 200  # the socket unit starts it


def test_a_printed_unit_runs_as_the_user_that_the_command_names(manager: ServiceManager) -> None:
    """User=, and what an own log needs: the folder is writable in spite of ProtectSystem=strict."""
    for name in ("ps", "curl"):
        needs.program(name)
    place = lay_out(manager, "named")
    (place / "logs").mkdir()
    shutil.chown(place / "logs", "www-data")
    command = ".venv/bin/forkserver myapp:app -u www-data -b unix:/run/named.sock --access-log 'logs/of 100%.log'"
    run(
        manager,
        "cd /srv/named; folder=/run/systemd/system\n"
        f"{command} --systemd-unit > $folder/named.service; {command} --systemd-socket > $folder/named.socket\n"
        "systemctl daemon-reload; systemctl start named.socket named.service",
    )
    try:
        assert run(manager, "ps -o user= -p $(systemctl show --value -p MainPID named)").strip() == "www-data"
        assert "200 OK" in run(manager, "curl -sSi --unix-socket /run/named.sock http://localhost/")
    finally:
        run(manager, "systemctl stop named.socket named.service")
    assert '"GET / HTTP/1.1" 200' in (place / "logs" / "of 100%.log").read_text()
    run(manager, "rm -r /srv/named")


HOMELY = """
import os, pathlib
from raw import app as raw
def app(environ, start_response):
    if "STATE_DIRECTORY" in os.environ:  # the account has no home of its own
        (pathlib.Path.home() / "kept").write_text("by the application")
    return raw(environ, start_response)
"""


@pytest.mark.parametrize("user", ["www-data", ""])
def test_a_printed_unit_grants_what_its_own_command_needs(manager: ServiceManager, tmp_path: Path, user: str) -> None:
    """A log of its own below /var/log, a key that is root's alone, a home, and a log where all else is hidden."""
    name = f"own{user.replace('-', '')}"
    place = lay_out(manager, name)
    (place / f"{name}.py").write_text(HOMELY)
    shutil.copy(APPS / "raw.py", place)
    certificate = credentials.write(place)
    Path(certificate.key).chmod(0o600)
    host, port = own_address()
    logs = tmp_path / "logs"  # PrivateTmp= hides it
    logs.mkdir()
    shutil.chown(logs, user or "root")
    command = (
        f".venv/bin/forkserver {name}:app -b {host}:{port} --access-log /var/log/{name}/a.log "
        "--certfile localhost.pem --keyfile localhost.key"
    )
    command += f" --user {user} --error-log {logs}/e.log" if user else ""
    run(
        manager,
        f"cd /srv/{name}; {command} --systemd-unit > /run/systemd/system/{name}.service\n"
        f"systemctl daemon-reload; systemctl start {name} || {{ journalctl -u {name} >&2; false; }}",
    )
    try:
        assert get((host, port), tls=credentials.client()).status == 200
        run(manager, f"systemctl reload {name}")
        assert get((host, port), tls=credentials.client()).status == 200
    finally:
        run(manager, f"systemctl stop {name}")
    assert '"GET / HTTP/1.1" 200' in run(manager, f"cat /var/log/{name}/a.log")
    assert not user or "generation 2 serves" in (logs / "e.log").read_text()
    if not user:
        kept = run(manager, f"cat /var/lib/forkserver/{name}/kept")
        assert kept == "by the application"
    run(manager, f"rm -r /srv/{name} /run/systemd/system/{name}.service")


def test_an_instance_has_its_folder_its_settings_and_its_account(manager: ServiceManager) -> None:
    """forkserver@.service as it stands, with the accounts of deploy/: where one is there, it is used."""
    for name in ("systemd-sysusers", "systemd-tmpfiles", "curl"):
        needs.program(name)
    place = lay_out(manager, "shop")
    shutil.copy(TOP / "deploy" / "sysusers.conf", manager.path("/run/sysusers.conf"))
    shutil.copy(TOP / "deploy" / "tmpfiles.conf", manager.path("/run/tmpfiles.conf"))
    for unit in ("forkserver@.service", "forkserver@.socket"):
        shutil.copy(SHIPPED / unit, manager.path("/run/systemd/system"))
    manager.write("forkserver@shop.service.d/interpreter.conf", f"[Service]\n{visible()}")
    run(
        manager,
        "sed -i s/myapp/shop/ /run/sysusers.conf; systemd-sysusers /run/sysusers.conf\n"
        "systemd-tmpfiles --create /run/tmpfiles.conf\n"
        """echo 'app = "myapp:app"' > /etc/forkserver/shop.toml\n"""
        "systemctl daemon-reload; systemctl start forkserver@shop.socket forkserver@shop.service",
    )
    try:
        uid = int(run(manager, "id -u forkserver-shop"))
        shown = run(manager, "curl -sS --unix-socket /run/forkserver/shop.sock http://localhost/environ")
        assert json.loads(shown)["uid"] == uid
        assert uid not in DYNAMIC_UIDS
        assert run(manager, "stat -c '%A %G' /run/forkserver/shop.sock").split() == ["srw-rw----", "www-data"]
    finally:
        run(manager, "systemctl stop forkserver@shop.socket forkserver@shop.service")
    run(manager, "rm -r /srv/shop")
    assert not place.exists()


NETWORK = """
import socket
from raw import PLAIN, validator

def _try(family):
    try:
        socket.socket(family).close()
    except OSError as error:
        return type(error).__name__
    return "allowed"

@validator
def app(environ, start_response):
    start_response("200 OK", PLAIN)
    with open("/proc/self/net/route") as routes:
        _, *found = routes
    return [f"{_try(socket.AF_INET)} {_try(socket.AF_UNIX)} {len(found)} routes".encode()]
"""


def test_the_proxied_service_serves_without_network(manager: ServiceManager) -> None:
    """Whoever breaks into the application finds no way out of it."""
    with installed(manager, "forkserver-proxied@site.service") as site:
        (site.folder / "network.py").write_text(NETWORK)
        site.configure("network:app -w 2")
        site.start()
        assert get(site.address).text == "OSError allowed 0 routes"


def test_every_shipped_unit_is_clean(manager: ServiceManager) -> None:
    """`systemd-analyze verify` finds misspelt directives, which systemd itself passes over."""
    lay_out(manager, "myapp")
    shutil.copytree(SHIPPED, manager.path("/run/shipped"))
    found = run(
        manager,
        "cd /run/shipped\n"
        "for unit in *@.*; do mv $unit ${unit/@/@myapp}; done\n"
        "systemd-analyze verify *.service *.socket 2>&1; rm -r /srv/myapp /run/shipped",
    )
    assert found == ""
