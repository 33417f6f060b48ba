"""The settings table, one row per setting, and the settings that a start or a reload goes by.

It promises that flags, variables, file keys, help and reference agree, because all of them grow from TABLE, and that
Settings holds checked, plain values only. It refuses to know how a source is read (sources.py) or a value (kinds.py).
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from forkserver.config import sources, validation, value_types
from forkserver.config.sources import Parsed, Setting
from forkserver.config.value_types import GIB, KIB, MIB
from forkserver.errors import ConfigError, combined

FILE: Final = "forkserver.toml"  # read where it stands in the current directory and no other is named

APP: Final = "Application"
LISTEN: Final = "Addresses"
PROCESSES: Final = "Processes"
TIMES: Final = "Time limits"
LIMITS: Final = "Size limits"
TLS: Final = "TLS"
PROXIES: Final = "Proxies"
RIGHTS: Final = "Rights"
LOGS: Final = "Logs"
API: Final = "Classes"

FORWARDED_FIELDS: Final = (
    "forwarded", "x-forwarded-for", "x-forwarded-for=whole", "x-forwarded-proto", "x-forwarded-host",
    "x-forwarded-port", "script_name",
)  # fmt: skip

# fmt: off
TABLE: Final[tuple[Setting, ...]] = (
    Setting("app", value_types.text, None,
            "The WSGI application: mod:app, mod:obj.attr, mod:factory(), or mod (then application or app).",
            APP, metavar="MODULE:APP", positional=True),
    Setting("config", value_types.path, None,
            f"A TOML file of settings; without it, {FILE} of the current directory where there is one (which root "
            "reads only where no other user may write it or its folder).",
            APP, short="-c", metavar="FILE", in_file=False, applies="restart"),
    Setting("chdir", value_types.path, None,
            "Directory of the application, entered by its path again at each reload, so that a switched link counts.",
            APP, metavar="DIR"),
    Setting("pythonpath", value_types.paths, [],
            "Directories (relative to the application's) put on sys.path before it; commas or repetition give several.",
            APP, metavar="DIRS", repeatable=True),
    Setting("env", value_types.variables, [],
            "A variable for the application's environment; may be repeated.",
            APP, short="-e", metavar="KEY=VALUE", repeatable=True),
    Setting("preload", value_types.choice("auto", "on", "off"), "auto",
            "Import once for all workers: on, off, or auto (off where the import left anything that processes cannot "
            "share, such as a thread, a connection or an open file).",
            APP, metavar="WHEN", bare="on"),
    Setting("hooks", value_types.module, None,
            "Module with any of post_fork(worker), worker_ready(worker), worker_exit(worker), called in each worker.",
            APP, metavar="MODULE"),
    Setting("ready_path", value_types.target, None,
            "Path that a new worker must first answer to itself with a status of 2xx or 3xx, such as /healthz.",
            APP, metavar="PATH"),
    Setting("warm_path", value_types.target, None,
            "Path that the application is asked for once before workers are forked, such as /: what its first request "
            "loads is shared then, and keeps no client waiting.",
            APP, metavar="PATH"),

    Setting("bind", value_types.addresses, ["127.0.0.1:8000"],
            "HOST:PORT, [V6]:PORT, :PORT (every interface, IPv6 and IPv4), PORT (this machine), unix:PATH, unix:@NAME "
            "(abstract) or fd://N; may be repeated.",
            LISTEN, short="-b", metavar="ADDRESS", repeatable=True),
    Setting("backlog", value_types.count(1, 2**31 - 1), 2048,
            "Connections that may wait to be accepted (net.core.somaxconn caps it); reloads apply it to new addresses.",
            LISTEN, metavar="COUNT", applies="restart"),
    Setting("socket_mode", value_types.mode, 0o660,
            "Permissions of a Unix socket that forkserver makes; reloads apply it to new addresses.",
            LISTEN, metavar="OCTAL", applies="restart"),
    Setting("socket_group", value_types.group, None,
            "Group of a Unix socket that forkserver makes, such as the web server's (an ordinary user must be in it); "
            "without it, the workers' group. Reloads apply it to new addresses.",
            LISTEN, metavar="GROUP", applies="restart"),

    Setting("workers", value_types.workers, 1,
            "Worker processes; auto is as many as processors may be used (affinity and cgroup quota).",
            PROCESSES, short="-w", metavar="COUNT"),
    Setting("max_workers", value_types.count(0, 4096), 0,
            "Most workers that TTIN and forkserverctl scale may ask for; 0 for twice the workers and 16 more.",
            PROCESSES, metavar="COUNT"),
    Setting("threads", value_types.count(1, 1024), 1,
            "Threads in each worker that run the application.",
            PROCESSES, metavar="COUNT"),
    Setting("worker_class", value_types.worker_class, "sync",
            "For gunicorn's command lines: sync and gthread are accepted and mean the one kind of worker there is.",
            PROCESSES, short="-k", metavar="NAME"),
    Setting("worker_connections", value_types.count(1, 1_000_000), 1000,
            "Connections one worker holds at once, idle ones included.",
            PROCESSES, metavar="COUNT"),
    Setting("nofile", value_types.open_files, value_types.NOFILE_AUTO,
            "Open files a worker may have: a number or auto (what worker_connections needs) raises its soft limit, at "
            "most to the hard one; keep leaves it, and that of the master, which else has what its workers need. "
            "Programs that the application starts inherit the worker's.",
            PROCESSES, metavar="COUNT"),
    Setting("max_requests", value_types.count(0, 2**31 - 1), 0,
            "Requests a worker answers before it is replaced; 0 for no limit.",
            PROCESSES, metavar="COUNT"),
    Setting("max_requests_jitter", value_types.count(0, 2**31 - 1), 0,
            "Requests at most, drawn for each worker, that are added to max_requests, to spread the replacements.",
            PROCESSES, metavar="COUNT"),
    Setting("max_worker_lifetime", value_types.seconds_or_off, 0.0,
            "Seconds a worker serves before it is replaced; 0 for no limit.",
            PROCESSES, metavar="SECONDS"),
    Setting("max_worker_memory", value_types.size_or_off(MIB, 2**62), 0,
            "Bytes a worker's resident set (the figure ps and top show, looked at once a second: cheap, and readable "
            "for every user) may have before it is replaced; 0 for no limit.",
            PROCESSES, metavar="BYTES"),
    Setting("pidfile", value_types.path, None,
            "File that holds the master's process id while it runs.",
            PROCESSES, short="-p", metavar="FILE", aliases=("--pid",)),
    Setting("control_socket", value_types.auto_or_path, "auto",
            "Unix socket that forkserverctl asks: a path, off, or auto (control.sock in systemd's runtime directory; "
            "without one, in a folder of the user's own, where forkserverctl finds it).",
            PROCESSES, metavar="PATH"),

    Setting("timeout", value_types.seconds_or_never, 30.0,
            "Seconds one call of the application may last before its worker is replaced; 0 for no limit.",
            TIMES, short="-t", metavar="SECONDS"),
    Setting("graceful_timeout", value_types.seconds, 30.0,
            "Seconds a retiring worker may take to finish what it holds.",
            TIMES, metavar="SECONDS"),
    Setting("drain_delay", value_types.seconds_or_off, 0.0,
            "Seconds a graceful stop first serves on, with Connection: close, so load balancers notice; 0 for none.",
            TIMES, metavar="SECONDS"),
    Setting("boot_timeout", value_types.seconds, 60.0,
            "Seconds the application's import, and then a worker's start, may last.",
            TIMES, metavar="SECONDS"),
    Setting("keep_alive", value_types.seconds, 75.0,
            "Seconds an idle connection is kept; keep it above the idle timer of a load balancer in front.",
            TIMES, metavar="SECONDS"),
    Setting("header_timeout", value_types.seconds, 15.0,
            "Seconds a client may take to send a request head.",
            TIMES, metavar="SECONDS"),
    Setting("body_timeout", value_types.seconds, 30.0,
            "Seconds a request body may arrive without progress.",
            TIMES, metavar="SECONDS"),
    Setting("body_min_rate", value_types.size_or_off(1, 2**31), 240,
            "Bytes a second, on the wire and on average after the first body_timeout seconds, at which a request body "
            "must come, else 408; 0 for no limit. The default passes a phone on a 2G network with heavy losses, which "
            "sends some 1,000 (a fast one 10,000), and is what IIS and Kestrel take. Apache takes 500.",
            TIMES, metavar="BYTES"),
    Setting("write_timeout", value_types.seconds, 60.0,
            "Seconds without progress before a response is abandoned; less than 256 bytes a second is no progress.",
            TIMES, metavar="SECONDS"),
    Setting("queue_timeout", value_types.seconds_or_off, 0.0,
            "Seconds a request may wait in a worker for the application before it is answered 503; 0 for no limit.",
            TIMES, metavar="SECONDS"),

    Setting("limit_request_line", value_types.size(32, MIB), 8190,
            "Bytes a request line may have.",
            LIMITS, metavar="BYTES"),
    Setting("limit_request_fields", value_types.count(1, 32768), 100,
            "Header fields a request may have.",
            LIMITS, metavar="COUNT"),
    Setting("limit_request_field_size", value_types.size(32, MIB), 8190,
            "Bytes one header field may have.",
            LIMITS, metavar="BYTES"),
    Setting("limit_request_head", value_types.size(64, 16 * MIB), 64 * KIB,
            "Bytes a request head may have, request line and header fields together.",
            LIMITS, metavar="BYTES"),
    Setting("header_map", value_types.choice("drop", "refuse"), "drop",
            "A header field with _ in its name, which would pass for one with -: drop the field or refuse the request.",
            LIMITS, metavar="WHAT"),
    Setting("max_body", value_types.size(1, 2**62), 100 * MIB,
            "Bytes a request body may have.",
            LIMITS, metavar="BYTES"),
    Setting("body_memory", value_types.size(0, 2**62), 64 * MIB,
            "Bytes of request bodies over 64 KiB that one worker may have in memory, the kernel's included; one body "
            "may have a quarter of it. What is more goes to the spool directory.",
            LIMITS, metavar="BYTES"),
    Setting("spool_dir", value_types.path, "/var/tmp",
            "Directory for bodies and responses too long for memory; a disk, not a tmpfs.",
            LIMITS, metavar="DIR"),
    Setting("max_spool", value_types.size(1, 2**62), GIB,
            "Bytes that all workers together may have in the spool directory. Half of it is divided among them, half "
            "is for any; one response may have an eighth. While a reload changes workers or threads, those of before "
            "and the new ones have as much each.",
            LIMITS, metavar="BYTES"),
    Setting("spool_keep_free", value_types.free_space, value_types.AUTO_FREE,
            "Bytes that must stay free on the file system of the spool directory: below, nothing more is spooled; auto "
            "is a twentieth of it, at most 1 GiB; 0 for no such limit.",
            LIMITS, metavar="BYTES"),

    Setting("certfile", value_types.paths, [],
            "PEM file with a certificate and those of its issuers; with it TCP addresses speak HTTPS. Of several the "
            "one for the name that a client asks for is taken, or the first.",
            TLS, metavar="FILES", repeatable=True),
    Setting("keyfile", value_types.paths, [],
            "PEM file with the private key of each certfile, in the same order; without it, the certfile has it.",
            TLS, metavar="FILES", repeatable=True),
    Setting("ca_certs", value_types.path, None,
            "PEM file with the authorities that certificates of clients must come from.",
            TLS, metavar="FILE"),
    Setting("cert_reqs", value_types.client_certificates, "none",
            "Whether clients show a certificate: none, optional or required (gunicorn's 0, 1, 2).",
            TLS, metavar="WHEN"),
    Setting("ciphers", value_types.text, None,
            "Cipher suites of TLS 1.2, as OpenSSL writes them; without it, those with forward secrecy and AEAD.",
            TLS, metavar="LIST"),
    Setting("self_signed", value_types.choice("off", "on"), "off",
            "For development: speak HTTPS with a certificate for localhost, made at the start by the program openssl.",
            TLS, metavar="WHEN", bare="on", applies="restart"),

    Setting("forwarded_allow_ips", value_types.peers, ["127.0.0.1", "::1", "unix"],
            "Proxies that are believed: addresses, networks, unix (clients of Unix sockets), or * for every sender. "
            "forwarded_fields of others are dropped, and the log names each such sender once.",
            PROXIES, metavar="PEERS", repeatable=True),
    Setting("forwarded_fields", value_types.field_names(*FORWARDED_FIELDS), ["x-forwarded-for", "x-forwarded-proto"],
            "What those proxies set, themselves and always: of forwarded, or x-forwarded-for, -proto, -host and -port; "
            "and script_name. x-forwarded-for=whole keeps the whole list. What is not named is dropped.",
            PROXIES, metavar="FIELDS", repeatable=True),
    Setting("proxy_protocol", value_types.choice("off", "on", "v1", "v2"), "off",
            "Connections begin with a header of the PROXY protocol: off, on (either version), v1 or v2.",
            PROXIES, metavar="WHEN", bare="on"),
    Setting("proxy_allow_ips", value_types.peers, ["127.0.0.1", "::1", "unix"],
            "Who may connect where proxy_protocol is on; others are turned away.",
            PROXIES, metavar="PEERS", repeatable=True),
    Setting("root_path", value_types.root_path, None,
            "Path below which clients see the application (SCRIPT_NAME), whether or not the proxy cuts it off.",
            PROXIES, metavar="PATH"),

    Setting("user", value_types.user, None,
            "User that workers become; only a master started by root may change it.",
            RIGHTS, short="-u", metavar="USER"),
    Setting("group", value_types.group, None,
            "Group that workers become; without it, the user's own.",
            RIGHTS, short="-g", metavar="GROUP"),
    Setting("umask", value_types.mode, None,
            "Permissions that files made by the application do not get; without it, umask stays as it was inherited.",
            RIGHTS, short="-m", metavar="OCTAL"),

    Setting("no_new_privs", value_types.choice("off", "on"), "off",
            "Programs that the application starts gain no rights by setuid and setgid bits or file capabilities "
            "(PR_SET_NO_NEW_PRIVS). sudo, and mail programs that are setgid (postdrop, sendmail), need it off.",
            RIGHTS, metavar="WHEN", bare="on"),

    Setting("access_log", value_types.path, None,
            "File for one line per request in combined format; - is standard output; without it, no access log.",
            LOGS, metavar="FILE", aliases=("--access-logfile",)),
    Setting("error_log", value_types.path, "-",
            "File for forkserver's own events; - is standard error.",
            LOGS, metavar="FILE", aliases=("--error-logfile", "--log-file")),
    Setting("log_level", value_types.choice("debug", "info", "warning", "error", "critical"), "info",
            "Events below this level are left out of the error log.",
            LOGS, metavar="LEVEL"),

    Setting("server_class", value_types.class_name, "forkserver:WSGIServer",
            "Subclass of WSGIServer that workers construct.",
            API, metavar="MODULE:CLASS"),
    Setting("handler_class", value_types.class_name, "forkserver:WSGIRequestHandler",
            "Request handler class that the server is given.",
            API, metavar="MODULE:CLASS"),
    Setting("server_header", value_types.field_value, "forkserver",
            "Value of the Server field where the application sets none; empty for no such field.",
            API, metavar="TEXT"),
)
# fmt: on

_ROWS: Final = {setting.name: setting for setting in TABLE}


class Settings:
    """Checked values by name, read-only, plain data; ``sources`` says of each where it was written.

    Times are seconds (what is switched off is 0, a timeout without a limit infinite), sizes bytes, modes integers.
    ``config_path`` is the file that was read. The annotations are for type checkers and readers; TABLE makes the
    attributes.
    """

    app: str | None
    config: str | None
    chdir: str | None
    pythonpath: list[str]
    env: list[str]
    preload: str
    hooks: str | None
    ready_path: str | None
    warm_path: str | None
    bind: list[str]
    backlog: int
    socket_mode: int
    socket_group: str | None
    workers: int
    max_workers: int
    threads: int
    worker_class: str
    worker_connections: int
    nofile: int
    max_requests: int
    max_requests_jitter: int
    max_worker_lifetime: float
    max_worker_memory: int
    pidfile: str | None
    control_socket: str
    timeout: float
    graceful_timeout: float
    drain_delay: float
    boot_timeout: float
    keep_alive: float
    header_timeout: float
    body_timeout: float
    body_min_rate: int
    write_timeout: float
    queue_timeout: float
    limit_request_line: int
    limit_request_fields: int
    limit_request_field_size: int
    limit_request_head: int
    header_map: str
    max_body: int
    body_memory: int
    spool_dir: str
    max_spool: int
    spool_keep_free: int
    certfile: list[str]
    keyfile: list[str]
    ca_certs: str | None
    cert_reqs: str
    ciphers: str | None
    self_signed: str
    forwarded_allow_ips: list[str]
    forwarded_fields: list[str]
    proxy_protocol: str
    proxy_allow_ips: list[str]
    root_path: str | None
    user: str | None
    group: str | None
    umask: int | None
    no_new_privs: str
    access_log: str | None
    error_log: str
    log_level: str
    server_class: str
    handler_class: str
    server_header: str
    config_path: str | None
    sources: dict[str, str]

    def __init__(self, values: Mapping[str, Any], sources: Mapping[str, str], config_path: str | None = None) -> None:
        self.__dict__.update(values, sources=dict(sources), config_path=config_path)

    @property
    def most_workers(self) -> int:
        """How many workers there may be at most, however they are asked for."""
        return self.max_workers or 2 * self.workers + 16

    @property
    def encrypted(self) -> bool:
        """Whether TCP addresses speak TLS."""
        return bool(self.certfile) or self.self_signed == "on"

    @property
    def service_uid(self) -> int:
        """The number of ``user``; -1 where workers keep ours, or where the account has been removed since."""
        if self.user is None:
            return -1
        try:
            return int(self.user) if self.user.isdigit() else pwd.getpwnam(self.user).pw_uid
        except KeyError:
            return -1

    def with_values_of(self, other: Settings, names: Iterable[str]) -> Settings:
        """These settings, but those called ``names`` as ``other`` has them."""
        taken = set(names)
        values = {name: getattr(other if name in taken else self, name) for name in self.sources}
        sources = {name: (other if name in taken else self).sources[name] for name in self.sources}
        return Settings(values, sources, self.config_path)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name} cannot be set: settings are read-only; load them again")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # lists are among the values

    def __repr__(self) -> str:
        given = [name for name, source in self.sources.items() if source != "default"]
        written = [f"{name}={'...' if _ROWS[name].kind.secret else repr(getattr(self, name))}" for name in given]
        return f"Settings({', '.join(written)})"


def defaults(**changes: Any) -> Settings:
    """The defaults, with ``changes`` taken as they are. Raises TypeError for a name that is no setting."""
    if unknown := set(changes) - set(_ROWS):
        raise TypeError(f"no such setting: {', '.join(sorted(unknown))}")
    values = {setting.name: _default(setting) for setting in TABLE} | changes
    return Settings(values, {name: "given" if name in changes else "default" for name in values})


class SettingsSnapshot(NamedTuple):
    """Settings as numbers, texts and lists of them, for the next program to read."""

    values: dict[str, Any]
    sources: dict[str, str]
    config_path: str | None


def snapshot(settings: Settings) -> SettingsSnapshot:
    """What the next program is told of ``settings``."""
    values = {setting.name: getattr(settings, setting.name) for setting in TABLE}
    return SettingsSnapshot(values, settings.sources, settings.config_path)


def from_snapshot(snapshot: SettingsSnapshot) -> Settings:
    """The settings of another version: what that did not know is at its default, what we do not know is gone."""
    values = {setting.name: snapshot.values.get(setting.name, _default(setting)) for setting in TABLE}
    return Settings(values, {name: snapshot.sources.get(name, "default") for name in values}, snapshot.config_path)


def action(argv: Sequence[str]) -> str | None:
    """What ``argv`` asks for instead of serving, one of sources.ACTIONS, or None. Raises ConfigError."""
    actions = sources.command_line(TABLE, argv).actions
    return next((name for name in sources.ACTIONS.values() if name in actions), None)


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings that ``argv`` (without the program's name), ``environ`` and the file give. Raises ConfigError.

    A flag wins over a FORKSERVER_* variable, that over GUNICORN_CMD_ARGS, the file, the variables of platforms (PORT,
    WEB_CONCURRENCY, FORWARDED_ALLOW_IPS), and the default. The file is read anew each time.
    """
    line = sources.command_line(TABLE, argv)
    ranks = [_with_app(line), sources.variables(TABLE, environ), sources.gunicorn(TABLE, environ)]
    named = _named_config(ranks)
    if named is not None:
        ranks.append(sources.toml_file(TABLE, named))
    elif (found := sources.unnamed_file(TABLE, FILE)) is not None:
        named = FILE
        ranks.append(found)
    ranks.append(sources.platform(environ))
    given = {name: value for rank in reversed(ranks) for name, value in rank.items()}
    values = _values(given)
    written = {name: given[name].source if name in given else "default" for name in values}
    settings = Settings(values, written, named)
    _check(settings)
    return settings


def _default(setting: Setting) -> Any:
    return list(setting.default) if isinstance(setting.default, list) else setting.default


def _value(setting: Setting, given: Parsed | None) -> Any:
    return _default(setting) if given is None else setting.value(given)


def _values(given: Mapping[str, Parsed]) -> dict[str, Any]:
    """The value of every setting. Raises ConfigError with every mistake."""
    values, mistakes = {}, []
    for setting in TABLE:
        try:
            values[setting.name] = _value(setting, given.get(setting.name))
        except ConfigError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigError(combined(mistakes))
    return values


def _with_app(line: sources.CommandLine) -> dict[str, Parsed]:
    if len(line.words) > 1:
        app, (stray, equals, _) = line.words[0], line.words[1].partition("=")
        stray += f"{equals}..." if equals else ""  # what stands behind it may be the secret of a variable
        raise ConfigError(f"{stray!r}: {app!r} is the application already; give one, and values behind their flags")
    if line.words:
        return line.given | {"app": Parsed(line.words[0], "application", "argument")}
    return line.given


def _named_config(ranks: Sequence[Mapping[str, Parsed]]) -> str | None:
    named = next((rank["config"] for rank in ranks if "config" in rank), None)
    path: str | None = None if named is None else _value(_ROWS["config"], named)
    return path


# What only holds between settings, or between a setting and this machine


def _check(settings: Settings) -> None:
    for name, why in validation.found(settings):
        _refuse(settings, name, why)
    for name in ("chdir", "spool_dir"):
        path = getattr(settings, name)
        if path is not None and not os.path.isdir(path):
            _refuse(settings, name, "no such directory; make it or name another")
    _check_rights(settings)


def _check_rights(settings: Settings) -> None:
    ours = os.geteuid()
    if settings.user is None or ours == 0:
        return
    if settings.service_uid != ours:
        _refuse(settings, "user", "only root may become another user; start forkserver as root or leave it out")


def _refuse(settings: Settings, name: str, why: str) -> NoReturn:
    raise ConfigError(f"{name} {getattr(settings, name)!r} ({settings.sources[name]}): {why}")
