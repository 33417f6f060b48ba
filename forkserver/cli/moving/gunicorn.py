"""gunicorn's settings, and its command line.

Every setting of gunicorn 27 has a row, under its name in a gunicorn.conf.py; tests go through gunicorn's own list. What
a row of a setting that forkserver does not have says is the text by which a flag of that name is refused
(config/gunicorn_flags.py).

Source: https://docs.gunicorn.org/en/stable/settings.html and ``gunicorn/config.py``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from forkserver.cli.moving import converters, flags
from forkserver.cli.moving.flags import Option
from forkserver.cli.moving.rows import Counterpart, Fate, Found, LeftOutError, Server, needless, table, to
from forkserver.config import gunicorn_flags, sources
from forkserver.config.values.ip_allowlist import UNIX
from forkserver.errors import ConfigError

FILE: Final = "gunicorn.conf.py"  # that gunicorn reads where no other is named
_ASGI_WORKERS: Final = ("uvicorn", "asgi", "aiohttp")
_NEEDLESS: Final = (
    "check_config", "config", "control_socket_mode", "daemon", "default_proc_name",
    "disable_redirect_access_to_syslog", "do_handshake_on_connect", "enable_stdio_inheritance", "http_parser",
    "initgroups", "permit_unconventional_http_method", "print_config", "proc_name", "reload_engine", "reuse_port",
    "sendfile", "ssl_version", "suppress_ragged_eofs", "worker_tmp_dir",
)  # fmt: skip
_MISSING: Final = (
    "asgi_disconnect_grace_period", "asgi_lifespan", "asgi_loop", "casefold_http_method", "dirty_apps",
    "dirty_graceful_timeout", "dirty_post_fork", "dirty_threads", "dirty_timeout", "dirty_worker_exit",
    "dirty_worker_init", "dirty_workers", "dogstatsd_tags", "enable_backlog_metric", "forwarder_headers",
    "http2_cleartext", "http2_initial_window_size", "http2_max_concurrent_streams", "http2_max_frame_size",
    "http2_max_header_list_size", "http_protocols", "logger_class", "on_dirty_starting", "paste",
    "permit_obsolete_folding", "permit_unconventional_http_version", "protocol", "raw_paste_global_conf",
    "secure_scheme_headers", "spew", "ssl_context", "statsd_host", "statsd_prefix", "strip_header_spaces",
    "tolerate_dangerous_framing", "uwsgi_allow_ips", "websocket_max_message_size", "on_starting", "on_reload",
    "when_ready", "pre_fork", "post_fork", "post_worker_init", "worker_int", "worker_abort", "pre_exec",
    "pre_request", "post_request", "child_exit", "worker_exit", "nworkers_changed", "on_exit",
)  # fmt: skip


def _worker_class(value: Any) -> str:
    if not isinstance(value, str):
        raise LeftOutError(
            "a class of the program's own; forkserver has one kind of worker, and threads gives it threads"
        )
    name = value.rpartition(".")[2].lower() if value.startswith("gunicorn.workers.") else value.lower()
    if any(word in name for word in _ASGI_WORKERS):
        raise LeftOutError("forkserver serves WSGI applications; for ASGI take an ASGI server, such as uvicorn")
    if name.startswith(("gevent", "eventlet", "ggevent", "geventlet", "tornado")):
        raise LeftOutError(
            "there are no green threads; write threads = N for as many requests as a worker is to run at once "
            "(idle and slow clients occupy none)"
        )
    return {"syncworker": "sync", "threadworker": "gthread"}.get(name, value)


def _umask(value: Any) -> str:
    text = str(value).strip()
    if isinstance(value, int) or not re.fullmatch("0[0-7]+", text):
        try:
            return f"{int(text, 0):04o}"  # as gunicorn reads it: a number without a 0 before it is decimal
        except ValueError:
            raise LeftOutError(f"{text!r} is no mode; write such as 022") from None
    return f"{int(text, 8):04o}"


def _believed(value: Any) -> list[str]:
    peers = converters.at_commas(value)
    return peers if UNIX in peers or not peers else [*peers, UNIX]


def _proxy_protocol(value: Any) -> str:
    return "on" if value in (True, "auto") else "off" if value is False else str(value)


def _header_map(value: Any) -> str:
    if str(value).lower() == "dangerous":
        raise LeftOutError(
            "a field with _ in its name is dropped or its request refused; rename the field in the proxy"
        )
    return str(value)


def _certificates(value: Any) -> list[Any]:
    return [] if value is None else converters.listed(value)


def _log_dictionary(value: Any) -> str:
    if not value:
        raise LeftOutError("it is empty")
    raise LeftOutError("write the dictionary to a file as JSON, and name that: log_config = 'logging.json'")


def _optional(value: Any) -> Any:
    if value is None or value == "":
        raise LeftOutError("it is empty, which is so here without a setting")
    return value


_TRUSTED: Final = "clients of Unix sockets are believed as gunicorn believes them"
_ROWS: Final = (
    to("wsgi_app", "app"),
    to("bind", convert=converters.addresses(8000)),
    to("backlog"),
    to("workers"),
    to("worker_class", convert=_worker_class),
    to("threads"),
    to("worker_connections"),
    to("max_requests"),
    to("max_requests_jitter"),
    to("timeout", text="the limit of each call, in workers with threads too; gunicorn's is of the whole worker"),
    to("graceful_timeout"),
    to(
        "keepalive",
        "keep_alive",
        convert=converters.number_or_nothing("connections are kept 75 seconds; write keep_alive = 1 for the least"),
    ),
    to(
        "limit_request_line", convert=converters.number_or_nothing("there is always a limit; the default is 8190 bytes")
    ),
    to("limit_request_fields"),
    to(
        "limit_request_field_size",
        convert=converters.number_or_nothing("there is always a limit; the default is 8190 bytes"),
    ),
    to("reload", "reload_on_change", convert=converters.only_where_on("on")),
    to("reload_extra_files", convert=converters.listed),
    to("preload_app", "preload", convert=converters.switch),
    to("chdir"),
    to("raw_env", "env", convert=converters.listed),
    to("pidfile", convert=_optional),
    to("user", convert=_optional),
    to("group", convert=_optional),
    to("umask", convert=_umask),
    to("tmp_upload_dir", "spool_dir", convert=_optional),
    to("forwarded_allow_ips", text=_TRUSTED, convert=_believed),
    to("accesslog", "access_log", convert=_optional),
    to("access_log_format"),
    to("errorlog", "error_log", convert=_optional),
    to("loglevel", "log_level", convert=lambda value: {"warn": "warning"}.get(str(value).lower(), value)),
    to("capture_output", convert=converters.switch),
    to(
        "logconfig",
        "log_config",
        text="for the application's loggers; those called gunicorn.* get no events here",
        convert=_optional,
    ),
    to("logconfig_dict", "log_config", convert=_log_dictionary),
    to("logconfig_json", "log_config", text="its name must end with .json", convert=_optional),
    to("syslog", "error_log", "access_log", text="gunicorn writes to files besides", convert=_optional),
    *needless("it is in syslog, where that is on", "syslog_addr", "syslog_facility"),
    *needless("each line names forkserver, and says of which process it is", "syslog_prefix"),
    to("pythonpath", convert=_optional),
    to("proxy_protocol", convert=_proxy_protocol),
    to("proxy_allow_ips", convert=_believed),
    to("keyfile", convert=_certificates),
    to("certfile", convert=_certificates),
    to("cert_reqs", convert=converters.whole),
    to("ca_certs", convert=_optional),
    to("ciphers", convert=_optional),
    to("header_map", convert=_header_map),
    to("root_path", convert=_optional),
    to("control_socket", convert=_optional),
    to("control_socket_disable", "control_socket", convert=converters.only_where_on("off")),
)


def _compose(found: list[Found]) -> list[Found]:
    """What several settings say of syslog, as one target of our logs."""
    values = {each.name: each.value for each in found}
    return [each._replace(value=_syslog(values)) if each.name == "syslog" and each.value else each for each in found]


def _syslog(values: Mapping[str, Any]) -> Any:
    """The target of logs that go to syslog, or why it is none."""
    address = str(values.get("syslog_addr") or "udp://localhost:514").partition("#")[0]
    if address.startswith("tcp://"):
        return LeftOutError("syslog by TCP is not spoken; write syslog, and have the daemon of this machine pass it on")
    address = address.removeprefix("unix://").replace("udp://localhost", "udp://127.0.0.1")
    return f"syslog:{values.get('syslog_facility') or 'user'}:{address}"


def _way_out(name: str) -> str:
    text = gunicorn_flags.of_key(name)
    assert text, name
    return text.removeprefix("leave it out; ").replace("; leave it out, and ", "; ").removesuffix("; leave it out")


SERVER: Final = Server(
    "gunicorn",
    "27.0",
    "docs/moving/gunicorn.md",
    table(
        (
            *_ROWS,
            *(Counterpart(name, Fate.NOT_NEEDED, (), _way_out(name)) for name in _NEEDLESS),
            *(Counterpart(name, Fate.NOT_HAD, (), _way_out(name)) for name in _MISSING),
        )
    ),
    notes=(
        "connections are kept 75 seconds (gunicorn: 2), and idle ones occupy no thread; see keep_alive",
        "bodies longer than max_body, 100 MiB, are refused; gunicorn sets no limit",
        "files have the permissions that the inherited umask leaves (gunicorn: 0), Unix sockets 0660 (gunicorn: 0777)",
    ),
    compose=_compose,
    enters_first=True,
)

# Flags of another name than the setting's, and what a flag without a value stands for.
_SPELLINGS: Final = {
    "accesslog": ("--access-logfile",), "access_log_format": ("--access-logformat",), "bind": ("-b", "--bind"),
    "config": ("-c", "--config"), "control_socket_disable": ("--no-control-socket",), "daemon": ("-D", "--daemon"),
    "dirty_apps": ("--dirty-app",), "enable_stdio_inheritance": ("-R", "--enable-stdio-inheritance"),
    "errorlog": ("--error-logfile", "--log-file"), "group": ("-g", "--group"), "keepalive": ("--keep-alive",),
    "limit_request_field_size": ("--limit-request-field_size", "--limit-request-field-size"),
    "logconfig": ("--log-config",), "logconfig_json": ("--log-config-json",), "loglevel": ("--log-level",),
    "paste": ("--paste", "--paster"), "pidfile": ("-p", "--pid"), "preload_app": ("--preload",),
    "proc_name": ("-n", "--name"), "proxy_allow_ips": ("--proxy-allow-from",), "raw_env": ("-e", "--env"),
    "raw_paste_global_conf": ("--paste-global",), "reload_extra_files": ("--reload-extra-file",),
    "sendfile": ("--no-sendfile",), "syslog": ("--log-syslog",), "syslog_addr": ("--log-syslog-to",),
    "syslog_facility": ("--log-syslog-facility",), "syslog_prefix": ("--log-syslog-prefix",),
    "timeout": ("-t", "--timeout"),
    "umask": ("-m", "--umask"), "user": ("-u", "--user"), "uwsgi_allow_ips": ("--uwsgi-allow-from",),
    "worker_class": ("-k", "--worker-class"), "workers": ("-w", "--workers"),
}  # fmt: skip
_SWITCHES: Final = (
    "capture_output", "casefold_http_method", "check_config", "control_socket_disable", "daemon",
    "disable_redirect_access_to_syslog", "do_handshake_on_connect", "enable_backlog_metric", "enable_stdio_inheritance",
    "initgroups", "permit_obsolete_folding", "permit_unconventional_http_method", "permit_unconventional_http_version",
    "preload_app", "print_config", "reload", "reuse_port", "sendfile", "spew", "strip_header_spaces",
    "suppress_ragged_eofs", "syslog", "tolerate_dangerous_framing",
)  # fmt: skip
WITHOUT_FLAG: Final = (
    "default_proc_name", "logconfig_dict", "secure_scheme_headers", "ssl_context", "tmp_upload_dir", "wsgi_app",
)  # fmt: skip
HOOKS: Final = frozenset(gunicorn_flags.HOOKS)
_REPEATED: Final = ("bind", "raw_env", "dirty_apps", "raw_paste_global_conf", "reload_extra_files")


def options() -> dict[str, Option]:
    """Every flag of gunicorn's command line."""
    made = {}
    for name in SERVER.rows:
        if name in HOOKS or name in WITHOUT_FLAG:
            continue
        option = Option(name, 0 if name in _SWITCHES else 1)
        for flag in _SPELLINGS.get(name, (f"--{name.replace('_', '-')}",)):
            made[flag] = option
    return made


def command_line(words: Sequence[str], place: str = "") -> tuple[list[Found], str | None, str | None]:
    """The settings in ``words``, the application, and the file that ``--config`` names. Raises ConfigError."""
    words = [f"{word}=auto" if _bare_proxy_protocol(words, at) else word for at, word in enumerate(words)]
    found, others = flags.read(words, options(), shortened=True)
    config = next((str(each.value) for each in reversed(found) if each.name == "config"), None)
    found = [each._replace(place=place) for each in _joined(found) if each.name != "config"]
    return found, (others[-1] if others else None), config


def variable(environ: Mapping[str, str]) -> list[Found]:
    """The settings in GUNICORN_CMD_ARGS, which forkserver reads as well. Raises ConfigError."""
    try:
        words = shlex.split(environ.get(sources.GUNICORN, ""))
    except ValueError as error:
        raise ConfigError(f"{sources.GUNICORN}: {str(error).lower()}; close every quote") from None
    return command_line(words, sources.GUNICORN)[0]


def _bare_proxy_protocol(words: Sequence[str], at: int) -> bool:
    """Whether the word is --proxy-protocol without a mode behind it, the only flag whose value is optional."""
    following = words[at + 1] if at + 1 < len(words) else "-"
    return words[at] == "--proxy-protocol" and following not in ("off", "v1", "v2", "auto")


def _joined(found: list[Found]) -> list[Found]:
    """``found``, where what is written several times and adds up is one."""
    made: dict[str, Found] = {}
    for each in found:
        if each.name in _REPEATED and each.name in made:
            made[each.name] = Found(each.name, [*converters.listed(made[each.name].value), each.value])
        else:
            made[each.name] = each
    return list(made.values())
