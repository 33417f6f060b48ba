"""Words in settings: free text, paths, one of several words, and names of modules, classes, users and groups.

Source: RFC 9112, section 3.2.1 (origin-form); unix(7).
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Callable
from typing import Final

from forkserver.config.values import bind_address
from forkserver.config.values.spelling import nearest
from forkserver.config.values.value_type import RefusedError, ValueType, optional_text, plain_text, quoted
from forkserver.linux.sockets.socket_file import SUN_PATH_BYTES
from forkserver.linux.sockets.tcp_socket import EVERY_INTERFACE

_SERVERS_FIELDS: Final = (
    "connection", "content-length", "content-type", "date", "keep-alive", "proxy-connection", "server", "set-cookie",
    "te", "trailer", "transfer-encoding", "upgrade",
)  # fmt: skip
_CERT_REQS: Final = ("none", "optional", "required")


def _field_value(raw: object) -> str:
    text = plain_text(raw)
    if not (text.isascii() and text.isprintable()):
        raise RefusedError("not a header field's value; use visible ASCII characters and blanks")
    return text


def _field_name(raw: object) -> str | None:
    name = optional_text(raw)
    if name is None:
        return None
    if not re.fullmatch(r"[0-9A-Za-z!#$%&'*+.^_`|~-]{1,64}", name):
        raise RefusedError("not the name of a header field; write such as X-Request-Id")
    if name.lower() in _SERVERS_FIELDS:
        raise RefusedError("a field that means something else in every answer; write such as X-Request-Id")
    return name


def _auto_or_path(raw: object) -> str | None:
    text = optional_text(raw)
    if text in (None, "auto", "off"):
        return text
    if len(os.fsencode(os.path.abspath(text))) > SUN_PATH_BYTES:
        raise RefusedError(f"path longer than {SUN_PATH_BYTES} bytes, the kernel's limit; use a shorter one")
    return text


def _admin_address(raw: object) -> str | None:
    if isinstance(raw, int) and not isinstance(raw, bool):
        raw = str(raw)
    address = optional_text(raw)
    if address is None or address == "off":
        return None
    try:
        address = bind_address.canonical(address)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    if address.startswith("fd://"):
        raise RefusedError("not a descriptor: forkserver binds this one itself; write such as 127.0.0.1:9100")
    host, _, port = address.rpartition(":")
    if host == EVERY_INTERFACE:
        raise RefusedError(
            f"that is every interface, and no client is asked for a password; write 127.0.0.1:{port}, or "
            f"0.0.0.0:{port} if that is meant"
        )
    return address


def one_of(raw: object, names: tuple[str, ...]) -> str:
    """The one of ``names`` that was written, in any case. Raises RefusedError."""
    if isinstance(raw, bool) and "on" in names:
        return "on" if raw else "off"
    word = plain_text(raw).lower()
    if word not in names:
        near = nearest(word, list(names))
        way_out = f"did you mean {near}?" if near else "choose one of them"
        raise RefusedError(f"not one of {', '.join(names)}; {way_out}")
    return word


def choice(*names: str) -> ValueType[str]:
    """One of ``names``."""
    return ValueType("choice", lambda raw: one_of(raw, names), quoted, names)


def _client_certificates(raw: object) -> str:
    if isinstance(raw, int) and not isinstance(raw, bool):
        raw = str(raw)
    # gunicorn writes the numbers of the ssl module.
    return _CERT_REQS[int(raw)] if raw in ("0", "1", "2") else one_of(raw, _CERT_REQS)


def _worker_class(raw: object) -> str:
    word = plain_text(raw)
    if word not in ("sync", "gthread"):
        raise RefusedError(
            "forkserver has one kind of worker: it keeps slow and idle clients off the app's thread by itself; "
            "leave it out (sync and gthread are accepted, --threads gives threads)"
        )
    return word


def _class_name(raw: object) -> str:
    name = plain_text(raw)
    if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name):
        module, _, last = name.rpartition(".")
        meant = f"{module}:{last}" if module and ":" not in name else "such as mypackage:MyClass"
        raise RefusedError(f"not MODULE:CLASS; write {meant}")
    return name


def _module(raw: object) -> str | None:
    name = optional_text(raw)
    if name is not None and not all(part.isidentifier() for part in name.split(".")):
        meant = name.partition(":")[0].removesuffix(".py").replace("/", ".")
        proper = all(part.isidentifier() for part in meant.split("."))
        raise RefusedError(f"not the name of a module; write {meant if proper else 'such as myapp.hooks'}")
    return name


def _target(raw: object) -> str | None:
    """A request target in origin-form (RFC 9112 section 3.2.1)."""
    target = optional_text(raw)
    if target is not None and not re.fullmatch(r"/[\x21\x22\x24-\x7e]*", target):
        raise RefusedError("not a path of visible ASCII without #; write such as /healthz, and %20 for a blank")
    return target


def _root_path(raw: object) -> str | None:
    path = _target(raw)
    if path is None or path.rstrip("/") == "":
        return None
    if "?" in path or "%" in path or path.endswith("/"):
        raise RefusedError("not the path of an application; write it decoded and without a / at its end, such as /shop")
    return path


def _account(raw: object, find: Callable[[str], object], what: str, command: str) -> str | None:
    name = optional_text(str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else raw)
    if name is None or re.fullmatch(r"[0-9]{1,10}", name):
        return name
    try:
        find(name)
    except KeyError:
        raise RefusedError(f"no such {what} here; name another, or make it with {command} {name}") from None
    return name


text: Final = ValueType("text", optional_text, quoted)
field_value: Final = ValueType("text", _field_value, quoted)
field_name: Final = ValueType("header field", _field_name, quoted)
path: Final = ValueType("path", optional_text, quoted)
auto_or_path: Final = ValueType("auto, off or path", _auto_or_path, quoted)
admin_address: Final = ValueType("address or off", _admin_address, lambda value: quoted(value or "off"))
module: Final = ValueType("module", _module, quoted)
target: Final = ValueType("path of a URL", _target, quoted)
root_path: Final = ValueType("path of a URL", _root_path, quoted)
class_name: Final = ValueType("MODULE:CLASS", _class_name, quoted)
client_certificates: Final = ValueType("choice", _client_certificates, quoted, _CERT_REQS)
worker_class: Final = ValueType("sync or gthread", _worker_class, quoted, ("sync", "gthread"))
user: Final = ValueType("user", lambda raw: _account(raw, pwd.getpwnam, "user", "useradd --system"), quoted)
group: Final = ValueType("group", lambda raw: _account(raw, grp.getgrnam, "group", "groupadd --system"), quoted)
