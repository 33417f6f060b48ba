"""The client's side of the control socket: which server is meant, and one question to it.

Where no socket is named, the folders are looked through in which masters of this user, and units of systemd, have
theirs. One JSON object goes to the socket and one comes back (master/control/).
"""

from __future__ import annotations

import json
import math
import os
import socket
import struct
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from forkserver.config import runtime_folders
from forkserver.linux.common.escaping import printable
from forkserver.linux.syscalls import SCM_MAX_FD

VARIABLE: Final = "FORKSERVER_CONTROL_SOCKET"
FILE: Final = "control.sock"
SERVICES: Final = "/run/forkserver"  # where units have their runtime directories: docs/systemd.md
_LOOK_SECONDS: Final = 2.0  # for a server that was found to say which it is
_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_DEEPEST: Final = 32  # lists and objects within each other
_MOST_DIGITS: Final = 20  # of a whole number: what 64 bits have
_MOST_BYTES: Final = 16 * 1024 * 1024  # of an answer: twice what a master sends


class UnreachableError(Exception):
    """No server answers at the socket; the text says why, and the way out."""


class AmbiguousError(Exception):
    """Several servers may be meant; the text lists them."""


def find_socket(named: str | None, environ: Mapping[str, str]) -> str:
    """The path of the control socket: as named, by variable, in systemd's runtime directory, or the one that answers.

    Raises UnreachableError and AmbiguousError.
    """
    path = named or environ.get(VARIABLE, "")
    if path == "off":
        raise UnreachableError(f"{VARIABLE} is off: there is no control socket; name one with --socket PATH")
    if path and path != "auto":
        return path
    directory = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return os.path.join(directory, FILE) if directory else _only_one(environ)


def _only_one(environ: Mapping[str, str]) -> str:
    """The socket of the one server that runs and may be asked. Raises UnreachableError and AmbiguousError."""
    uid = os.geteuid()
    folders = runtime_folders.folders(environ, uid)
    trusted = [folder for folder in folders if runtime_folders.trusted(folder, uid)]
    found = [path for folder in trusted for _, path in runtime_folders.sockets(folder) if _listens(path, (0, uid))]
    found += [path for path in _of_services() if _listens(path, None)]
    if len(found) == 1:
        return found[0]
    if found:
        lines = "\n".join(f"  {_introduced(path)}  --socket {path}" for path in found)
        raise AmbiguousError(f"{len(found)} servers run; name one with --socket PATH:\n{lines}")
    places = ", ".join([*folders, SERVICES])
    raise UnreachableError(
        f"no server that this user may ask runs (looked in {places}); start it, ask as its user, or name its socket "
        f"with --socket PATH or {VARIABLE} (the service's setting is control_socket)"
    )


def _of_services() -> list[str]:
    """Sockets in the runtime directories of units, which systemd makes."""
    try:
        names = sorted(os.listdir(SERVICES))[: runtime_folders.MOST_SOCKETS]
    except OSError:
        return []
    paths = [os.path.join(SERVICES, FILE), *(os.path.join(SERVICES, name, FILE) for name in names)]
    return [path for path in paths if os.path.exists(path)]


def _listens(path: str, users: tuple[int, ...] | None) -> bool:
    """Whether we may connect to ``path``, and a process of one of ``users`` (None for any) listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(_LOOK_SECONDS)
        try:
            link.connect(path)
            data = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except BlockingIOError:
            return True  # its queue is full, so it lives: connect(2)
        except OSError:
            return False
    return users is None or _CREDENTIALS.unpack(data)[1] in users


def _introduced(path: str) -> str:
    """Which server answers at ``path``: its pid, application and addresses."""
    try:
        status = ask(path, {"command": "status"}, _LOOK_SECONDS)
        told = f"pid {status['master']['pid']}  {status['app']}  {', '.join(status['listeners'])}"
    except (UnreachableError, TimeoutError, KeyError, TypeError):
        return "(does not answer)"
    return printable(told)


def ask(
    path: str, command: Mapping[str, Any], seconds: float | None, descriptors: list[int] | None = None
) -> dict[str, Any]:
    """The answer to ``command``, within ``seconds``; what comes with it is added to ``descriptors``, where they are.

    Raises UnreachableError and TimeoutError.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(seconds)
        try:
            link.connect(path)
            link.sendall(json.dumps(command).encode() + b"\n")
            came = _answer(link, seconds, descriptors)
        except TimeoutError:
            raise
        except OSError as error:
            raise UnreachableError(_unreachable(path, error)) from None
    if not came.endswith(b"\n") and len(came) <= _MOST_BYTES:
        raise UnreachableError(f"{path}: it has ended without a whole answer; its log may say why")
    return _object(came, path)


def _object(came: bytes, path: str) -> dict[str, Any]:
    """The JSON object that has come from ``path``. Raises UnreachableError where no master can have sent it."""
    if len(came) > _MOST_BYTES:
        raise UnreachableError(_foreign(path))
    try:
        reply = json.loads(came, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise UnreachableError(_foreign(path)) from None
    if not isinstance(reply, dict) or _is_deep(reply):
        raise UnreachableError(_foreign(path))
    return reply


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{text:.50}: too many digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.50}: not finite")
    return value


def _is_deep(reply: dict[str, Any]) -> bool:
    """Whether ``reply`` is nested more than ``_DEEPEST`` times: what shows values goes down in them by calls."""
    level: list[Any] = [reply]
    for _ in range(_DEEPEST):
        level = [
            inner
            for each in level
            if isinstance(each, list | dict)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return any(isinstance(each, list | dict) for each in level)


def _answer(link: socket.socket, seconds: float | None, descriptors: list[int] | None = None) -> bytes:
    """What comes within ``seconds``, to the end of a line. The service's user, who may listen there, can send anything.

    Raises OSError and TimeoutError.
    """
    until = math.inf if seconds is None else monotonic() + seconds
    came = bytearray()
    while not came.endswith(b"\n") and len(came) <= _MOST_BYTES and (data := _receive(link, descriptors)):
        came += data
        if monotonic() > until:
            raise TimeoutError
    return bytes(came)


def _receive(link: socket.socket, descriptors: list[int] | None) -> bytes:
    if descriptors is None:
        return link.recv(65536)
    data, numbers, _, _ = socket.recv_fds(link, 65536, SCM_MAX_FD)
    descriptors += numbers
    return data


def _foreign(path: str) -> str:
    return f"{path}: what answers there is not forkserver; name another with --socket PATH"


def _unreachable(path: str, error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        why = "no server listens there; start the service"
    elif isinstance(error, PermissionError):
        why = "permission denied; only root and the user that forkserver runs as may ask"
    elif isinstance(error, BlockingIOError):
        why = "its queue is full; ask again in a moment"
    elif isinstance(error, FileNotFoundError):
        why = f"no such socket; name it with --socket PATH or {VARIABLE} (the service's setting is control_socket)"
    else:
        why = f"{error.strerror or error}; name another with --socket PATH"
    return f"{path}: {why}"
