"""The program ``forkserverctl``: asks a running master on its control socket, and shows the answer.

One JSON object goes to the socket and one comes back (master/control/). Each mistake is told in one line, and what a
client of the service has sent reaches the terminal without control characters.

Exit status: 0 it was done; 1 the service refuses, or its reload failed; 2 a mistake in the command line; 3 no server
answers at the socket; 4 no answer in time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import socket
import struct
import sys
import textwrap
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final

from forkserver.config import runtime_folders
from forkserver.linux.common.escaping import printable
from forkserver.linux.files import standard_streams

VARIABLE: Final = "FORKSERVER_CONTROL_SOCKET"
FILE: Final = "control.sock"
SERVICES: Final = "/run/forkserver"  # where units have their runtime directories: docs/systemd.md
DONE, REFUSED, MISTAKE, UNREACHABLE, LATE = range(5)
_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 2.0  # for a server that was found to say which it is
_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_MIB: Final = 1024 * 1024
_MOST_BYTES: Final = 16 * _MIB  # of an answer: twice what a master sends
_FIGURES: Final = ("requests", "held", "parked", "unsent")
_HEADINGS: Final = ("WORKER", "PID", "GEN", "STATE", "UP", *map(str.upper, _FIGURES), "MEMORY", "BUSY WITH")
_LEFT: Final = ("STATE", "BUSY WITH")
_LEAST_WIDTH: Final = 80  # of the status, in columns; also where it goes into a file
_SUFFIXES: Final = ("", "k", "M", "G", "T")


class UnreachableError(Exception):
    """No server answers at the socket; the text says why, and the way out."""


class AmbiguousError(Exception):
    """Several servers may be meant; the text lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; ``argv`` is the command line without the program's name. Returns the exit status."""
    standard_streams.open_missing()
    options = _parser().parse_args(argv)
    command = {name: getattr(options, name) for name in options.fields} | {"command": options.command}
    waits = command.get("wait", False)
    try:
        path = find_socket(options.socket, os.environ)
        reply = ask(path, command, options.timeout or (None if waits else _SECONDS))
        return _show(reply, options)
    except AmbiguousError as error:
        _complain(str(error))
        return MISTAKE
    except UnreachableError as error:
        _complain(str(error))
        return UNREACHABLE
    except TimeoutError:
        _complain(f"no answer from {path} in time; is the master stopped? more time: --timeout SECONDS")
        return LATE
    except BrokenPipeError:  # the program that read our output has what it wanted
        sys.stdout = None
        return DONE
    except KeyboardInterrupt:
        return 130


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
        return f"pid {status['master']['pid']}  {status['app']}  {', '.join(status['listeners'])}"
    except (UnreachableError, TimeoutError, KeyError, TypeError):
        return "(does not answer)"


def ask(path: str, command: Mapping[str, Any], seconds: float | None) -> dict[str, Any]:
    """The answer to ``command``, within ``seconds``. Raises UnreachableError and TimeoutError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(seconds)
        try:
            link.connect(path)
            link.sendall(json.dumps(command).encode() + b"\n")
            came = _answer(link, seconds)
        except TimeoutError:
            raise
        except OSError as error:
            raise UnreachableError(_unreachable(path, error)) from None
    if len(came) > _MOST_BYTES:
        raise UnreachableError(_foreign(path))
    try:
        reply = json.loads(came)
    except RecursionError:
        raise UnreachableError(_foreign(path)) from None
    except ValueError:
        raise UnreachableError(f"{path}: it has ended without an answer; its log may say why") from None
    if not isinstance(reply, dict):
        raise UnreachableError(_foreign(path))
    return reply


def _answer(link: socket.socket, seconds: float | None) -> bytes:
    """What comes within ``seconds``, to the end of a line. The service's user, who may listen there, can send anything.

    Raises OSError and TimeoutError.
    """
    until = math.inf if seconds is None else monotonic() + seconds
    came = bytearray()
    while not came.endswith(b"\n") and len(came) <= _MOST_BYTES and (data := link.recv(65536)):
        came += data
        if monotonic() > until:
            raise TimeoutError
    return bytes(came)


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


# The command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("forkserverctl", description="Ask a running forkserver.", allow_abbrev=False)
    usual = f"else {VARIABLE}, {FILE} in RUNTIME_DIRECTORY, or the one server of this user that runs"
    parser.add_argument("--socket", metavar="PATH", help=f"its control socket; {usual}")
    limit = f"how long to wait for the answer ({_SECONDS:g}; with reload --wait, as it takes)"
    parser.add_argument("--timeout", metavar="SECONDS", type=_seconds, help=limit)
    parser.add_argument("--json", action="store_true", help="show the answer as JSON")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, text: str, *fields: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(fields=fields)
        made.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="show the answer as JSON")
        return made

    add("status", "the server, and what each worker does")
    add("config", "the settings in force, with their sources")
    reload = add("reload", "reload settings and code, as HUP does", "wait")
    reload.add_argument("--wait", action="store_true", help="until the new code serves; else 1, and why")
    scale = add("scale", "have so many workers, until a reload", "workers")
    scale.add_argument("workers", metavar="N", type=int)
    for name, text in (
        ("retire", "replace a worker; the new one is ready before it leaves"),
        ("kill", "end a worker at once (SIGKILL); it is replaced"),
        ("stacks", "show where the threads of a worker are"),
    ):
        add(name, text, "worker").add_argument("worker", metavar="WORKER", type=_worker, help="its number, or pid=PID")
    add("drain", "serve on, but close connections with the next answer, until stop")
    maintenance = add("maintenance", "answer 503 in place of the application, but for ready_path", "on")
    maintenance.add_argument("on", metavar="on|off", type=_on_or_off)
    stop = add("stop", "stop as TERM does, when the requests in flight are answered", "now")
    stop.add_argument("--now", action="store_true", help="at once")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of seconds, up to 86400")
    return value


def _worker(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


def _on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{text!r}: give on or off")
    return text == "on"


# Showing


def _show(reply: dict[str, Any], options: argparse.Namespace) -> int:
    good = reply.get("ok") is True
    if options.json:
        _say(json.dumps(reply, indent=2))
    elif not good:
        details = str(reply.get("details") or "").rstrip()
        _complain(f"{reply.get('error', 'no reason given')}\n{details}".rstrip())
    elif options.command == "status":
        _say(table(reply, max(_LEAST_WIDTH, shutil.get_terminal_size().columns)))
    else:
        _say(str(reply.get("stacks") or reply.get("config") or reply.get("text") or "done").rstrip())
    return DONE if good else REFUSED


def table(status: Mapping[str, Any], width: int) -> str:
    """The answer to ``status`` for a person, in ``width`` columns (80 at least)."""
    serving, seconds = status["text"], _duration(status["seconds"])
    lines = [
        f"forkserver {status['version']}  {status['app']}  master pid={status['master']['pid']}  {status['state']}",
        f"{serving}; up {seconds}; {status['requests']:,} requests; at {', '.join(status['listeners'])}",
    ]
    if status["last_failure"]:
        lines.append(status["last_failure"])
    if status.get("clients_wait"):  # which an older master does not tell
        lines.append("clients wait: no worker has a free thread")
    if closed := status.get("unreachable"):
        why = "the file was removed or replaced, or the socket shut down; reload to listen there again"
        lines.append(f"no client can connect at {', '.join(closed)}: {why}")
    if lost := status.get("lost_log_lines"):  # which an older master does not tell
        lines.append(f"{lost:,} lines of the logs are missing: their reader was stuck, or a disk full")
    if status.get("accelerator") == "C":  # which an older master does not tell
        sent, left = (sum(worker[name] for worker in status["workers"]) for name in ("accelerated", "declined"))
        lines.append(f"C extension: {sent:,} answers of these workers; {left:,} reads and answers left to Python")
    ends = ", ".join(f"{count} {why}" for why, count in sorted(status["ends"].items()))
    head = [part for line in lines for part in _wrapped(line, width)]
    foot = ["", *_wrapped(f"ended: {ends}", width)] if ends else []
    return "\n".join([*head, "", *_workers(status["workers"], width), *foot])


def _wrapped(line: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        printable(line), width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
    )


def _workers(workers: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """The table of workers; where it is too wide, calls stand below their workers, and figures are shortened."""
    calls = [", ".join(map(_call, worker["busy"])) for worker in workers]
    whole = _columns([_HEADINGS, *((*_cells(each), busy) for each, busy in zip(workers, calls, strict=True))])
    if _fits(whole, width):
        return whole
    head, *rows = _narrow(workers, width)
    below = (_wrapped(busy, width, " " * 8) for busy in calls)
    return [head, *(line for row, more in zip(rows, below, strict=True) for line in (row, *more))]


def _narrow(workers: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    for short, gap in ((False, 2), (True, 2), (True, 1)):
        made = _columns([_HEADINGS[:-1], *(_cells(each, short) for each in workers)], gap)
        if _fits(made, width):
            break
    return made


def _fits(lines: Sequence[str], width: int) -> bool:
    return max(map(len, lines)) <= width


def _cells(worker: Mapping[str, Any], short: bool = False) -> tuple[str, ...]:
    figures = (_short(worker[name]) if short else f"{worker[name]:,}" for name in _FIGURES)
    up = "-" if worker["seconds"] is None else _duration(worker["seconds"])
    worker_cells = (str(worker["worker"]), str(worker["pid"] or "-"), str(worker["generation"]), worker["state"], up)
    memory = worker["memory"] / _MIB
    return (*worker_cells, *figures, f"{memory / 1024:.0f} GiB" if short and memory > 9999 else f"{memory:.0f} MiB")


def _short(figure: int) -> str:
    """``figure`` in five characters at most: ``9999``, ``1.23M``."""
    value, rank = float(figure), 0
    while round(value) > (999 if rank else 9999) and rank < len(_SUFFIXES) - 1:
        value, rank = value / 1000, rank + 1
    return f"{value:.3g}{_SUFFIXES[rank]}" if rank else str(figure)


def _call(call: Mapping[str, Any]) -> str:
    kind = ", WebSocket" if call.get("websocket") else ""  # which an older master does not tell
    return f"{call['request']} ({call['seconds']:.1f} s{kind})"


def _columns(rows: Sequence[Sequence[str]], gap: int = 2) -> list[str]:
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    left = [heading in _LEFT for heading in _HEADINGS]
    return [
        (" " * gap)
        .join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(row, widths, left[: len(row)], strict=True)
        )
        .rstrip()
        for row in shown
    ]


def _duration(seconds: float) -> str:
    """A time as a person says it: ``42s``, ``3h07m``, ``12d04h``."""
    whole = int(seconds)
    for unit, part, size, part_size in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part_size:02}{part}"
    return f"{whole}s"


def _say(text: str) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    lines = "\n".join(map(printable, text.split("\n")))
    print(lines.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _complain(text: str) -> None:
    lines = "\n".join(map(printable, text.split("\n")))
    print(f"forkserverctl: {lines}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
