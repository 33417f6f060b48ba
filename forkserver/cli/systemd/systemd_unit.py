"""A systemd unit for one command line on this machine.

The unit runs that very command, sandboxed as far as it works here: what the command reads in a home is shown to it,
what it writes to is writable. Nothing is written and systemd is not asked; serve.py prints the unit.

Source: systemd.syntax(7), systemd.service(5), systemd.exec(5).
"""

from __future__ import annotations

import grp
import ipaddress
import os
import re
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from forkserver.cli.systemd import systemd_unit_folders, systemd_unit_syntax
from forkserver.cli.systemd.systemd_unit_folders import HIDDEN, Key
from forkserver.cli.systemd.systemd_unit_templates import (
    CREDENTIALS,
    DESCRIPTORS,
    HOME,
    MARGIN_SECONDS,
    Unit,
    dynamic,
    home_of,
    socket_group,
)
from forkserver.config import invocation, sources
from forkserver.config.settings import TABLE, Settings
from forkserver.errors import ConfigError
from forkserver.linux.descriptor_limit import needed
from forkserver.linux.files.file_permissions import user_name
from forkserver.linux.sockets.socket_file import ABSTRACT
from forkserver.logs.syslog import is_syslog

PROXY_GROUPS: Final = ("www-data", "nginx", "haproxy")  # who connects to a Unix socket: Debian's nginx, Red Hat's
_PROGRAM: Final = ("forkserver", "forkserverctl")
_PATHS: Final = ("config", "chdir", "pidfile", "spool_dir", "access_log", "error_log", "control_socket")
_NO_PATHS: Final = ("", "-", "auto", "off")
_IDENTITY: Final = ("user", "group", "socket_group")  # User=, Group= and the socket unit's SocketGroup= say it
_NAME_CHARS: Final = 20  # of an account: 31 at most with its prefix, see DynamicUser= in systemd.exec(5)


def of(settings: Settings, argv: Sequence[str], environ: Mapping[str, str]) -> Unit:
    """The unit that runs ``argv`` (without the program's name) on this machine. Raises ConfigError."""
    name = _name(settings)
    title = f"{systemd_unit_syntax.one_line(settings.app or '')} under forkserver"
    made = f"Made by: {systemd_unit_syntax.command(['forkserver'], argv)}"
    directory = invocation.directory(environ, os.getcwd())
    bin_folder = os.path.join(invocation.environment(directory, sys.orig_argv, sys.argv).typed, "bin")
    own = f"forkserver/{name}"  # in the folders that systemd makes for it
    identity = _identity(settings, name)
    account = systemd_unit_folders.account(_user(settings, name), dynamic="DynamicUser=yes" in identity)
    folders = systemd_unit_folders.folders(settings, directory, account, own)
    keys = systemd_unit_folders.keys(settings, directory, account)
    read = [*_read(settings, directory), *systemd_unit_folders.read_by_itself(settings, directory, account)]
    stop = settings.drain_delay + settings.graceful_timeout
    return Unit(
        name=name,
        heading=f"# {title}: /etc/systemd/system/{name}.service\n# {made}",
        socket_heading=f"# {title}, its address: /etc/systemd/system/{name}.socket\n# {made}",
        description=title.replace("%", "%%"),
        directory=systemd_unit_syntax.path(directory),
        pwd=systemd_unit_syntax.quoted(f"PWD={directory}"),
        command=systemd_unit_syntax.command(_program(0, bin_folder), _words(argv, directory, keys))
        + _handed_over(keys),
        reload=_reload(settings, directory, bin_folder),
        identity=identity,
        environment=(
            *(f"Environment={systemd_unit_syntax.quoted(pair)}" for pair in _environment(settings, environ, keys)),
            *(home_of(own) if systemd_unit_folders.needs_home(account) else ()),
            *_credentials(keys),
        ),
        listen=_listen(settings, directory),
        runtime=" ".join(map(systemd_unit_syntax.quoted, [own, *folders.runtime])),
        writable=folders.lines,
        home=_home(_with_links(read), folders.shown),
        backlog=settings.backlog,
        files=max(DESCRIPTORS, settings.nofile, needed(settings.worker_connections)),
        stop=round(stop) + MARGIN_SECONDS,
        start=round(2 * settings.boot_timeout) + MARGIN_SECONDS,
        stop_of=f"--drain-delay and --graceful-timeout ({stop:g} s) together",
    )


def _name(settings: Settings) -> str:
    module = (settings.app or "").split(":")[0].split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]", "-", module)[:_NAME_CHARS].strip("-") or "app"


def _program(which: int, bin_folder: str) -> list[str]:
    """The command of ours in ``bin_folder`` or beside this interpreter, or else the module."""
    interpreter = Path(sys.executable).absolute()
    typed = Path(bin_folder)
    for folder in (typed, interpreter.parent):
        if os.access(folder / _PROGRAM[which], os.X_OK):
            return [str(folder / _PROGRAM[which])]
    python = typed / "python"
    return [
        str(python if os.access(python, os.X_OK) else interpreter),
        "-m",
        ("forkserver", "forkserver.cli.control")[which],
    ]


def _reload(settings: Settings, directory: str, bin_folder: str) -> str:
    """forkserverctl where the control socket is; without one nothing tells the end of a reload."""
    named = settings.control_socket
    if named == "off":
        return "/bin/kill -HUP $MAINPID"
    own = [] if named == "auto" else ["--socket", invocation.absolute(named, directory)]
    return systemd_unit_syntax.command(_program(1, bin_folder), [*own, "reload", "--wait"])


def _words(argv: Sequence[str], directory: str, without: Container[str] = ()) -> list[str]:
    """The settings of ``argv`` in long flags and absolute paths, without actions, user, group and ``without``."""
    line = sources.command_line(TABLE, argv)
    words = list(line.words)
    for setting in TABLE:
        if setting.name in line.settings and setting.name not in _IDENTITY and setting.name not in without:
            raw = line.settings[setting.name].raw
            for value in raw if isinstance(raw, list) else [raw]:
                value = _absolute(setting.name, str(value), directory)
                one_word = not value or (value.startswith("-") and value != "-")
                words += [f"{setting.flag}={value}"] if one_word else [setting.flag, value]
    return words


def _absolute(name: str, value: str, directory: str) -> str:
    if (
        name in ("bind", "admin_bind")
        and value.startswith("unix:")
        and not value.startswith(ABSTRACT)
        and "," not in value
    ):
        return f"unix:{invocation.absolute(value.removeprefix('unix:').removeprefix('//'), directory)}"
    return (
        invocation.absolute(value, directory)
        if name in _PATHS and value not in _NO_PATHS and not is_syslog(value)
        else value
    )


def _handed_over(keys: Mapping[str, Sequence[Key]]) -> str:
    """The flags that name the files of TLS where systemd puts them: %d is the folder of the credentials."""
    flags = {name: f"--{name.replace('_', '-')}" for name in keys}
    return "".join(f" {flags[name]} %d/{key.name}" for name, found in keys.items() for key in found)


def _credentials(keys: Mapping[str, Sequence[Key]]) -> list[str]:
    lines = [
        f"LoadCredential={key.name}:{systemd_unit_syntax.path(key.path)}" for found in keys.values() for key in found
    ]
    return [*CREDENTIALS, *lines] if lines else []


def _environment(settings: Settings, environ: Mapping[str, str], without: Container[str]) -> list[str]:
    """The variables that settings came from."""
    names = {
        source.removeprefix("variable ")
        for name, source in settings.sources.items()
        if source.startswith("variable ") and name not in _IDENTITY and name not in without
    }
    return [f"{name}={environ[name]}" for name in sorted(names)]


def _identity(settings: Settings, name: str) -> tuple[str, ...]:
    """The account that the settings name, or ours; where that is root's, one that systemd makes."""
    user = _user(settings, name)
    if user == _made_account(name):
        return dynamic(user)
    return (f"User={user}", *([f"Group={settings.group}"] if settings.group else []))


def _user(settings: Settings, name: str) -> str:
    user = settings.user
    if user is None and os.geteuid() != 0:
        user = user_name(os.geteuid())
    return _made_account(name) if user in (None, "root", "0") else str(user)


def _made_account(name: str) -> str:
    return f"forkserver-{name.lower()}"


def _listen(settings: Settings, directory: str) -> tuple[str, ...]:
    """The addresses as a socket unit has them. Raises ConfigError."""
    lines = [f"ListenStream={_listened(address, directory)}" for address in settings.bind]
    if any(line.startswith("ListenStream=/") for line in lines):
        lines += socket_group(settings.socket_group or _proxy_group(), settings.socket_mode)
    if any("=[" in line for line in lines) and any(re.match(r"ListenStream=[0-9.]+:", line) for line in lines):
        lines.append("BindIPv6Only=ipv6-only")  # as forkserver does where both families are bound
    return tuple(lines)


def _listened(address: str, directory: str) -> str:
    if address.startswith(ABSTRACT):
        return address.removeprefix("unix:").replace("%", "%%")
    if address.startswith("unix:"):
        return systemd_unit_syntax.path(invocation.absolute(address.removeprefix("unix:"), directory))
    host, _, port = address.rpartition(":")
    if host == "*":
        return port  # systemd's for IPv6 and IPv4: systemd.socket(5), BindIPv6Only=
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise ConfigError(f"bind {address!r}: a socket unit takes no such address; give --bind an IP address") from None
    return f"{host}:{port}"


def _proxy_group() -> str | None:
    """The group of the web server on this machine."""
    for group in PROXY_GROUPS:
        try:
            grp.getgrnam(group)
        except KeyError:
            continue
        return group
    return None


def _read(settings: Settings, directory: str) -> list[str]:
    """Folders that the command reads: the interpreter, what it imports, the application, the settings."""
    environment = invocation.environment(directory, sys.orig_argv, sys.argv).typed
    application = os.path.join(directory, settings.chdir or "")
    folders = [environment, sys.prefix, sys.base_prefix, *sys.path, directory, application]
    folders += [os.path.join(application, folder) for folder in settings.pythonpath]
    folders += [os.path.dirname(os.path.join(directory, settings.config_path))] if settings.config_path else []
    return [invocation.absolute(folder, directory) for folder in folders if folder and os.path.isdir(folder)]


def _with_links(folders: Iterable[str]) -> list[str]:
    """``folders``, and those that a link on their way lies in and leads into, so that it can be switched later.

    A home is too much to be shown: of a link that lies right in one, only what it leads to now.
    """
    found = list(folders)
    for folder in list(found):
        way = "/"
        for part in folder.split("/")[1:]:
            way = os.path.join(way, part)
            if os.path.islink(way):
                ends = os.path.dirname(way), os.path.dirname(os.path.realpath(way))
                found += [end for end in ends if os.path.dirname(end) not in HIDDEN[:2] and end not in ("/", *HIDDEN)]
    return found


def _home(folders: Iterable[str], writable: Sequence[str]) -> str:
    """Homes are hidden, but for those of ``folders`` that lie in one, or in a folder that PrivateTmp= hides.

    ``writable`` lie there, and are written to besides.
    """
    hidden = sorted({folder for folder in folders if any(_below(folder, place) for place in HIDDEN)})
    outer = [folder for folder in hidden if not any(folder != other and _below(folder, other) for other in hidden)]
    if not outer and not writable:
        return HOME
    lines = ["# Of homes and of /tmp only what this command reads, and logs to, is seen.", "ProtectHome=tmpfs"]
    lines += [f"BindReadOnlyPaths={_bound(outer)}"] if outer else []
    # With "-" one that is missing is passed over: forkserver's own complaint is the clearer one.
    lines += [f"BindPaths={_bound([f'-{folder}' for folder in writable])}"] if writable else []
    return "".join(f"{line}\n" for line in lines)


def _bound(folders: Iterable[str]) -> str:
    return " ".join(systemd_unit_syntax.quoted(folder.replace(":", "\\:")) for folder in folders)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")
