"""The program ``forkserver``: command line in, exit status out.

Each mistake is told in one line with the value, the reason and the way out, without a traceback of forkserver. The
application is never imported here: the template does that, and for --check-config a child that ends with it.
"""

from __future__ import annotations

import gc
import os
import re
import select
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from forkserver.config.accelerator import accelerator
from forkserver.config.version import DISTRIBUTION, VERSION
from forkserver.errors import PACKAGE, ConfigError, ForkserverError, LoadError
from forkserver.linux.files import standard_streams

if TYPE_CHECKING:
    from forkserver.config.settings import Settings
    from forkserver.linux.early_signals import HeldSignals
    from forkserver.master.upgrade.upgrade import Order

_INSTALLED_IN: Final = os.path.dirname(PACKAGE)
_NAMESAKE: Final = re.compile(r"forkserver-(.+)\.dist-info")  # ours begins with forkserver_wsgi
_GUNICORN_FILE: Final = "gunicorn.conf.py"  # of the current directory, which gunicorn reads where no other is named
_CALLS: Final = ("memfd_create", "pidfd_open", "RWF_NOWAIT")  # what a build with an older C library lacks
_LAST_WORDS_SECONDS: Final = 1.0  # for which the end of a service waits until they are written
INTERRUPTED: Final = 130  # as a shell says of a program that SIGINT ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; ``argv`` is the command line without the program's name. Returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        standard_streams.open_missing()
        _refuse_elsewhere()
        return _run(words, ours=argv is None)
    except LoadError as error:
        _complain(str(error), error.traceback)
        return error.exit_status
    except ForkserverError as error:
        _complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(argv: list[str], *, ours: bool) -> int:
    """``ours`` says whether the process is this program's, so that it may be executed once more."""
    # Imported late: what runs on another system or an older Python must get as far as the refusal.
    from forkserver.linux import early_signals

    early = early_signals.hold()  # before the imports that take long
    gc.disable()  # for these imports: a collection would find nothing
    from forkserver.config import loading
    from forkserver.linux import signals
    from forkserver.master.upgrade import upgrade

    _collect_again()
    if (order := upgrade.take_order(os.environ)) is not None:
        return _succeed(order, argv, early)

    action = loading.action(argv)
    if action is not None:
        early.let_through()
    match action:
        case "help":
            from forkserver.cli import settings_help

            _say(settings_help.text(loading.subject(argv)))
            return 0
        case "version":
            _say(f"{_program()}\n")
            return 0
        case "print-config":
            from forkserver.config import toml_writer

            write = toml_writer.as_complete_toml if loading.asks_all(argv) else toml_writer.as_toml
            _say(write(loading.load(argv, os.environ)))
            return 0
        case "all":
            raise ConfigError("--all: goes with --print-config; write forkserver --print-config --all")
        case "print-schema":
            from forkserver.cli import settings_schema

            _say(settings_schema.as_json())
            return 0
        case "check-config":
            return _check(argv, os.environ)
        case "systemd-unit" | "systemd-socket" as kind:
            return _unit(kind, argv, os.environ)
        case "from":
            from forkserver.cli.moving import source, translation

            _say(translation.as_toml(source.read(loading.subject(argv), os.environ)))
            return 0
    _refuse_kernel()
    if ours:
        early_signals.begin_again_with(signals.HANDLED, early)
    _warn_of_the_namesake()
    return _serve(argv, os.environ, early)


def _serve(argv: list[str], environ: Mapping[str, str], early: HeldSignals) -> int:
    from forkserver.logs.error_log import ErrorLog

    loaded = _load_to_open(argv, environ)
    log = ErrorLog(loaded.error_log, loaded.log_level, service=loaded.service_uid, form=loaded.log_format)
    if note := _unread(loaded):
        log.warning(note)
    gc.disable()
    from forkserver.master import builder

    _collect_again()
    return builder.serve(loaded, log, argv, environ, terminal=early.terminal)


def _collect_again() -> None:
    """End a time without collections: what was imported meanwhile stays, so none is to look at it."""
    gc.freeze()
    gc.enable()


def _succeed(order: Order, argv: list[str], early: HeldSignals) -> int:
    """We are the next program of a running master: on trial, or to go on in its place."""
    from forkserver.master import builder
    from forkserver.master.upgrade import upgrade

    if order.reply >= 0:
        return upgrade.try_on(order, argv, os.environ, _program())
    return builder.go_on(upgrade.adopt(order), argv, os.environ, terminal=early.terminal)


def _check(argv: list[str], environ: Mapping[str, str]) -> int:
    from forkserver.worker import check_config

    _warn_of_the_namesake()
    loaded = _load_to_open(argv, environ)
    if note := _unread(loaded):
        _complain(f"warning: {note}")
    _say(check_config.load_in_child(loaded) + "\n")
    return 0


def _unit(kind: str, argv: list[str], environ: Mapping[str, str]) -> int:
    from forkserver.cli.systemd import systemd_unit

    made = systemd_unit.of(_load_with_app(argv, environ), argv, environ)
    _say(made.service if kind == "systemd-unit" else made.socket)
    return 0


def _load_with_app(argv: list[str], environ: Mapping[str, str]) -> Settings:
    from forkserver.config import loading

    loaded = loading.load(argv, environ)
    if loaded.app is None:
        raise ConfigError("no application given; name it as MODULE:APP, such as forkserver myapp:app")
    return loaded


def _load_to_open(argv: list[str], environ: Mapping[str, str]) -> Settings:
    """The settings, where root may open what they name."""
    from forkserver.config import invocation, working_directory

    loaded = _load_with_app(argv, environ)
    working_directory.refuse_chosen(loaded, invocation.directory(environ, invocation.physical_directory()))
    return loaded


def _unread(loaded: Settings) -> str:
    """That there is a gunicorn.conf.py, which gunicorn would have read, where no file of ours was; else nothing."""
    from forkserver.config import settings

    if loaded.config_path is not None or not os.path.exists(_GUNICORN_FILE):
        return ""
    return (
        f"{_GUNICORN_FILE} is not read: forkserver reads {settings.FILE}; forkserver --from {_GUNICORN_FILE} prints "
        "one with its settings"
    )


def _refuse_elsewhere() -> None:
    python = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
    if sys.platform != "linux":
        raise ConfigError(f"cannot run on {sys.platform}: it needs Linux's epoll; run it in a Linux container")
    if sys.implementation.name != "cpython" or sys.version_info < (3, 11):
        raise ConfigError(f"cannot run on {python}: it needs CPython 3.11 or newer; install it in such an environment")
    if lacks := [name for name in _CALLS if not hasattr(os, name)]:
        # Portable builds (python-build-standalone, which uv installs) were made like this until 2026.
        raise ConfigError(
            f"cannot run on this build of {python}: it lacks {', '.join(f'os.{name}' for name in lacks)}, for it was "
            "built with an older C library; use the Python of the system, or a newer build"
        )
    if not hasattr(select, "epoll"):  # gevent and eventlet take it away
        raise ConfigError(
            "cannot run after a monkey patch, by python -m gevent.monkey for example: select.epoll is gone; start the "
            "program itself and use --threads N, or serve the application by a server for gevent or eventlet"
        )


def _refuse_kernel() -> None:
    """Refuse to serve where the kernel, or a sandbox, lacks what a master needs all the time."""
    from forkserver.linux import syscalls

    if why := syscalls.missing_call():
        raise ConfigError(
            f"cannot serve on Linux {os.uname().release}: {why}; it needs Linux 5.7 or newer, and a sandbox "
            "(a container's seccomp profile) that allows this call"
        )


def _warn_of_the_namesake() -> None:
    """Tell of PyPI's unrelated ``forkserver``, which installs the same package and the same command over ours."""
    # By the name of its folder beside our package, where it overwrites: importlib.metadata takes 15 ms of every start.
    for name in os.listdir(_INSTALLED_IN):
        if found := _NAMESAKE.fullmatch(name):
            _complain(
                f"warning: the unrelated distribution 'forkserver' {found[1]} is installed and overwrites "
                f"{DISTRIBUTION}; pip uninstall forkserver, then pip install --force-reinstall {DISTRIBUTION}"
            )


def _program() -> str:
    return f"forkserver {VERSION} (Python {sys.version.split()[0]}, accelerator: {accelerator()})"


def _say(text: str) -> None:
    """Print as it is, also what no encoding of the terminal holds."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def _complain(text: str, traceback: str = "") -> None:
    """Print ``text`` as the last line, where a person looks first."""
    lines = f"{traceback.rstrip()}\nforkserver: {text}" if traceback else f"forkserver: {text}"
    if "JOURNAL_STREAM" in os.environ:
        from forkserver.logs.error_log import (
            priority,  # late, like all that another system or an older Python cannot import
        )

        mark = priority("error")
        lines = "\n".join(mark + line for line in lines.splitlines())
    if sys.stderr is sys.__stderr__ and sys.stderr is not None:
        _write_to_standard_error(f"{lines}\n".encode("utf-8", "backslashreplace"))
    else:
        print(lines, file=sys.stderr, flush=True)


def _write_to_standard_error(lines: bytes) -> None:
    """Write ``lines`` without waiting: not for a reader that has stopped, nor for an application that holds a pipe."""
    from forkserver.linux import syscalls
    from forkserver.logs import log_output

    if not log_output.leaves_to_writer():
        _write(lines)
        return
    # The log writer has finished, and the application may have left processes: a child writes, and may stay there.
    try:
        pid = os.fork()
    except OSError:  # no process can be had for what only another process may write
        return
    if pid == 0:
        _write(lines)
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    syscalls.has_event(pidfd, select.POLLIN, _LAST_WORDS_SECONDS)
    os.close(pidfd)


def _write(lines: bytes) -> None:
    from forkserver.logs.log_output import LogOutput

    output = LogOutput(sys.stderr.fileno())
    output.write(lines)
    output.close()
