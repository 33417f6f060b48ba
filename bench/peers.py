"""The servers that are compared, a row each: how it is started, and what it can be asked for.

A peer runs as it comes, but for what the comparison fixes (one worker, connections that are kept) or a scenario asks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from bench.machine import HOST, beside_python

# Where `python -m bench install` leaves what pip said of a peer that it could not install.
REFUSALS = Path(sys.prefix) / "not-installed"


class PeerError(Exception):
    """A peer does not do what a scenario asks for; the message goes into the table."""


class UnableError(PeerError):
    """It is not made for it: no second process, no log, no reload."""


@dataclass(frozen=True)
class Setup:
    """What a scenario asks of a server. ``None``: as it comes."""

    app: str = "hello:app"
    workers: int = 1
    threads: int | None = None
    connections: int | None = None  # that one worker is to hold
    access_log: bool = False
    tls: bool = False
    every_core: bool = False  # else the server's own
    environ: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Peer:
    name: str
    distribution: str
    command: str
    many: bool = True  # more than one process
    reloads: bool = True  # by HUP
    as_it_comes: int | None = None  # threads, where it must be told
    threads: str = ""
    connections: str = ""
    access_log: str = ""
    tls: str = ""  # what makes HTTPS of it
    last: str = ""  # what must stand behind all flags
    quiet: str = ""  # what turns an access log off that is on by default
    paths: tuple[str, ...] = field(default=())  # on sys.path before everything else

    def version(self) -> str:
        """Its version; PeerError with pip's words where it is not installed."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            said = REFUSALS / self.distribution
            why = said.read_text().strip() if said.exists() else "not installed"
            raise PeerError(why) from None

    def command_line(self, setup: Setup, port: int, log: Path) -> list[str]:
        """The words to start it with; ``log`` is for requests. UnableError, where it cannot be asked for that."""
        if setup.workers > 1 and not self.many:
            raise UnableError("one process only")
        words = [*self.command.split(), *self._threads(setup), *self._connections(setup)]
        words += self._access_log() if setup.access_log else self.quiet.split()
        if setup.tls:
            words += self._tls()
        words += self.last.split()
        values = {
            "python": sys.executable,
            "uwsgi": beside_python("uwsgi"),
            "prefix": sys.prefix,
            "host": HOST,
            "port": port,
            "app": setup.app,
            "workers": setup.workers,
            "threads": setup.threads or self.as_it_comes,
            "connections": setup.connections,
            "log": log,
            "certificate": log.with_name("certificate.pem"),
            "key": log.with_name("key.pem"),
        }
        return [word.format_map(values) for word in words]

    def _threads(self, setup: Setup) -> list[str]:
        wanted = setup.threads or self.as_it_comes
        if wanted is None or (wanted == 1 and not self.threads):
            return []
        if not self.threads:
            raise UnableError("one thread only")
        return self.threads.split()

    def _connections(self, setup: Setup) -> list[str]:
        return self.connections.split() if setup.connections else []

    def _tls(self) -> list[str]:
        if not self.tls:
            raise UnableError("speaks no TLS")
        return self.tls.split()

    def _access_log(self) -> list[str]:
        if not self.access_log:
            raise UnableError("has no access log")
        return self.access_log.split()


CERTIFICATE = "--certfile {certificate} --keyfile {key}"
GUNICORN = "{python} -m gunicorn {app} -b {host}:{port} -w {workers} --keep-alive 75"
ROWS = (
    Peer(
        "forkserver",
        "forkserver-wsgi",
        "{python} -m forkserver {app} -b {host}:{port} -w {workers}",
        threads="--threads {threads}",
        connections="--worker-connections {connections}",
        access_log="--access-log {log}",
        tls=CERTIFICATE,
    ),
    Peer(
        "forkserver-python",  # without its extension in C
        "forkserver-wsgi",
        "env FORKSERVER_ACCELERATOR=off {python} -m forkserver {app} -b {host}:{port} -w {workers}",
        threads="--threads {threads}",
        connections="--worker-connections {connections}",
        access_log="--access-log {log}",
        tls=CERTIFICATE,
    ),
    Peer(
        "forkserver-warm",
        "forkserver-wsgi",
        "{python} -m forkserver {app} -b {host}:{port} -w {workers} --warm-path /",
        access_log="--access-log {log}",
    ),
    Peer(
        "forkserver-unshared",
        "forkserver-wsgi",
        "{python} -m forkserver {app} -b {host}:{port} -w {workers} --preload off",
        access_log="--access-log {log}",
    ),
    Peer("gunicorn-sync", "gunicorn", GUNICORN, access_log="--access-logfile {log}", tls=CERTIFICATE),
    Peer(
        "gunicorn-gthread",
        "gunicorn",
        GUNICORN + " -k gthread",
        as_it_comes=4,
        threads="--threads {threads}",
        connections="--worker-connections {connections}",
        access_log="--access-logfile {log}",
        tls=CERTIFICATE,
    ),
    Peer("gunicorn-preload", "gunicorn", GUNICORN + " --preload", access_log="--access-logfile {log}"),
    Peer(
        "uwsgi",
        "uwsgi",
        "{uwsgi} --http11-socket {host}:{port} --module {app} --master -p {workers} --need-app --die-on-term"
        " -H {prefix} --listen 1024",
        threads="--threads {threads}",
        access_log="--logto {log}",
        quiet="--disable-logging",
    ),
    Peer(
        "granian",
        "granian",
        "{python} -m granian --interface wsgi --no-ws --host {host} --port {port} --workers {workers} {app}",
        threads="--blocking-threads {threads}",
        connections="--backlog {connections} --backpressure {connections}",
        access_log="--access-log",
        tls="--ssl-certificate {certificate} --ssl-keyfile {key}",
    ),
    Peer(
        "waitress",
        "waitress",
        "{python} -m waitress --listen {host}:{port}",
        last="{app}",
        many=False,
        reloads=False,
        threads="--threads {threads}",
        connections="--connection-limit {connections} --asyncore-use-poll",
    ),
    Peer(
        "cheroot",
        "cheroot",
        "{python} -m cheroot {app} --bind {host}:{port} --timeout 75",
        many=False,
        reloads=False,
        threads="--threads {threads}",
    ),
    # The same, by hand: its command line has no TLS.
    Peer(
        "cheroot-tls",
        "cheroot",
        "{python} -m launch cheroot {app} {host} {port} {workers}",
        many=False,
        reloads=False,
        tls="{certificate} {key}",
    ),
    Peer("bjoern", "bjoern", "{python} -m launch bjoern {app} {host} {port} {workers}", reloads=False),
    Peer("fastpysgi", "fastpysgi", "{python} -m launch fastpysgi {app} {host} {port} {workers}", reloads=False),
)
PEERS: Mapping[str, Peer] = {peer.name: peer for peer in ROWS}
OWN = "forkserver"
_VARIANTS = ("forkserver-warm", "forkserver-unshared", "gunicorn-preload", "cheroot-tls")
USUAL = tuple(name for name in PEERS if name not in _VARIANTS)


def chosen(words: Iterable[str], names: Iterable[str]) -> list[str]:
    """Of ``names``, our own and those that ``words`` name, by themselves or by distribution; without words, all."""
    wanted = {word.lower() for word in words}
    known = {name for peer in ROWS for name in (peer.name, peer.distribution)}
    if unknown := wanted - known:
        raise ValueError(f"no peer is called {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    return [name for name in names if not wanted or name.startswith(OWN) or {name, PEERS[name].distribution} & wanted]
