"""The settings: one row each, which declares its name, type, default, help text and spellings.

The rows of ``Settings`` are in the order of the help text. Flags, variables, keys of the file, ``--help`` and
docs/settings.md are all made from them, so a new setting is one new row. An instance of ``Settings`` holds the checked
values of a start or a reload; loading.py makes one from what was written.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

from forkserver.config.declaration import Setting, declared_in
from forkserver.config.values import formats, lists, numbers, words
from forkserver.config.values.numbers import AUTO_FREE, GIB, KIB, MIB
from forkserver.linux import privileges
from forkserver.linux.descriptor_limit import NOFILE_AUTO

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
DEVELOPMENT: Final = "Development"

# Times the workers wanted: more than that do not live at once, however slowly the old ones drain.
SURPLUS: Final = 2

FORWARDED_FIELDS: Final = (
    "forwarded", "x-forwarded-for", "x-forwarded-for=whole", "x-forwarded-proto", "x-forwarded-host",
    "x-forwarded-port", "script_name",
)  # fmt: skip
ID_FIELDS: Final = ("x-request-id", "x-correlation-id", "traceparent", "x-amzn-trace-id")


class Settings:
    """Checked values by name, read-only, plain data; ``sources`` says of each where it was written.

    Times are seconds (what is switched off is 0, a timeout without a limit infinite), sizes bytes, modes integers.
    ``config_path`` is the file that was read.
    """

    # fmt: off
    app = Setting[str | None](words.text, None,
        "The WSGI application: mod:app, mod:obj.attr, mod:factory(), or mod (then application or app).",
        APP, metavar="MODULE:APP", positional=True)
    config = Setting[str | None](words.path, None,
        f"A TOML file of settings; without it, {FILE} of the current directory where there is one (which root "
        "reads only where no other user may write it or its folder).",
        APP, short="-c", metavar="FILE", in_file=False, applies="restart")
    chdir = Setting[str | None](words.path, None,
        "Directory of the application, entered by its path again at each reload, so that a switched link counts.",
        APP, metavar="DIR")
    pythonpath = Setting[list[str]](lists.paths, [],
        "Directories (relative to the application's) put on sys.path before it; commas or repetition give several.",
        APP, metavar="DIRS", repeatable=True)
    env = Setting[list[str]](lists.variables, [],
        "A variable for the application's environment; may be repeated.",
        APP, short="-e", metavar="KEY=VALUE", repeatable=True)
    env_file = Setting[list[str]](lists.paths, [],
        "Files of KEY=VALUE lines for the application's environment, read at each start and reload; env goes before.",
        APP, metavar="FILES", repeatable=True)
    preload = Setting[str](words.choice("auto", "on", "off"), "auto",
        "Import once for all workers: on, off, or auto (off where the import left anything that processes cannot "
        "share, such as a thread, a connection or an open file).",
        APP, metavar="WHEN", bare="on")
    hooks = Setting[str | None](words.module, None,
        "Module with any of generation_loaded(generation), and of a worker's hooks post_fork(worker), "
        "worker_ready(worker), request_timeout(worker, request) and worker_exit(worker).",
        APP, metavar="MODULE")
    ready_path = Setting[str | None](words.target, None,
        "Path that a new worker must first answer to itself with a status of 2xx or 3xx, such as /healthz.",
        APP, metavar="PATH")
    warm_path = Setting[str | None](words.target, None,
        "Path that the application is asked for once before workers are forked, such as /: what its first request "
        "loads is shared then, and keeps no client waiting.",
        APP, metavar="PATH")

    bind = Setting[list[str]](lists.addresses, ["127.0.0.1:8000"],
        "HOST:PORT, [V6]:PORT, :PORT (every interface, IPv6 and IPv4), PORT (this machine), unix:PATH, unix:@NAME "
        "(abstract) or fd://N; may be repeated (251 at most).",
        LISTEN, short="-b", metavar="ADDRESS", repeatable=True)
    backlog = Setting[int](numbers.count(1, 2**31 - 1), 2048,
        "Connections that may wait to be accepted (net.core.somaxconn caps it); reloads apply it to new addresses.",
        LISTEN, metavar="COUNT", applies="restart")
    socket_mode = Setting[int](numbers.mode, 0o660,
        "Permissions of a Unix socket that forkserver makes; reloads apply it to new addresses.",
        LISTEN, metavar="OCTAL", applies="restart")
    socket_group = Setting[str | None](words.group, None,
        "Group of a Unix socket that forkserver makes, such as the web server's (an ordinary user must be in it); "
        "without it, the workers' group. Reloads apply it to new addresses.",
        LISTEN, metavar="GROUP", applies="restart")
    admin_bind = Setting[str | None](words.admin_address, None,
        "Address of the admin process, with a page, /metrics, /healthz, /readyz and /status.json: HOST:PORT, "
        "[V6]:PORT, PORT (this machine), unix:PATH, or off. Its clients are asked for no password: keep it to this "
        "machine, or behind a proxy that asks.",
        LISTEN, metavar="ADDRESS")
    admin_hosts = Setting[list[str]](lists.host_names, [],
        "Names by which clients may call the admin process (the field Host), beside localhost, addresses, and the name "
        "in admin_bind; any other is refused, so that no web page can have a browser read it (DNS rebinding).",
        LISTEN, metavar="NAMES", repeatable=True)

    workers = Setting[int](numbers.workers, 1,
        "Worker processes; auto is as many as processors may be used (affinity and cgroup quota).",
        PROCESSES, short="-w", metavar="COUNT")
    max_workers = Setting[int](numbers.count(0, 4096), 0,
        "Most workers that TTIN and forkserverctl scale may ask for; 0 for twice the workers and 16 more.",
        PROCESSES, metavar="COUNT")
    threads = Setting[int](numbers.count(1, 1024), 1,
        "Threads in each worker that run the application.",
        PROCESSES, metavar="COUNT")
    worker_class = Setting[str](words.worker_class, "sync",
        "For gunicorn's command lines: sync and gthread are accepted and mean the one kind of worker there is.",
        PROCESSES, short="-k", metavar="NAME")
    worker_connections = Setting[int](numbers.count(1, 1_000_000), 1000,
        "Connections one worker holds at once, idle ones included.",
        PROCESSES, metavar="COUNT")
    nofile = Setting[int](numbers.open_files, NOFILE_AUTO,
        "Open files a worker may have: a number or auto (what worker_connections needs) raises its soft limit, at "
        "most to the hard one; keep leaves it, and that of the master, which else has what its workers need. "
        "Programs that the application starts inherit the worker's.",
        PROCESSES, metavar="COUNT")
    max_requests = Setting[int](numbers.count(0, 2**31 - 1), 0,
        "Requests a worker answers before it is replaced; 0 for no limit.",
        PROCESSES, metavar="COUNT")
    max_requests_jitter = Setting[int](numbers.count(0, 2**31 - 1), 0,
        "Requests at most, drawn for each worker, that are added to max_requests, to spread the replacements.",
        PROCESSES, metavar="COUNT")
    max_worker_lifetime = Setting[float](numbers.seconds_or_off, 0.0,
        "Seconds a worker serves before it is replaced; 0 for no limit.",
        PROCESSES, metavar="SECONDS")
    max_worker_memory = Setting[int](numbers.size_or_off(MIB, 2**62), 0,
        "Bytes a worker's resident set (the figure ps and top show, looked at once a second: cheap, and readable "
        "for every user) may have before it is replaced; 0 for no limit.",
        PROCESSES, metavar="BYTES")
    pidfile = Setting[str | None](words.path, None,
        "File that holds the master's process id while it runs.",
        PROCESSES, short="-p", metavar="FILE", aliases=("--pid",))
    control_socket = Setting[str](words.auto_or_path, "auto",
        "Unix socket that forkserverctl asks: a path, off, or auto (control.sock in systemd's runtime directory; "
        "without one, in a folder of the user's own, where forkserverctl finds it).",
        PROCESSES, metavar="PATH")

    timeout = Setting[float](numbers.seconds_or_never, 30.0,
        "Seconds one call of the application may last before its worker is replaced; 0 for no limit.",
        TIMES, short="-t", metavar="SECONDS")
    graceful_timeout = Setting[float](numbers.seconds, 30.0,
        "Seconds a retiring worker may take to finish its requests.",
        TIMES, metavar="SECONDS")
    drain_delay = Setting[float](numbers.seconds_or_off, 0.0,
        "Seconds a graceful stop goes on serving, with Connection: close, so that load balancers notice; 0 for none.",
        TIMES, metavar="SECONDS")
    boot_timeout = Setting[float](numbers.seconds, 60.0,
        "Seconds the application's import, and then a worker's start, may last.",
        TIMES, metavar="SECONDS")
    keep_alive = Setting[float](numbers.seconds, 75.0,
        "Seconds an idle connection is kept; keep it above the idle timer of a load balancer in front.",
        TIMES, metavar="SECONDS")
    header_timeout = Setting[float](numbers.seconds, 15.0,
        "Seconds a client may take to send the request line and header fields.",
        TIMES, metavar="SECONDS")
    body_timeout = Setting[float](numbers.seconds, 30.0,
        "Seconds a request body may arrive without progress.",
        TIMES, metavar="SECONDS")
    body_min_rate = Setting[int](numbers.size_or_off(1, 2**31), 240,
        "Least bytes a second of a request body, on the wire and on average after the first body_timeout seconds; a "
        "slower one is answered 408; 0 for no limit. The default, as in IIS and Kestrel, lets a phone on a 2G network "
        "with heavy losses pass, which sends some 1,000. Apache has 500.",
        TIMES, metavar="BYTES")
    write_timeout = Setting[float](numbers.seconds, 60.0,
        "Seconds without progress before a response is abandoned; less than 256 bytes a second is no progress.",
        TIMES, metavar="SECONDS")
    queue_timeout = Setting[float](numbers.seconds_or_off, 0.0,
        "Seconds a request may wait for the application before it is answered 503; 0 for no limit.",
        TIMES, metavar="SECONDS")

    limit_request_line = Setting[int](numbers.size(32, MIB), 8190,
        "Bytes a request line may have.",
        LIMITS, metavar="BYTES")
    limit_request_fields = Setting[int](numbers.count(1, 32768), 100,
        "Header fields a request may have.",
        LIMITS, metavar="COUNT")
    limit_request_field_size = Setting[int](numbers.size(32, MIB), 8190,
        "Bytes one header field may have.",
        LIMITS, metavar="BYTES")
    limit_request_head = Setting[int](numbers.size(64, 16 * MIB), 64 * KIB,
        "Bytes a request head may have, request line and header fields together.",
        LIMITS, metavar="BYTES")
    header_map = Setting[str](words.choice("drop", "refuse"), "drop",
        "A header field with _ in its name, which would pass for one with -: drop the field or refuse the request.",
        LIMITS, metavar="WHAT")
    max_body = Setting[int](numbers.size(1, 2**62), 100 * MIB,
        "Bytes a request body may have.",
        LIMITS, metavar="BYTES")
    body_memory = Setting[int](numbers.size(0, 2**62), 64 * MIB,
        "Bytes of request bodies over 64 KiB that one worker keeps in memory, the kernel's buffers included; one body "
        "may take a quarter of it. The rest goes to the spool directory.",
        LIMITS, metavar="BYTES")
    spool_dir = Setting[str](words.path, "/var/tmp",
        "Directory for bodies and responses too long for memory; a disk, not a tmpfs.",
        LIMITS, metavar="DIR")
    max_spool = Setting[int](numbers.size(1, 2**62), GIB,
        "Bytes that all workers together may have in the spool directory. Half of it is divided among them, half "
        "is for any; one response may have an eighth. While a reload changes workers or threads, those of before "
        "and the new ones have as much each.",
        LIMITS, metavar="BYTES")
    spool_keep_free = Setting[int](numbers.free_space, AUTO_FREE,
        "Bytes that must stay free on the file system of the spool directory: below, nothing more is spooled; auto "
        "is a twentieth of it, at most 1 GiB; 0 for no such limit.",
        LIMITS, metavar="BYTES")

    certfile = Setting[list[str]](lists.paths, [],
        "PEM file with a certificate and those of its issuers; with it TCP addresses speak HTTPS. Of several the "
        "one for the name that a client asks for is taken, or the first.",
        TLS, metavar="FILES", repeatable=True)
    keyfile = Setting[list[str]](lists.paths, [],
        "PEM file with the private key of each certfile, in the same order; without it, the certfile has it.",
        TLS, metavar="FILES", repeatable=True)
    ca_certs = Setting[str | None](words.path, None,
        "PEM file with the authorities that certificates of clients must come from.",
        TLS, metavar="FILE")
    cert_reqs = Setting[str](words.client_certificates, "none",
        "Whether clients show a certificate: none, optional or required (gunicorn's 0, 1, 2).",
        TLS, metavar="WHEN")
    ciphers = Setting[str | None](words.text, None,
        "Cipher suites of TLS 1.2, as OpenSSL writes them; without it, those with forward secrecy and AEAD.",
        TLS, metavar="LIST")
    self_signed = Setting[str](words.choice("off", "on"), "off",
        "For development: speak HTTPS with a certificate for localhost, made at the start by the program openssl.",
        TLS, metavar="WHEN", bare="on", applies="restart")

    forwarded_allow_ips = Setting[list[str]](lists.peers, ["127.0.0.1", "::1", "unix"],
        "Trusted proxies: addresses, networks, unix (clients of Unix sockets), or * for every sender. forwarded_fields "
        "from other senders are dropped, and the log names each such sender once.",
        PROXIES, metavar="PEERS", repeatable=True)
    forwarded_fields = Setting[list[str]](
        lists.field_names(*FORWARDED_FIELDS), ["x-forwarded-for", "x-forwarded-proto"],
        "Header fields that those proxies always set themselves: forwarded, or any of x-forwarded-for, -proto, -host "
        "and -port; and script_name. x-forwarded-for=whole keeps the whole list. Other fields are dropped.",
        PROXIES, metavar="FIELDS", repeatable=True)
    proxy_protocol = Setting[str](words.choice("off", "on", "v1", "v2"), "off",
        "Connections begin with a header of the PROXY protocol: off, on (either version), v1 or v2.",
        PROXIES, metavar="WHEN", bare="on")
    proxy_allow_ips = Setting[list[str]](lists.peers, ["127.0.0.1", "::1", "unix"],
        "Proxies that may connect where proxy_protocol is on; connections of others are closed.",
        PROXIES, metavar="PEERS", repeatable=True)
    request_id_from = Setting[list[str]](lists.field_names(*ID_FIELDS), ["x-request-id", "traceparent"],
        "Header fields in which those proxies give a request its id, the first that holds one counts: of traceparent "
        "the trace id. Without one, forkserver makes the id.",
        PROXIES, metavar="FIELDS", repeatable=True)
    request_id_header = Setting[str | None](words.field_name, None,
        "Header field in which the answer tells the request's id, such as X-Request-Id; without it, in none.",
        PROXIES, metavar="NAME", bare="X-Request-Id")
    root_path = Setting[str | None](words.root_path, None,
        "Path below which clients see the application (SCRIPT_NAME), whether or not the proxy cuts it off.",
        PROXIES, metavar="PATH")

    user = Setting[str | None](words.user, None,
        "User that workers become; only a master started by root may change it.",
        RIGHTS, short="-u", metavar="USER")
    group = Setting[str | None](words.group, None,
        "Group that workers become; without it, the user's own.",
        RIGHTS, short="-g", metavar="GROUP")
    umask = Setting[int | None](numbers.mode, None,
        "File mode creation mask of the workers (umask); without it, the inherited one.",
        RIGHTS, short="-m", metavar="OCTAL")
    no_new_privs = Setting[str](words.choice("off", "on"), "off",
        "Programs that the application starts gain no rights by setuid and setgid bits or file capabilities "
        "(PR_SET_NO_NEW_PRIVS). sudo, and mail programs that are setgid (postdrop, sendmail), need it off.",
        RIGHTS, metavar="WHEN", bare="on")

    access_log = Setting[str | None](formats.log_target, None,
        "File for one line per request; - is standard output, syslog the daemon behind /dev/log (syslog:FACILITY, "
        "syslog:SOCKET, or syslog:udp:// or tcp://ADDRESS:PORT another); without it, no access log.",
        LOGS, metavar="FILE", aliases=("--access-logfile",))
    access_log_format = Setting[str](formats.access_log, "auto",
        "What a line of the access log says: auto (combined, or what a person reads at a terminal), combined, json, or "
        "atoms as gunicorn has them, such as "
        '%(h)s %(t)s "%(r)s" %(s)s %(b)s %(L)s.',
        LOGS, metavar="FORMAT", aliases=("--access-logformat",))
    error_log = Setting[str](formats.log_target, "-",
        "File for forkserver's own events; - is standard error, syslog as for access_log.",
        LOGS, metavar="FILE", aliases=("--error-logfile", "--log-file"))
    log_level = Setting[str](words.choice("debug", "info", "warning", "error", "critical"), "info",
        "Events below this level are left out of the error log.",
        LOGS, metavar="LEVEL")
    log_format = Setting[str](words.choice("text", "json"), "text",
        "How the error log's events are written: as text, or as JSON, an object a line.",
        LOGS, metavar="FORM")
    slow_log = Setting[float](numbers.seconds_or_off, 0.0,
        "Seconds after which a running call is logged with its stack, and again at each doubling; 0 for none.",
        LOGS, metavar="SECONDS")
    log_config = Setting[str | None](words.path, None,
        "File by which the application's logging is configured before its import: dictConfig's table as .toml or "
        ".json, else fileConfig's INI. Relative to the application's directory, and read by its user.",
        LOGS, metavar="FILE")
    capture_output = Setting[str](words.choice("off", "on"), "off",
        "What the application prints, and what it writes to standard error, goes to the file that error_log names.",
        LOGS, metavar="WHEN", bare="on")

    server_class = Setting[str](words.class_name, "forkserver:WSGIServer",
        "Subclass of WSGIServer that workers construct.",
        API, metavar="MODULE:CLASS")
    handler_class = Setting[str](words.class_name, "forkserver:WSGIRequestHandler",
        "Request handler class that the server is given.",
        API, metavar="MODULE:CLASS")
    server_header = Setting[str](words.field_value, "forkserver",
        "Value of the Server field where the application sets none; empty for no such field.",
        API, metavar="TEXT")

    dev = Setting[str](words.choice("off", "on"), "off",
        "Development mode: what is below, no time limits, each request at the terminal; where nothing else is written.",
        DEVELOPMENT, metavar="WHEN", bare="on", applies="restart")
    reload_on_change = Setting[str](words.choice("off", "on"), "off",
        "Reload when a file that the application's import has read changes, also one of an import that failed.",
        DEVELOPMENT, metavar="WHEN", bare="on", aliases=("--reload",))
    reload_extra_files = Setting[list[str]](lists.paths, [],
        "Files and directories (relative to the application's) whose changes count for reload_on_change, too.",
        DEVELOPMENT, metavar="PATHS", repeatable=True, aliases=("--reload-extra-file",))
    error_page = Setting[str](words.choice("off", "on"), "off",
        "With dev: a browser on this machine is shown the traceback of code that does not load, until it loads.",
        DEVELOPMENT, metavar="WHEN", bare="on")
    debugger = Setting[str](words.choice("off", "on"), "off",
        "The application keeps the terminal: breakpoint() works, and reloads and time limits wait for its end.",
        DEVELOPMENT, metavar="WHEN", bare="on")
    free_port = Setting[str](words.choice("off", "on"), "off",
        "With dev: where another process has the port of a TCP address, the next free one is served.",
        DEVELOPMENT, metavar="WHEN", bare="on", applies="restart")
    # fmt: on

    sources: dict[str, str]
    config_path: str | None

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

    def credentials(self) -> privileges.Credentials:
        """The rights that the application has. Raises ConfigError."""
        return privileges.wanted(self.user, self.group, self.umask, self.no_new_privs == "on")

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
        set_by_user = (name for name, source in self.sources.items() if source != "default")
        shown = ((name, _ROWS[name].value_type.secret) for name in set_by_user)
        written = (f"{name}={'...' if secret else repr(getattr(self, name))}" for name, secret in shown)
        return f"Settings({', '.join(written)})"


TABLE: Final = declared_in(Settings)
_ROWS: Final = {setting.name: setting for setting in TABLE}


def defaults(**changes: Any) -> Settings:
    """The defaults, with ``changes`` taken as they are. Raises TypeError for a name that is no setting."""
    if unknown := set(changes) - set(_ROWS):
        raise TypeError(f"no such setting: {', '.join(sorted(unknown))}")
    values = {setting.name: setting.fresh_default() for setting in TABLE} | changes
    return Settings(values, {name: "given" if name in changes else "default" for name in values})
