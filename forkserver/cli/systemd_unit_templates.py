"""The text of systemd units: a sandboxed service, and its socket unit.

The units of the folder systemd/ and those that ``--systemd-unit`` prints are made of one text: they differ in names,
places and figures alone. systemd_unit.py finds these for a machine.

Source: systemd.service(5), systemd.exec(5), systemd.socket(5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MARGIN_SECONDS: Final = 15  # between our own limit and systemd's, so that ours is the one that is met
DESCRIPTORS: Final = 65536

_SERVICE: Final = """\
{heading}

[Unit]
Description={description}
# The address; %p is the name of this unit. Without that socket unit forkserver binds its own, and a restart refuses
# the clients that come meanwhile, unless FileDescriptorStoreMax= keeps it (docs/systemd.md).
Wants={socket}
After=network.target {socket}
# An application that does not load yet (its database is away at boot) is tried again until it does: no limit.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
{identity}
WorkingDirectory={directory}
# By the path above, also where a link on it (such as `current`) leads to another release later: a reload follows it.
Environment={pwd}
ExecStart={command}
# Waits until the new code serves. What does not load is refused: the reload fails, its reason is in the journal and in
# `systemctl status`, and the old code serves on.
ExecReload={reload}
{environment}# The control socket of forkserverctl lies here.
RuntimeDirectory={runtime}
RuntimeDirectoryMode=0700

# Only the master gets the TERM; it drains the workers. systemd's own TERM to each of them would defeat that.
KillMode=mixed
# More than {stop_of}, or systemd ends what forkserver would still finish.
TimeoutStopSec={stop}
# More than twice --boot-timeout: for the import, then for the workers.
TimeoutStartSec={start}
# A master that hangs, or a service none of whose workers is well, is killed and started again.
WatchdogSec=30
Restart=on-failure
RestartSec=1
# A pause that grows, for systemd 254 and newer (older ones ignore the lines, with a warning):
#RestartSteps=5
#RestartMaxDelaySec=30
# 2 is a mistake in the settings or the command, which no retry corrects. 3, an application that does not load, is tried
# again; `systemctl start` fails at the first such exit all the same. `systemctl stop` ends the retries.
RestartPreventExitStatus=2
# A stop while a reload is under way ends forkserverctl so; without this line the unit would be `failed` after it.
SuccessExitStatus=SIGTERM
# A worker that the kernel ends for memory is replaced; the service goes on.
OOMPolicy=continue
LimitNOFILE={files}
# Bounds for the whole service, where other services share the machine:
#MemoryMax=2G
#CPUQuota=200%

{fence}
[Install]
WantedBy=multi-user.target
"""

_FENCE: Final = """\
# Sandboxed. Where an application needs a line lifted, put the one named here into `systemctl edit {name}`.

# The file system is read-only, except what is named so: StateDirectory=NAME gives /var/lib/NAME (in $STATE_DIRECTORY),
# LogsDirectory=NAME /var/log/NAME, ReadWritePaths=PATH another place. /tmp and /var/tmp are the service's own.
ProtectSystem=strict
PrivateTmp=yes
{writable}{home}UMask=0077

# No right that root has, none to be gained. Ports below 1024 come from the socket unit.
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
RestrictSUIDSGID=yes
PrivateUsers=yes
RemoveIPC=yes
KeyringMode=private

# Devices, such as a graphics card: PrivateDevices=no, and DeviceAllow=/dev/nvidia0 rw.
PrivateDevices=yes
DevicePolicy=closed

# Other processes are not seen. /proc/stat and /proc/meminfo still are, for monitoring; an application that reads
# nothing but its own process may add ProcSubset=pid.
ProtectProc=invisible

# The kernel, its clock and its control groups are not the application's to change.
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateMounts=yes
RestrictRealtime=yes
LockPersonality=yes
# Sandboxes of the application's own, such as a headless browser's: RestrictNamespaces=no.
RestrictNamespaces=yes

{network}
# Native extensions that make machine code while they run (numba, PyTorch, V8, callbacks of cffi):
# MemoryDenyWriteExecute=no. Others, compiled beforehand (numpy, lxml, cryptography), do not mind.
MemoryDenyWriteExecute=yes
# What a service needs, without what only root may. Native extensions that choose their processors or priorities
# (OpenMP with OMP_PROC_BIND, os.nice): SystemCallFilter=@resources. Refused calls get EPERM; the application lives on.
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
"""

_NETWORK: Final = """\
# Outbound network is open, for databases and the APIs of others. Where they are all on this machine, and so is who
# connects, add IPAddressDeny=any and IPAddressAllow=localhost. AF_UNIX is how systemd hears that the workers are ready.
# Programs that ask the kernel for its interfaces (getifaddrs): RestrictAddressFamilies=AF_NETLINK.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
"""

_NO_NETWORK: Final = """\
# No network, not even loopback: the socket unit's Unix socket is the only way in, and Unix sockets the only way out
# (PostgreSQL, MySQL, Redis and memcached have them). With network, take forkserver@.service.
PrivateNetwork=yes
IPAddressDeny=any
RestrictAddressFamilies=AF_UNIX
"""

HOME: Final = (
    "# An application that lives in a home: ProtectHome=tmpfs and BindReadOnlyPaths=/home/NAME/APP.\nProtectHome=yes\n"
)

CREDENTIALS: Final = (
    "# systemd reads these as root and hands them over as they are at the start: `systemctl restart` after a renewal",
    "# (with the socket unit it refuses no client). A reload reads the same ones again.",
)

_SOCKET: Final = """\
{heading}

[Unit]
Description={description}

[Socket]
{listen}Backlog={backlog}
# Clients that wait start the service again as soon as it has ended. Retries of systemd are at least RestartSec=1 apart
# and stay within this limit; the starts that follow a mistake in the settings (exit status 2) do not, and end it.
TriggerLimitIntervalSec=20
TriggerLimitBurst=20

[Install]
WantedBy=sockets.target
"""


@dataclass(frozen=True)
class Unit:
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
        fence = _FENCE.format(
            name=self.name,
            writable=_lines(self.writable),
            home=self.home,
            network=_NETWORK if self.network else _NO_NETWORK,
        )
        return _SERVICE.format(
            heading=self.heading,
            description=self.description,
            socket="%p@%i.socket" if "@" in self.name else "%p.socket",
            identity=_lines(self.identity).rstrip("\n"),
            directory=self.directory,
            pwd=self.pwd,
            command=self.command,
            reload=self.reload,
            environment=_lines(self.environment),
            runtime=self.runtime,
            stop=self.stop,
            stop_of=self.stop_of,
            start=self.start,
            files=self.files,
            fence=fence,
        )

    @property
    def socket(self) -> str:
        """The text of the socket unit."""
        return _SOCKET.format(
            heading=self.socket_heading,
            description=f"Address of {self.description}",
            listen=_lines(self.listen),
            backlog=self.backlog,
        )


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
