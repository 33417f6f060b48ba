"""uWSGI's options, as far as services of Python applications use them.

uWSGI has some 900 options; the rows have those of configurations for WSGI applications. What is not here is named as
not known in the file that is made.

Source: https://uwsgi-docs.readthedocs.io/en/latest/Options.html and ``core/uwsgi.c`` of uWSGI 2.0.31.
"""

from __future__ import annotations

from typing import Any, Final

from forkserver.cli.moving import converters
from forkserver.cli.moving.rows import Default, Found, LeftOutError, Server, missing, needless, table, to

_PROTOCOL: Final = (
    "forkserver speaks HTTP there: nginx's uwsgi_pass becomes proxy_pass (http://unix:PATH: for a socket)"
)
_ALWAYS: Final = "it is always so"
_PLAIN: Final = "it tunes uWSGI's own loop"
_STATIC: Final = "files are served by a proxy in front, or by WhiteNoise in the application"
_EMPEROR: Final = (
    "a unit of systemd for each application (forkserver --systemd-unit prints one) takes the emperor's place"
)
_TASKS: Final = "work beside requests is for a task queue, or for a unit or timer of systemd"
_HTTP: Final = "forkserver speaks HTTP itself"
_PROXY: Final = "a proxy in front does it"
_CHEAPER: Final = "the number of workers is fixed; forkserverctl scale changes it while forkserver runs"
_THREADS: Final = "there are no green threads; write threads = N for as many requests as a worker is to run at once"
_TITLES: Final = "processes are titled by the application's name"
_LOGGING: Final = "events go to error_log and requests to access_log; - is standard error and output, syslog the daemon"
_ENVIRONMENT: Final = "install forkserver into the application's environment, and start the one there"
_RELOADING: Final = "no file is looked at for that; forkserverctl reload loads new code and loses no request"


def _log(value: Any) -> str:
    if value is True or not str(value).strip():
        raise LeftOutError(_LOGGING)
    target = str(value).split()[-1]  # a logger may have a name before it
    if target.partition(":")[0] in ("syslog", "rsyslog", "socket", "redislog", "zeromq"):
        return "syslog"
    return target.removeprefix("file:")


def _socket_mode(value: Any) -> str:
    return "0666" if value is True or str(value).lower() == "true" else converters.mode(str(value))


def _group_of(value: Any) -> str:
    group = str(value).partition(":")[2]
    if not group:
        raise LeftOutError("the socket belongs to the user of the workers; name the web server's group in socket_group")
    return group


def _reload_on_change(value: Any) -> str:
    if converters.whole(value) == 0:
        raise LeftOutError("it is off, which is so here without a setting")
    return "on"


def _seconds(value: Any) -> Any:
    if value is True:
        raise LeftOutError("connections are kept 75 seconds")
    return converters.whole(value)


_KEEP: Final = "connections are kept, up to keep_alive seconds"
_ROWS: Final = (
    to("app"),
    *needless("they are in app", "module", "wsgi", "wsgi-file", "file", "callable", "mount", "manage-script-name"),
    to("script-name", "root_path"),
    to("http", "bind", convert=converters.unix_or_tcp),
    to("http-socket", "bind", convert=converters.unix_or_tcp),
    to("http11-socket", "bind", convert=converters.unix_or_tcp),
    to("https", "bind", text="with certfile and keyfile"),
    to("certfile"),
    to("keyfile"),
    to("socket", "bind", text=_PROTOCOL, convert=converters.unix_or_tcp),
    to("uwsgi-socket", "bind", text=_PROTOCOL, convert=converters.unix_or_tcp),
    to("chmod-socket", "socket_mode", convert=_socket_mode),
    to("chown-socket", "socket_group", convert=_group_of),
    to("listen", "backlog"),
    to("processes", "workers", convert=converters.processes),
    to("workers", convert=converters.processes),
    to("threads"),
    to("harakiri", "timeout"),
    to("reload-mercy", "graceful_timeout"),
    to("worker-reload-mercy", "graceful_timeout"),
    to("http-keepalive", "keep_alive", convert=_seconds),
    to("socket-timeout", "body_timeout"),
    to("http-headers-timeout", "header_timeout"),
    to("socket-send-timeout", "write_timeout"),
    to("max-requests"),
    to("max-requests-delta", "max_requests_jitter"),
    to("max-worker-lifetime"),
    to("reload-on-rss", "max_worker_memory", convert=converters.mebibytes),
    to("evil-reload-on-rss", "max_worker_memory", convert=converters.mebibytes),
    to("buffer-size", "limit_request_line", "limit_request_field_size", text="see limit_request_head too"),
    to("limit-post", "max_body", convert=converters.number_or_nothing("write max_body for a limit above 100 MiB")),
    to("uid", "user"),
    to("gid", "group"),
    to("umask", convert=converters.mode),
    to("chdir"),
    *missing("have the application enter it, when it has been imported", "chdir2"),
    to("pythonpath", convert=converters.listed),
    to("env", convert=converters.listed),
    to("pidfile"),
    to("safe-pidfile", "pidfile"),
    to("pidfile2", "pidfile"),
    to("lazy-apps", "preload", convert=converters.only_where_on("off")),
    to("lazy", "preload", convert=converters.only_where_on("off")),
    to("logto", "error_log", convert=_log),
    to("logto2", "error_log", convert=_log),
    to("logger", "error_log", convert=_log),
    to("log-syslog", "error_log", convert=lambda _value: "syslog"),
    to("daemonize", "error_log", text="forkserver stays in the foreground, where systemd keeps it", convert=_log),
    to("daemonize2", "error_log", text="forkserver stays in the foreground, where systemd keeps it", convert=_log),
    to("req-logger", "access_log", convert=_log),
    to("enable-proxy-protocol", "proxy_protocol", convert=converters.only_where_on("on")),
    to("http-enable-proxy-protocol", "proxy_protocol", convert=converters.only_where_on("on")),
    to("py-autoreload", "reload_on_change", convert=_reload_on_change),
    to("python-autoreload", "reload_on_change", convert=_reload_on_change),
    to("py-auto-reload", "reload_on_change", convert=_reload_on_change),
    to("log-slow", "slow_log", convert=lambda value: f"{converters.whole(value)}ms"),
    to("max-fd", "nofile"),
    *missing("the log's lines are combined, json or gunicorn's atoms: access_log_format", "log-format", "logformat"),
    *missing("leave access_log out for no line at all; a filter is for the log's reader", "log-4xx", "log-5xx",
             "log-big", "log-zero", "log-sendfile", "log-ioerror"),
    *missing("logrotate renames the file and sends the master USR1", "log-maxsize", "log-backupname",
             "touch-logreopen", "touch-logrotate", "log-truncate"),
    *missing(_ENVIRONMENT, "home", "virtualenv", "venv", "pyhome", "no-site", "py-executable"),
    *missing("a file of KEY=VALUE lines: env_file", "envdir"),
    *missing("leave it out of the unit's environment", "unenv"),
    *missing(_RELOADING, "touch-reload", "touch-chain-reload", "touch-workers-reload", "fs-reload", "master-fifo",
             "reload-on-exception"),
    *missing(_CHEAPER, "cheaper", "cheaper-algo", "cheaper-initial", "cheaper-step", "cheaper-overload", "cheap",
             "idle", "cheaper-rss-limit-soft", "cheaper-rss-limit-hard", "cheaper-busyness-max",
             "cheaper-busyness-min", "cheaper-busyness-multiplier", "cheaper-busyness-verbose",
             "cheaper-busyness-backlog-alert", "cheaper-busyness-backlog-multiplier", "cheaper-busyness-backlog-step",
             "die-on-idle"),
    *missing(_EMPEROR, "emperor", "emperor-tyrant", "emperor-stats", "vassals-include", "vassal-set",
             "emperor-pidfile"),
    *missing(_TASKS, "spooler", "spooler-processes", "spooler-frequency", "spooler-harakiri", "mule", "mules", "farm",
             "cron", "cron2", "timer", "attach-daemon", "smart-attach-daemon", "attach-daemon2", "cache", "cache2",
             "queue", "sharedarea", "legion"),
    *missing(_THREADS, "gevent", "async", "ugreen", "asyncio", "greenlet", "loop", "gevent-monkey-patch",
             "gevent-early-monkey-patch"),
    *missing(_STATIC, "static-map", "static-map2", "check-static", "static-index", "static-safe", "static-expires",
             "static-expires-uri", "static-gzip", "static-gzip-all", "static-gzip-dir", "static-skip-ext",
             "static-expires-type", "static-cache-paths", "offload-threads", "file-serve-mode", "mimefile"),
    *missing(_PROXY, "http-to-https", "add-header", "del-header", "rem-header", "collect-header", "route",
             "route-host", "route-uri", "route-run", "route-if", "route-if-not", "route-remote-addr",
             "route-user-agent", "http-auto-gzip", "error-page-403", "error-page-404", "error-page-500", "http-to",
             "subscribe-to", "subscribe2", "http-subscription-server", "response-route"),
    *missing("Prometheus reads figures at admin_bind; forkserverctl status shows them", "stats", "stats-server",
             "stats-http", "stats-push", "stats-minified", "carbon", "enable-metrics", "memory-report"),
    *missing("the resident set is what counts: max_worker_memory", "reload-on-as", "evil-reload-on-as"),
    *missing("limit it in the unit: CPUAffinity=, LimitAS=, TasksMax=, Nice=", "cpu-affinity", "limit-as",
             "limit-nproc", "prio", "cgroup"),
    *missing("the sandbox of the unit does more (forkserver --systemd-unit)", "chroot", "cap", "unshare", "namespace"),
    *missing("commands before and after are ExecStartPre= and ExecStopPost= of the unit", "exec-asap", "exec-pre-app",
             "exec-post-app", "exec-as-root", "exec-as-user", "hook-master-start", "hook-post-app", "hook-as-user",
             "hook-pre-app", "exec-as-user-atexit", "hook-asap", "hook-post-fork", "hook-accepting1"),
    *missing("the module that hooks names has post_fork(worker) and worker_ready(worker)", "import", "shared-import",
             "pyimport", "py-import"),
    *missing("WebSocket is for threads: docs/streams.md", "http-websockets", "websockets-max-size"),
    *missing("load the file in a module of your own (paste.deploy.loadapp), and name that as MODULE:app", "paste",
             "ini-paste", "ini-paste-logged", "paste-logger", "pecan"),
    *missing("sys.argv is forkserver's; give options of the application as env", "pyargv"),
    *missing("the traceback goes to the error log and never to a client", "catch-exceptions"),
    *missing("TLS has the suites with forward secrecy; ciphers names others", "ssl-option", "sni", "sni-dir",
             "https2", "https-session-context"),
    *needless(_ALWAYS, "master", "enable-threads", "single-interpreter", "need-app", "die-on-term", "vacuum",
              "strict", "thunder-lock", "no-orphans", "close-on-exec", "close-on-exec2", "ignore-sigpipe",
              "ignore-write-errors", "write-errors-tolerance", "disable-write-exception", "wsgi-accept-buffer",
              "no-default-app", "log-reopen", "harakiri-verbose", "so-keepalive", "tcp-nodelay", "post-buffering",
              "exit-on-reload", "http-manage-expect", "http-chunked-input", "http-auto-chunked", "http-raw-body",
              "wsgi-disable-file-wrapper", "py-call-osafterfork", "py-call-uwsgi-fork-hooks", "honour-stdin",
              "skip-atexit-teardown", "wsgi-strict", "log-date", "logdate", "log-micros", "log-prefix", "log-master",
              "threaded-logger", "no-threads-wait", "master-as-root", "reuse-port", "so-send-timeout", "never-swap",
              "ksm"),
    *needless(_KEEP, "http-gracetime"),
    *needless("trusted proxies (forwarded_allow_ips) give the client's address to the log", "log-x-forwarded-for"),
    *needless(_TITLES, "procname", "procname-prefix", "procname-prefix-spaced", "procname-append", "procname-master",
              "auto-procname"),
    *needless(_HTTP, "protocol", "plugin", "plugins", "need-plugin", "plugin-dir", "plugins-dir", "http-processes",
              "http-timeout", "http-connect-timeout", "http-modifier1", "http-buffer-size", "http-uid", "http-gid",
              "http-stats", "binary-path", "dlopen", "http-server-name-as-http-host"),
    *needless(_PLAIN, "harakiri-graceful-timeout", "min-worker-lifetime", "thread-stacksize", "threads-stacksize",
              "freebind", "post-buffering-bufsize", "lock-engine", "optimize", "wsgi-env-behavior",
              "wsgi-env-behaviour", "ftok", "max-vars", "max-apps", "no-defer-accept", "tcp-fast-open",
              "check-interval", "forkbomb-delay", "worker-exec", "refork", "auto-weight", "backtrace-depth",
              "profiler", "py-tracebacker", "vhost", "socket-sndbuf", "socket-rcvbuf", "so-write-timeout",
              "response-headers-limit"),
    *needless("without access_log there is no line for each request", "disable-logging"),
    *missing("the file is not read; run --from on it too", "ini", "include", "inherit"),
    *needless("forkserver --print-config shows the settings", "show-config", "print"),
)  # fmt: skip
_SCRIPTS: Final = ("wsgi-file", "file")
_MODULES: Final = ("module", "wsgi")


def compose(found: list[Found]) -> list[Found]:
    """The application of module, script, mount and callable; and HTTPS with its files."""
    values = {each.name: each.value for each in found}
    made: list[Found] = []
    for each in found:
        if each.name == "https":
            made += _https(each)
        elif each.name not in (*_SCRIPTS, *_MODULES, "callable", "mount", "manage-script-name"):
            made.append(each)
    return [*_application(values), *made]


def _application(values: dict[str, Any]) -> list[Found]:
    mount, script = _mounted(values)
    script = next((str(values[name]) for name in _SCRIPTS if name in values), script)
    module = next((str(values[name]) for name in _MODULES if name in values), "")
    made: list[Found] = []
    if script and (script.endswith((".py", ".wsgi")) or "/" in script):
        try:
            folder, module = converters.module_of(_below(script, str(values.get("chdir", ""))))
        except LeftOutError as error:
            return [Found("app", error)]
        made += [Found("pythonpath", folder)] if folder else []
    elif script:
        module = script
    if module:
        called = values.get("callable")
        made.insert(0, Found("app", f"{module}:{called}" if called and ":" not in module else module))
    return made + ([Found("script-name", mount)] if mount not in ("", "/") else [])


def _below(script: str, folder: str) -> str:
    """``script`` as a path below ``folder``, where it lies there."""
    inside = folder.rstrip("/") + "/"
    return script.removeprefix(inside) if folder else script


def _mounted(values: dict[str, Any]) -> tuple[str, str]:
    mounts = converters.listed(values.get("mount", "")) or [""]
    path, _, script = str(mounts[0]).partition("=")
    return (path if path.startswith("/") else "", script)


def _https(found: Found) -> list[Found]:
    address, *files = converters.at_commas(found.value) or [""]
    names = ("certfile", "keyfile")
    return [
        Found("http", address, found.place),
        *(Found(name, [path], found.place) for name, path in zip(names, files, strict=False)),
    ]


SERVER: Final = Server(
    "uWSGI",
    "2.0",
    "docs/moving/uwsgi.md",
    table(_ROWS),
    (
        Default(("harakiri",), "timeout", 0, "uWSGI sets no limit to a call; without this line it is 30 seconds"),
        Default(
            ("disable-logging", "req-logger", "log-4xx", "log-5xx"),
            "access_log",
            "-",
            "uWSGI has a line for each request",
        ),
    ),
    (
        "connections are kept 75 seconds (uWSGI: none without http-keepalive); see keep_alive",
        "bodies longer than max_body, 100 MiB, are refused; uWSGI sets no limit without limit-post",
        "uwsgi, the Python module of uWSGI, is not there: its cache, locks, spooler and timers need another place",
    ),
    compose,
)
