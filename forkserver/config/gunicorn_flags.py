"""Flags and settings of gunicorn that forkserver does not have, each with what to do instead.

Every long and short option of gunicorn 27 is either a flag of forkserver with the same meaning or a row here; a test
goes through gunicorn's list. A few rows are for options of older versions. The text of a row completes a message:
``--spew: no such flag; TEXT``.

Source: https://docs.gunicorn.org/en/stable/settings.html and ``gunicorn/config.py``.
"""

from __future__ import annotations

from typing import Final

from forkserver.linux.common.records import NamedTuple


class Refusal(NamedTuple):
    """``way_out`` says what to do instead; ``takes_value`` tells that the next word belongs to the option."""

    way_out: str
    takes_value: bool = False


_FOREGROUND: Final = (
    "forkserver stays in the foreground; let systemd (--systemd-unit prints a unit) or a container run it"
)
_TITLES: Final = "processes are titled by the application's name; leave it out"
_LOGGING: Final = (
    "forkserver's own events do not pass through the logging module; choose them with --log-level, --error-log and "
    "--access-log, and the application's logging with --log-config"
)
_SYSLOG: Final = (
    "write --error-log syslog and --access-log syslog (syslog:FACILITY, :SOCKET, :udp:// or :tcp://ADDRESS:PORT)"
)
_FIGURES: Final = (
    "forkserver sends no metrics; Prometheus reads them at --admin-bind, or ask `forkserverctl status --json`"
)
_STRICT: Final = (
    "a request that two readers could read differently is always refused; leave it out, and correct what sends it"
)
_HTTP1: Final = "forkserver speaks HTTP/1.1; leave it out, and let a proxy in front speak HTTP/2"
_ASGI: Final = "forkserver serves WSGI applications; for ASGI take an ASGI server, such as uvicorn or hypercorn"
_DIRTY: Final = (
    "there are no workers for long jobs; put those into a task queue, or have a request call "
    'environ["forkserver.extend_deadline"] with the seconds it needs'
)
_HANDSHAKE: Final = "TLS handshakes occupy no thread in any case; leave it out"
_PASTE: Final = (
    'load the file in a module of your own (app = paste.deploy.loadapp("config:/path/to/production.ini")) and name '
    "that as MODULE:app"
)
_UWSGI: Final = "forkserver speaks HTTP, not the uwsgi protocol; leave it out, and have nginx use proxy_pass"

FLAGS: Final[dict[str, Refusal]] = {
    "--asgi-disconnect-grace-period": Refusal(_ASGI, True),
    "--asgi-lifespan": Refusal(_ASGI, True),
    "--asgi-loop": Refusal(_ASGI, True),
    "--casefold-http-method": Refusal(_STRICT),
    "--control-socket-mode": Refusal(
        "only root and the user that forkserver runs as may ask at the control socket; leave it out", True
    ),
    "--daemon": Refusal(_FOREGROUND),
    "-D": Refusal(_FOREGROUND),
    "--dirty-app": Refusal(_DIRTY, True),
    "--dirty-graceful-timeout": Refusal(_DIRTY, True),
    "--dirty-threads": Refusal(_DIRTY, True),
    "--dirty-timeout": Refusal(_DIRTY, True),
    "--dirty-workers": Refusal(_DIRTY, True),
    "--disable-redirect-access-to-syslog": Refusal("the access log goes where --access-log says; leave it out"),
    "--do-handshake-on-connect": Refusal(_HANDSHAKE),
    "--dogstatsd-tags": Refusal(_FIGURES, True),
    "--enable-backlog-metric": Refusal(f"{_FIGURES}; `ss -ltn` shows the queue of a listener"),
    "--enable-stdio-inheritance": Refusal("workers always have forkserver's standard streams; leave it out"),
    "-R": Refusal("workers always have forkserver's standard streams; leave it out"),
    "--forwarder-headers": Refusal(
        "for SCRIPT_NAME from a proxy, name script_name in --forwarded-fields; for other fields with _ in their names "
        "see --header-map",
        True,
    ),
    "--http-parser": Refusal("forkserver has one parser; leave it out", True),
    "--http-protocols": Refusal(_HTTP1, True),
    "--http2-cleartext": Refusal(_HTTP1, True),
    "--http2-initial-window-size": Refusal(_HTTP1, True),
    "--http2-max-concurrent-streams": Refusal(_HTTP1, True),
    "--http2-max-frame-size": Refusal(_HTTP1, True),
    "--http2-max-header-list-size": Refusal(_HTTP1, True),
    "--initgroups": Refusal("the groups of --user are always set; leave it out"),
    "--log-config-json": Refusal("write --log-config FILE, whose name ends with .json", True),
    "--log-syslog": Refusal(_SYSLOG),
    "--log-syslog-facility": Refusal(_SYSLOG, True),
    "--log-syslog-prefix": Refusal(_SYSLOG, True),
    "--log-syslog-to": Refusal(_SYSLOG, True),
    "--logger-class": Refusal(_LOGGING, True),
    "--name": Refusal(_TITLES, True),
    "-n": Refusal(_TITLES, True),
    "--no-control-socket": Refusal("write --control-socket off"),
    "--no-sendfile": Refusal(
        "files go by sendfile(2) where the kernel can send them so, and are read where not; leave it out"
    ),
    "--paste": Refusal(_PASTE, True),
    "--paste-global": Refusal(f"give loadapp its global_conf: {_PASTE}", True),
    "--paster": Refusal(_PASTE, True),
    "--permit-obsolete-folding": Refusal(_STRICT),
    "--permit-unconventional-http-method": Refusal("every method that RFC 9110 allows is accepted; leave it out"),
    "--permit-unconventional-http-version": Refusal(_STRICT),
    "--protocol": Refusal(_UWSGI, True),
    "--proxy-allow-from": Refusal("write --proxy-allow-ips", True),
    "--reload-engine": Refusal("the kernel tells of changes, or files are looked at; write --reload alone", True),
    "--reuse-port": Refusal("all workers accept from one listener, which a reload keeps; leave it out"),
    "--spew": Refusal("leave it out; `forkserverctl stacks WORKER` shows where the threads of a worker are"),
    "--ssl-version": Refusal(
        "TLS 1.2 and 1.3 are spoken and older versions never; leave it out, and choose cipher suites with --ciphers",
        True,
    ),
    "--statsd-host": Refusal(_FIGURES, True),
    "--statsd-prefix": Refusal(_FIGURES, True),
    "--strip-header-spaces": Refusal(_STRICT),
    "--suppress-ragged-eofs": Refusal(
        "a connection that ends without TLS's close_notify is never taken for a whole request; leave it out"
    ),
    "--tolerate-dangerous-framing": Refusal(_STRICT),
    "--uwsgi-allow-from": Refusal(_UWSGI, True),
    "--websocket-max-message-size": Refusal(_ASGI, True),
    "--worker-tmp-dir": Refusal("workers write no heartbeat file; leave it out", True),
}

# Settings of gunicorn's Python file under another name than the flag's, as a key of our file.
_RENAMED: Final = {
    "reload": "reload_on_change",
    "accesslog": "access_log",
    "control_socket_disable": "--no-control-socket",
    "dirty_apps": "--dirty-app",
    "errorlog": "error_log",
    "keepalive": "keep_alive",
    "logconfig": "log_config",
    "logconfig_dict": "log_config",
    "logconfig_json": "--log-config-json",
    "loglevel": "log_level",
    "paste": "--paste",
    "preload_app": "preload",
    "proc_name": "--name",
    "raw_env": "env",
    "raw_paste_global_conf": "--paste-global",
    "sendfile": "--no-sendfile",
    "syslog": "--log-syslog",
    "syslog_addr": "--log-syslog-to",
    "syslog_facility": "--log-syslog-facility",
    "syslog_prefix": "--log-syslog-prefix",
    "uwsgi_allow_ips": "--uwsgi-allow-from",
    "wsgi_app": "app",
}
# Settings without a flag.
_WITHOUT_FLAG: Final = {
    "check_config": "give --check-config on the command line",
    "config": "name the file with --config on the command line",
    "default_proc_name": _TITLES,
    "print_config": "give --print-config on the command line",
    "secure_scheme_headers": "X-Forwarded-Proto and Forwarded are read, where forwarded_fields names them",
    "ssl_context": "the context is made of certfile, keyfile, ca_certs, cert_reqs and ciphers",
    "tmp_upload_dir": "write spool_dir",
}
_MODULE: Final = "in the module that hooks names"
_NO_MASTER: Final = "no code of the application runs in the master"
_MIDDLEWARE: Final = "write a WSGI middleware around the application; access_log has a line for each request"
# Functions of a gunicorn.conf.py.
HOOKS: Final = {
    "on_starting": f"{_NO_MASTER}; ExecStartPre= of the unit, or generation_loaded(generation) {_MODULE}",
    "on_reload": f"{_NO_MASTER}; write generation_loaded(generation) {_MODULE}",
    "when_ready": f"systemd is told when all workers are ready; write worker_ready(worker) {_MODULE}",
    "pre_fork": f"write generation_loaded(generation) {_MODULE}, which is called after the import",
    "post_fork": f"write post_fork(worker) {_MODULE}",
    "post_worker_init": f"write worker_ready(worker) {_MODULE}",
    "worker_int": f"write worker_exit(worker) {_MODULE}",
    "worker_abort": f"write request_timeout(worker, request) {_MODULE}",
    "pre_exec": f"{_NO_MASTER}; an upgrade in place needs none",
    "pre_request": _MIDDLEWARE,
    "post_request": _MIDDLEWARE,
    "child_exit": f"{_NO_MASTER}, and the error log names each death; write worker_exit(worker) {_MODULE}",
    "worker_exit": f"write worker_exit(worker) {_MODULE}",
    "nworkers_changed": f"{_NO_MASTER}; forkserverctl status and the metrics tell the number of workers",
    "on_exit": f"{_NO_MASTER}; ExecStopPost= of the unit, or worker_exit(worker) {_MODULE}",
    "on_dirty_starting": _DIRTY,
    "dirty_post_fork": _DIRTY,
    "dirty_worker_init": _DIRTY,
    "dirty_worker_exit": _DIRTY,
}


def of_flag(flag: str) -> str | None:
    """What to do instead of giving ``flag``, or None where gunicorn has no such option either."""
    found = FLAGS.get(flag)
    return found.way_out if found else None


def of_key(key: str) -> str | None:
    """What to do instead of the setting ``key`` of a gunicorn.conf.py in a file of ours; None where it is no such."""
    if key in HOOKS:
        return HOOKS[key]
    if key in _WITHOUT_FLAG:
        return _WITHOUT_FLAG[key]
    meant = _RENAMED.get(key, f"--{key.replace('_', '-')}")
    return of_flag(meant) if meant.startswith("--") else f"write {meant}"
