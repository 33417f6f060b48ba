"""The options of mod_wsgi-express.

Source: https://modwsgi.readthedocs.io/ and the options of ``mod_wsgi.server`` of mod_wsgi 6.1.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any, Final

from forkserver.cli.moving import converters, flags
from forkserver.cli.moving.flags import Option
from forkserver.cli.moving.rows import Default, Found, LeftOutError, Server, missing, needless, table, to

_APACHE: Final = "that is Apache's; a proxy in front of forkserver does it (deploy/ has nginx, Apache and others)"
_STATIC: Final = "files are served by a proxy in front, or by WhiteNoise in the application"
_LOG_NAME: Final = "write the path of the file: error_log, access_log"
_ROTATION: Final = "logrotate renames the file and sends the master USR1 (deploy/ has an example)"
_DEBUGGING: Final = "for development: pdb, coverage and profilers in a run of the application by itself"
_PROCESSES: Final = "there are no processes of Apache's before the workers"
_SERVICE: Final = "programs beside the application are units of their own, in systemd"
_BUFFER: Final = "the kernel sizes socket buffers, and answers longer than memory go to spool_dir"
_SWITCHES: Final = (
    "access-log", "allow-localhost", "chunked-request", "compress-responses", "debug-mode", "debugger-startup",
    "directory-listing", "disable-reloading", "embedded-mode", "enable-coverage", "enable-debugger", "enable-docs",
    "enable-gdb", "enable-profiler", "enable-recorder", "enable-sendfile", "enable-telemetry", "error-override",
    "free-threading", "http2", "https-only", "log-to-terminal", "orphan-interpreter", "reload-on-changes",
    "rotate-logs", "server-metrics", "server-status", "setup-only", "ssl-environment", "startup-log",
    "verbose-debugging", "with-cgi", "with-newrelic", "with-newrelic-agent", "with-newrelic-platform", "with-php5",
)  # fmt: skip
_PAIRS: Final = (
    "add-handler", "error-document", "proxy-mount-point", "proxy-url-alias", "proxy-virtual-host", "service-group",
    "service-log-file", "service-script", "service-user", "setenv", "url-alias",
)  # fmt: skip


def _level(value: Any) -> str:
    word = str(value).lower()
    words = {"emerg": "critical", "alert": "critical", "crit": "critical", "warn": "warning", "notice": "info"}
    return "debug" if word.startswith("trace") else words.get(word, word)


def _fields(value: Any) -> list[str]:
    named = [str(each).lower() for each in converters.listed(value)]
    known = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"}
    others = {"x-forwarded-scheme": "x-forwarded-proto", "x-forwarded-script-name": "script_name"}
    made = [others.get(name, name) for name in named if name in known or name in others]
    if not made:
        raise LeftOutError("none of these is read; X-Forwarded-For and X-Forwarded-Proto are, by default")
    return made


def _format(value: Any) -> str:
    if str(value) in ("common", "combined"):
        return "combined"
    raise LeftOutError("Apache's format; write combined, json, or gunicorn's atoms")


def _mount(value: Any) -> str:
    path = "/" + str(value).strip("/")
    if path == "/":
        raise LeftOutError("it is the root, as here without a setting")
    return path


_ROWS: Final = (
    to("app", text="a module's name; the script's folder is in pythonpath"),
    to("bind"),
    *needless("they are in bind", "host", "port", "https-port", "ssl-port"),
    *needless("they are in app", "application-type", "entry-point", "callable-object"),
    to("processes", "workers"),
    to("threads"),
    to("max-clients", "worker_connections", text="of each worker; mod_wsgi's is of all"),
    to("limit-request-body", "max_body"),
    to("maximum-requests", "max_requests", convert=converters.whole),
    to("restart-interval", "max_worker_lifetime"),
    to("startup-timeout", "boot_timeout"),
    to("graceful-timeout"),
    to("request-timeout", "timeout", text="of each call; mod_wsgi's grows with the number of threads"),
    to("slow-requests", "slow_log"),
    to("queue-timeout"),
    to("header-timeout"),
    to("body-timeout"),
    to("body-min-rate"),
    to("response-socket-timeout", "write_timeout"),
    to("server-backlog", "backlog"),
    to(
        "keep-alive-timeout",
        "keep_alive",
        convert=converters.number_or_nothing("connections are kept 75 seconds; write keep_alive = 1 for the least"),
    ),
    to("user"),
    to("group"),
    to("mount-point", "root_path", convert=_mount),
    to("working-directory", "chdir"),
    to("python-path", "pythonpath", convert=converters.listed),
    to("pid-file", "pidfile"),
    to("log-level", convert=_level),
    to("reload-on-changes", "reload_on_change", convert=converters.only_where_on("on")),
    to("access-log", convert=lambda _value: "-", text="- is standard output; or the path of a file"),
    to("access-log-format", convert=_format),
    to("ssl-certificate-file", "certfile", convert=converters.listed),
    to("ssl-certificate-key-file", "keyfile", convert=converters.listed),
    to("ssl-certificate", "certfile", text="and keyfile: its names with .crt and .key"),
    to("ssl-ca-certificate-file", "ca_certs", text="with cert_reqs = required"),
    to("cert_reqs"),
    to("trust-proxy", "forwarded_allow_ips", convert=converters.listed),
    to(
        "trust-proxy-header",
        "forwarded_fields",
        text="of the proxies in forwarded_allow_ips, by default those of this machine; mod_wsgi believes any sender",
        convert=_fields,
    ),
    *missing("the certificates of the issuers belong in certfile, behind the server's own",
             "ssl-certificate-chain-file"),
    *missing("certificates of clients are asked for on the whole address: cert_reqs", "ssl-verify-client"),
    *missing("forkserver speaks HTTP/1.1; a proxy in front speaks HTTP/2", "http2"),
    *missing(_APACHE, "https-only", "hsts-policy", "server-name", "server-alias", "allow-localhost", "error-document",
             "error-override", "compress-responses", "host-access-script", "auth-user-script", "auth-type",
             "auth-group-script", "auth-group", "include-file", "rewrite-rules", "proxy-mount-point",
             "proxy-url-alias", "proxy-virtual-host", "proxy-timeout", "with-php5", "with-cgi", "add-handler"),
    *missing(_STATIC, "document-root", "directory-index", "directory-listing", "allow-override", "url-alias",
             "mime-types"),
    *missing("write env for the environment of the process; requests get none of it", "setenv", "passenv"),
    *missing("a file of KEY=VALUE lines, which is not executed: env_file", "envvars-script"),
    *missing("a call that exceeds timeout is answered 504, and its worker replaced", "interrupt-timeout"),
    *missing("call sys.setswitchinterval in the application", "switch-interval"),
    *missing("the interpreter that forkserver is installed for is the one that runs", "free-threading"),
    *missing("workers are never stopped for being idle", "inactivity-timeout", "ignore-activity"),
    *missing("a worker whose interpreter hangs is found by timeout", "deadlock-timeout"),
    *missing("limit it in the unit: LimitCPU=, CPUQuota=, MemoryMax=; see max_worker_memory", "cpu-time-limit",
             "cpu-priority", "memory-limit", "virtual-memory-limit", "stack-size"),
    *missing("Prometheus reads figures at admin_bind; forkserverctl status shows them", "server-metrics",
             "server-status", "telemetry-service", "enable-telemetry", "telemetry-ui-port", "telemetry-interval",
             "telemetry-options"),
    *missing("start it with newrelic-admin run-program forkserver ...", "with-newrelic", "with-newrelic-agent",
             "with-newrelic-platform", "newrelic-config-file", "newrelic-environment"),
    *missing(_SERVICE, "service-script", "service-user", "service-group", "service-log-file"),
    *missing(_LOG_NAME, "log-directory", "error-log-name", "access-log-name", "startup-log-name", "startup-log"),
    *missing(_ROTATION, "rotate-logs", "max-log-size", "rotatelogs-executable"),
    *missing("events have one form, as text or as JSON: log_format", "error-log-format"),
    *missing("write env = [\"LC_ALL=C.UTF-8\"], or set it in the unit", "locale", "lang"),
    *missing(_DEBUGGING, "debug-mode", "enable-debugger", "debugger-startup", "enable-coverage", "coverage-directory",
             "enable-profiler", "profiler-directory", "enable-recorder", "recorder-directory", "enable-gdb",
             "gdb-executable", "verbose-debugging"),
    *missing("programs of the environment serve docs", "enable-docs"),
    *needless("the whole head has one limit of time, header_timeout", "header-max-timeout", "header-min-rate"),
    *needless("a body that goes on may take as long as it likes, above body_min_rate", "body-max-timeout"),
    *needless(_PROCESSES, "initial-workers", "minimum-spare-workers", "maximum-spare-workers", "daemon-backlog",
              "connect-timeout", "socket-timeout", "server-mpm", "server-root", "httpd-executable",
              "modules-directory", "process-name", "daemon-name", "process-group", "shell-executable",
              "socket-prefix", "orphan-interpreter", "application-group", "embedded-mode", "setup-only",
              "shutdown-timeout", "eviction-timeout"),
    *needless(_BUFFER, "send-buffer-size", "receive-buffer-size", "header-buffer-size", "response-buffer-size",
              "proxy-buffer-size"),
    *needless("bodies in chunks are always taken", "chunked-request"),
    *needless("files go by sendfile(2) where the kernel can", "enable-sendfile"),
    *needless("code is loaded again by a reload only", "disable-reloading"),
    *needless("applications get HEAD as HEAD, and no answer to it has a body", "map-head-to-get"),
    *needless("events go to standard error, which error_log changes", "log-to-terminal"),
    *needless("wsgi.url_scheme is set where TLS is spoken; the certificate's fields are not passed on",
              "ssl-environment"),
    *needless("eggs are not unpacked", "python-eggs"),
)  # fmt: skip


def compose(found: list[Found]) -> list[Found]:
    """Host and port as an address, the script as a module in its folder, and certificates by their common name."""
    values = {each.name: each.value for each in found}
    port = values.get("https-port", values.get("ssl-port")) or values.get("port", 8000)
    host = str(values.get("host", ""))
    made = [Found("bind", [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"])] if "port" in values or host or (
        "https-port" in values
    ) else []  # fmt: skip
    entry = values.get("entry-point", values.get("app"))
    if entry is not None:
        made += _application(str(entry), values)
    if "ssl-certificate" in values:
        made += [
            Found("ssl-certificate-file", f"{values['ssl-certificate']}.crt"),
            Found("ssl-certificate-key-file", f"{values['ssl-certificate']}.key"),
        ]
    if "ssl-ca-certificate-file" in values and "ssl-verify-client" not in values:
        made.append(Found("cert_reqs", "required"))
    composed = {"host", "port", "https-port", "ssl-port", "app", "entry-point", "callable-object", "application-type"}
    composed.add("ssl-certificate")
    return made + [each for each in found if each.name not in composed]


def _application(entry: str, values: dict[str, Any]) -> list[Found]:
    called = values.get("callable-object", "application")
    if values.get("application-type", "script") == "module":
        return [Found("app", f"{entry}:{called}")]
    if values.get("application-type", "script") != "script":
        return [Found("application-type", values["application-type"])]
    try:
        folder, module = converters.module_of(posixpath.normpath(entry))
    except LeftOutError as error:
        return [Found("app", error)]
    made = [Found("app", f"{module}:{called}")]
    return [*made, Found("python-path", [folder])] if folder else made


SERVER: Final = Server(
    "mod_wsgi",
    "6.1",
    "docs/moving/mod_wsgi.md",
    table(_ROWS),
    (
        Default(("bind",), "bind", [":8000"], "mod_wsgi-express listens on every interface by default"),
        Default(("threads",), "threads", 5, "mod_wsgi-express' default; forkserver's is 1"),
        Default(("request-timeout",), "timeout", 60, "mod_wsgi-express' default; forkserver's is 30 seconds"),
        Default(("body-timeout",), "body_timeout", 15, "mod_wsgi-express' default; forkserver's is 30 seconds"),
    ),
    (
        "mod_wsgi-express keeps connections 2 seconds by default; forkserver keeps them 75 seconds, see keep_alive",
        "bodies may have 100 MiB (mod_wsgi-express: 10 MiB); see max_body",
    ),
    compose,
)


def options() -> dict[str, Option]:
    """Every flag of mod_wsgi-express start-server."""
    ours = ("app", "bind", "cert_reqs")
    return {
        f"--{name}": Option(name, 0 if name in _SWITCHES else 2 if name in _PAIRS else 1)
        for name in SERVER.rows
        if name not in ours
    }


def command_line(words: Sequence[str]) -> list[Found]:
    """The settings in ``words``, the script among them. Raises ConfigError."""
    found, others = flags.read(words, options(), shortened=True)
    others = [word for word in others if word not in ("start-server", "setup-server")]
    repeated = ("trust-proxy", "trust-proxy-header", "python-path")
    joined = [
        *(Found(name, [each.value for each in found if each.name == name]) for name in repeated
          if any(each.name == name for each in found)),
        *(each for each in found if each.name not in repeated),
    ]  # fmt: skip
    return [*(Found("app", word) for word in others[:1]), *joined]
