"""The program ``forkserverctl``: asks a running master on its control socket, and shows the answer.

Each mistake is told in one line, and what a client of the service has sent reaches the terminal without control
characters.

Exit status: 0 it was done; 1 the service refuses, or its reload failed; 2 a mistake in the command line; 3 no server
answers at the socket; 4 no answer in time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from forkserver.cli import slow_requests, status_table
from forkserver.cli.control_client import FILE, VARIABLE, AmbiguousError, UnreachableError, ask, find_socket
from forkserver.cli.profile import options as profile_options
from forkserver.cli.top import program
from forkserver.cli.top.program import NoTerminalError
from forkserver.config.values import numbers
from forkserver.config.values.value_type import RefusedError
from forkserver.config.version import DOCUMENTATION
from forkserver.linux.common.escaping import printable
from forkserver.linux.files import standard_streams

DONE, REFUSED, MISTAKE, UNREACHABLE, LATE = range(5)
_SECONDS: Final = 10.0
_LEAST_INTERVAL: Final = 0.2
_MOST_INTERVAL: Final = 3600.0
# Where the service's user may listen in the folder that root looks in, anything may answer. OSError: localtime(3).
_OF_FOREIGN_ANSWERS: Final = (LookupError, TypeError, ValueError, AttributeError, OverflowError, OSError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; ``argv`` is the command line without the program's name. Returns the exit status."""
    standard_streams.open_missing()
    parser = command_parser()
    options = parser.parse_args(argv)
    if options.command == "top" and options.json:
        parser.error("top has no JSON; status --json has the figures that it shows")
    command = {name: getattr(options, name) for name in options.fields} | {"command": options.command}
    waits = command.get("wait", False)
    path = ""
    try:
        path = find_socket(options.socket, os.environ)
        if options.command == "top":
            return _top(options)
        if options.command == "profile":
            return _profile(path, options)
        reply = ask(path, command, options.timeout or (None if waits else _SECONDS))
        return _show(path, reply, options)
    except AmbiguousError as error:
        _complain(str(error))
        return MISTAKE
    except UnreachableError as error:
        _complain(str(error))
        return UNREACHABLE
    except TimeoutError:
        _complain(f"no answer from {path} in time; is the master stopped? more time: --timeout SECONDS")
        return LATE
    except NoTerminalError as error:
        _complain(str(error))
        return MISTAKE
    except BrokenPipeError:  # the program that read our output has what it wanted
        sys.stdout = None
        return DONE
    except KeyboardInterrupt:
        return 130


def _profile(path: str, options: argparse.Namespace) -> int:
    from forkserver.cli.profile import command  # late: no other command needs it

    try:
        return DONE if command.run(path, options, _say, _complain) else REFUSED
    except command.ProfileRefusedError as error:
        _complain(str(error))
        return REFUSED
    except profile_options.OutputError as error:
        _complain(str(error))
        return MISTAKE


# The command line


def command_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "forkserverctl",
        description="Ask a running forkserver.",
        epilog=f"Documentation: {DOCUMENTATION}, and man forkserverctl.",
        allow_abbrev=False,
    )
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
    add("slow", "the last requests that have passed slow_log, the newest first")
    top = add("top", "what the service does, drawn anew as it changes; for a terminal")
    top.add_argument("--interval", metavar="TIME", type=_interval, default=1.0, help="between two looks: 500ms, 1s")
    top.add_argument("--once", action="store_true", help="show it once as text, after one interval")
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
    profile = add("profile", profile_options.TEXT, *profile_options.FIELDS)
    profile.add_argument("worker", metavar="WORKER", nargs="?", type=_worker, help="its number, or pid=PID; else all")
    profile_options.add_to(profile)
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


def _interval(text: str) -> float:
    try:
        value = numbers.seconds.parse(text)
    except RefusedError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    if not _LEAST_INTERVAL <= value <= _MOST_INTERVAL:
        raise argparse.ArgumentTypeError(f"{text!r}: give {_LEAST_INTERVAL:g}s to {_MOST_INTERVAL:g}s")
    return value


def _worker(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


def _on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{text!r}: give on or off")
    return text == "on"


# Showing


def _top(options: argparse.Namespace) -> int:
    def ask_again(command: Mapping[str, Any]) -> dict[str, Any]:
        # It is looked for each time: where it is found by the master's pid, a new master has another.
        return ask(find_socket(options.socket, os.environ), command, options.timeout or _SECONDS)

    if options.once:
        _say(program.once(ask_again, options.interval, shutil.get_terminal_size().columns))
    else:
        program.run(ask_again, options.interval, os.environ)
    return DONE


def _show(path: str, reply: dict[str, Any], options: argparse.Namespace) -> int:
    good = reply.get("ok") is True
    try:
        text = _told(reply, options)
    except _OF_FOREIGN_ANSWERS as error:
        why = f"what answers there is no forkserver of this program's version ({error!r:.200})"
        raise UnreachableError(f"{path}: {why}; name another with --socket PATH, or look with --json") from None
    (_say if good or options.json else _complain)(text)
    return DONE if good else REFUSED


def _told(reply: dict[str, Any], options: argparse.Namespace) -> str:
    if options.json:
        return json.dumps(reply, indent=2)
    if reply.get("ok") is not True:
        details = str(reply.get("details") or "").rstrip()
        return f"{reply.get('error', 'no reason given')}\n{details}".rstrip()
    if options.command == "status":
        return status_table.table(reply, _width())
    if options.command == "slow":
        return slow_requests.table(reply, _width())
    return str(reply.get("stacks") or reply.get("config") or reply.get("text") or "done").rstrip()


def _width() -> int:
    return max(status_table.LEAST_WIDTH, shutil.get_terminal_size().columns)


def _say(text: str) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    lines = "\n".join(map(printable, text.split("\n")))
    print(lines.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _complain(text: str) -> None:
    lines = "\n".join(map(printable, text.split("\n")))
    print(f"forkserverctl: {lines}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
