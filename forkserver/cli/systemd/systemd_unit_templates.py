"""The text of systemd units: a sandboxed service, and its socket unit.

The units of the folder systemd/ and those that ``--systemd-unit`` prints are made of the files in templates/: they
differ in names, places and figures alone. systemd_unit.py finds these for a machine.

Source: systemd.service(5), systemd.exec(5), systemd.socket(5).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import Final

from forkserver.linux.common.records import Record

MARGIN_SECONDS: Final = 15  # between our own limit and systemd's, so that ours is the one that is met
DESCRIPTORS: Final = 65536

HOME: Final = (
    "# An application that lives in a home: ProtectHome=tmpfs and BindReadOnlyPaths=/home/NAME/APP.\nProtectHome=yes\n"
)

CREDENTIALS: Final = (
    "# systemd reads these as root and hands them over as they are at the start: `systemctl restart` after a renewal",
    "# (with the socket unit it refuses no client). A reload reads the same ones again.",
)


class Unit(Record, frozen=True):
    """What differs from one service to the next, as it is written in the units.

    ``command`` and ``reload`` are written as systemd reads them, ``directory`` too, and ``pwd``, which says it to the
    program; the tuples hold whole lines without their ends. ``stop_of`` says in words what the ``stop`` seconds are
    made of.
    """

    name: str
    heading: str
    socket_heading: str
    description: str
    directory: str
    pwd: str
    command: str
    reload: str
    identity: tuple[str, ...]
    listen: tuple[str, ...]
    runtime: str
    environment: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    home: str = HOME
    network: bool = True
    backlog: int = 2048
    files: int = DESCRIPTORS
    stop: int = 30 + MARGIN_SECONDS
    start: int = 2 * 60 + MARGIN_SECONDS
    stop_of: str = "--drain-delay and --graceful-timeout (30 s) together"

    @property
    def service(self) -> str:
        """The text of the service unit."""
        return _filled(
            "service",
            self,
            socket="%p@%i.socket" if "@" in self.name else "%p.socket",
            identity=_lines(self.identity).rstrip("\n"),
            environment=_lines(self.environment),
            writable=_lines(self.writable),
            network=_template("network" if self.network else "no_network"),
        )

    @property
    def socket(self) -> str:
        """The text of the socket unit."""
        return _filled(
            "socket",
            self,
            heading=self.socket_heading,
            description=f"Address of {self.description}",
            listen=_lines(self.listen),
        )


def _filled(name: str, unit: Unit, **lines: str) -> str:
    """The template ``name`` with the fields of ``unit``, and with ``lines`` in place of some of them."""
    return _template(name).format_map({**vars(unit), **lines})


def _template(name: str) -> str:
    return resources.files(__package__).joinpath("templates", f"{name}.template").read_text(encoding="utf-8")


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def home_of(own: str) -> tuple[str, ...]:
    """The line that has a folder of the service's own be its home, for what libraries keep there."""
    return (
        "# The account has no home that it could write to; this is also $STATE_DIRECTORY.",
        f"Environment=HOME=%S/{own}",
    )


def dynamic(account: str) -> tuple[str, ...]:
    """The lines that make the service run as ``account``, which need not exist."""
    return (
        "# systemd makes this account with the start; where it is there already (systemd-sysusers), it is used.",
        "DynamicUser=yes",
        f"User={account}",
    )


def socket_group(group: str | None, mode: int) -> tuple[str, ...]:
    """The lines of a socket unit that let the members of ``group`` connect to a Unix socket."""
    return (
        "# Beside root the members of this group may connect: the web server's (Debian: www-data, Red Hat: nginx).",
        f"SocketGroup={group}" if group else "#SocketGroup=www-data",
        f"SocketMode={mode:04o}",
    )


# The units of the folder systemd/


def shipped() -> dict[str, str]:
    """The text of each unit in the folder systemd/, by its file's name."""
    venv = "/srv/{}/.venv/bin/"
    plain = Unit(
        name="myapp",
        heading="# An application of your own, in /srv/myapp with its environment in .venv, and its socket unit\n"
        "# beside it. `forkserver myapp:app -w auto --systemd-unit` prints the same for another place and command.",
        socket_heading="# The address of myapp.service. systemd may bind ports below 1024; the service need not.",
        description="myapp:app under forkserver",
        directory="/srv/myapp",
        pwd="PWD=/srv/myapp",
        command=f"{venv.format('myapp')}forkserver myapp:app --workers auto",
        reload=f"{venv.format('myapp')}forkserverctl reload --wait",
        identity=dynamic("forkserver-myapp"),
        listen=("ListenStream=127.0.0.1:8000",),
        runtime="forkserver/myapp",
        environment=home_of("forkserver/myapp"),
        writable=("StateDirectory=forkserver/myapp", "StateDirectoryMode=0750"),
    )
    template = _instance("forkserver", network=True)
    proxied = _instance("forkserver-proxied", network=False)
    return {
        "myapp.service": plain.service,
        "myapp.socket": plain.socket,
        "forkserver@.service": template.service,
        "forkserver@.socket": template.socket,
        "forkserver-proxied@.service": proxied.service,
        "forkserver-proxied@.socket": proxied.socket,
    }


def _instance(name: str, network: bool) -> Unit:
    """A template: one unit for any number of applications, each with a folder and a file of settings of its own."""
    more = "" if network else " It has no network: a proxy on this machine reaches it by its Unix socket."
    return Unit(
        name=f"{name}@%i",
        heading="# Applications under forkserver, each an instance: the application is in /srv/%i, its environment in\n"
        f'# /srv/%i/.venv, its settings (app = "myapp:app" among them) in /etc/forkserver/%i.toml.{more}\n'
        f"#   systemctl enable --now {name}@myapp.socket {name}@myapp.service",
        socket_heading="# The address of an instance, for a proxy here: see deploy/nginx.conf and deploy/haproxy.cfg.",
        description="%i under forkserver",
        directory="/srv/%i",
        pwd="PWD=/srv/%i",
        command="/srv/%i/.venv/bin/forkserver --config /etc/forkserver/%i.toml",
        reload="/srv/%i/.venv/bin/forkserverctl reload --wait",
        identity=dynamic("forkserver-%i"),
        listen=("ListenStream=/run/forkserver/%i.sock", *socket_group("www-data", 0o660)),
        runtime="forkserver/%i",
        environment=home_of("forkserver/%i"),
        writable=("StateDirectory=forkserver/%i", "StateDirectoryMode=0750"),
        network=network,
    )
