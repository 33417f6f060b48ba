"""waitress' settings ("adjustments"), and the command line of waitress-serve.

Every adjustment of waitress 3.0 has a row; tests go through waitress' own list.

Source: https://docs.pylonsproject.org/projects/waitress/en/stable/arguments.html and ``waitress/adjustments.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from forkserver.cli.moving import converters, flags
from forkserver.cli.moving.flags import Option
from forkserver.cli.moving.rows import Default, Found, LeftOutError, Server, missing, needless, table, to
from forkserver.config.settings import FORWARDED_FIELDS

_BUFFERS: Final = "what is long goes to the disk, for all requests of a worker together: body_memory and spool_dir"
_LOOP: Final = "the event loop needs no tuning"
_FAMILIES: Final = "name the address itself: 0.0.0.0:8080 is IPv4, [::]:8080 IPv6, :8080 both"
SWITCHES: Final = (
    "asyncore_use_poll", "clear_untrusted_proxy_headers", "expose_tracebacks", "ipv4", "ipv6", "log_socket_errors",
    "log_untrusted_proxy_headers",
)  # fmt: skip


def _fields(value: Any) -> list[str]:
    named = [name.lower().replace("_", "-") for item in converters.at_commas(value) for name in item.split()]
    known = [name for name in named if name in FORWARDED_FIELDS]
    if not known:
        raise LeftOutError("none of these is read; X-Forwarded-For and X-Forwarded-Proto are, by default")
    return known


def _prefix(value: Any) -> str:
    path = "/" + str(value).strip("/")
    if path == "/":
        raise LeftOutError("it is empty")
    return path


def _listen(value: Any) -> list[str]:
    words = [word for item in converters.listed(value) for word in str(item).split()]
    return [word.replace("*:", ":") if word.startswith("*:") else word for word in converters.addresses(8080)(words)]


_ROWS: Final = (
    to("app"),
    to("listen", "bind", convert=_listen),
    *missing(_FAMILIES, "ipv4", "ipv6"),
    to("unix_socket", "bind", convert=converters.unix_or_tcp),
    to("unix_socket_perms", "socket_mode", convert=converters.mode),
    to("threads"),
    to("backlog"),
    to("connection_limit", "worker_connections"),
    to("channel_timeout", "keep_alive", text="of idle connections; slow requests and answers have limits of their own"),
    to("trusted_proxy", "forwarded_allow_ips", convert=converters.at_commas),
    to("trusted_proxy_headers", "forwarded_fields", convert=_fields),
    to("url_prefix", "root_path", convert=_prefix),
    to("ident", "server_header"),
    to("max_request_header_size", "limit_request_head"),
    to("max_request_body_size", "max_body"),
    *missing("name each proxy in forwarded_allow_ips: the client is the last address that is none of them",
             "trusted_proxy_count"),
    *missing("the scheme is https where TLS is spoken, or where a trusted proxy says so in X-Forwarded-Proto",
             "url_scheme"),
    *missing("SERVER_NAME is the address of the listener; applications use the field Host", "server_name"),
    *missing("the traceback goes to the error log and never to a client; a debugger in the application shows it",
             "expose_tracebacks"),
    *missing("bind fd://N listens on an inherited descriptor (systemd's sockets are found without it)", "sockets"),
    *missing("there is no waitress.client_disconnected; a client that has left is noticed when the answer is sent",
             "channel_request_lookahead"),
    *needless("the log names each untrusted sender once", "log_untrusted_proxy_headers"),
    *needless("such fields are always dropped", "clear_untrusted_proxy_headers"),
    *needless(_BUFFERS, "outbuf_overflow", "outbuf_high_watermark", "inbuf_overflow"),
    *needless(_LOOP, "recv_bytes", "send_bytes", "cleanup_interval", "asyncore_loop_timeout", "asyncore_use_poll"),
    *needless("a client that leaves early is no error", "log_socket_errors"),
    *needless("it is part of listen", "host", "port"),
    *needless("a factory is called where its name ends with ()", "call"),
)  # fmt: skip


def compose(found: list[Found]) -> list[Found]:
    """``host`` and ``port`` as one address, and the application's factory with its call."""
    values = {each.name: each.value for each in found}
    called = converters.truth(values.get("call", False))
    made = []
    for each in found:
        if each.name == "app" and called and not str(each.value).endswith(")"):
            each = each._replace(value=f"{each.value}()")
        if each.name not in ("host", "port", "call"):
            made.append(each)
    if "host" in values or "port" in values:
        host, port = values.get("host", "0.0.0.0"), values.get("port", 8080)
        made.insert(0, Found("listen", f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"))
    return made


SERVER: Final = Server(
    "waitress",
    "3.0",
    "docs/moving/waitress.md",
    table(_ROWS),
    (
        Default(("listen", "unix_socket", "sockets"), "bind", ["0.0.0.0:8080"], "waitress listens there by default"),
        Default(("threads",), "threads", 4, "waitress' default; forkserver's is 1"),
        Default((), "timeout", 0, "waitress sets no limit to a call; without this line it is 30 seconds"),
        Default(("max_request_body_size",), "max_body", "1GiB", "waitress' default; forkserver's is 100 MiB"),
    ),
    (
        "waitress is one process: workers = 2 or more use more processors, and do not share what is in memory",
        "the fields of a proxy are believed from this machine by default; waitress believes none",
    ),
    compose,
)


def options() -> dict[str, Option]:
    """Every flag of waitress-serve's command line."""
    made = {"--call": Option("call", 0)}
    for name in SERVER.rows:
        if name in ("app", "call"):
            continue
        flag = name.replace("_", "-")
        made[f"--{flag}"] = Option(name, 0 if name in SWITCHES else 1)
        if name in SWITCHES:
            made[f"--no-{flag}"] = Option(name, 0, False)
    return made


def command_line(words: Sequence[str]) -> list[Found]:
    """The settings in ``words``, the application among them. Raises ConfigError."""
    found, others = flags.read(words, options())
    listens = [each.value for each in found if each.name == "listen"]
    rest = [each for each in found if each.name != "listen"]
    return [
        *(Found("app", word) for word in others[-1:]),
        *([Found("listen", listens)] if listens else []),
        *rest,
    ]
