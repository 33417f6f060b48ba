"""What a printed unit gives its service to write to, and which keys systemd reads for it.

A service whose file system is read-only writes only where its unit says so. A folder below /var/log, /var/lib,
/var/cache or /run that is the service's alone is named in LogsDirectory= and its like: systemd makes it, and gives it
to the service's account. Any other folder is made writable as it is, with a remark where the account may not write
there. A key that the account may not read, as it should be, systemd reads as root and hands over (LoadCredential=).

Source: systemd.exec(5): "SANDBOXING", RuntimeDirectory= and what follows, "CREDENTIALS"; path_resolution(7).
"""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from collections.abc import Iterable, Sequence
from typing import Final

from forkserver.cli.systemd.systemd_unit_syntax import one_line, quoted
from forkserver.config import invocation
from forkserver.config.settings import Settings
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.sockets.socket_file import ABSTRACT
from forkserver.logs.syslog import is_syslog

HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # by ProtectHome= and PrivateTmp=
_NO_PATHS: Final = ("", "-", "auto", "off")
_DEVICES: Final = "/dev"
_MANAGED: Final = {"/var/log": "Logs", "/var/lib": "State", "/var/cache": "Cache", "/run": "Runtime"}
_READ, _WRITE, _SEARCH = 4, 2, 1

_HANDED_OVER: Final = ("certfile", "keyfile", "env_file")  # where the account may not read them


class Account(NamedTuple):
    """The account that the service runs as; ``uid`` is None for an account that systemd makes with the start."""

    name: str
    uid: int | None = None
    groups: frozenset[int] = frozenset()
    home: str = "/"

    def may_read(self, path: str) -> bool:
        """Whether the modes of ``path`` and of the folders above it let the account read the file."""
        return self._may_pass(os.path.dirname(path)) and self._may(path, _READ)

    def may_write_in(self, folder: str) -> bool:
        """Whether the account may make files in ``folder``."""
        return self._may_pass(folder) and self._may(folder, _WRITE)

    def _may_pass(self, folder: str) -> bool:
        above = os.path.realpath(folder)
        while self._may(above, _SEARCH):
            if above == "/":
                return True
            above = os.path.dirname(above)
        return False

    def _may(self, path: str, wanted: int) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return False
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.groups else 0
        return bool(found.st_mode >> shift & wanted)


def account(name: str, dynamic: bool) -> Account:
    """The account ``name``, a user's name or number, or one that systemd makes."""
    if dynamic:
        return Account(name)
    try:
        found = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        return Account(name, int(name) if name.isdecimal() else None)
    groups = frozenset(os.getgrouplist(found.pw_name, found.pw_gid))
    return Account(found.pw_name, found.pw_uid, groups, found.pw_dir)


class Folders(NamedTuple):
    """Lines of a unit, without their ends; ``runtime`` are names for RuntimeDirectory=, beside the service's own.

    ``shown`` are folders in places that are hidden, to be made visible and writable.
    """

    lines: tuple[str, ...]
    runtime: tuple[str, ...]
    shown: tuple[str, ...]


class Key(NamedTuple):
    """A file that systemd hands over as credential ``name``."""

    name: str
    path: str


def _written(settings: Settings, directory: str) -> dict[str, list[str]]:
    """Folders that the settings make forkserver write to, each with the names of its files there."""
    files = [settings.pidfile, settings.access_log, settings.error_log, settings.control_socket]
    admin = settings.admin_bind or ""
    if admin.startswith("unix:") and not admin.startswith(ABSTRACT):
        files.append(admin.removeprefix("unix:"))
    found: dict[str, list[str]] = {}
    for file in files:
        if file and file not in _NO_PATHS and not is_syslog(file):
            folder, name = os.path.split(invocation.absolute(file, directory))
            found.setdefault(folder, []).append(name)
    found.setdefault(invocation.absolute(settings.spool_dir, directory), [])
    return {folder: names for folder, names in found.items() if folder not in ("/tmp", "/var/tmp", _DEVICES)}


def folders(settings: Settings, directory: str, owner: Account, own: str) -> Folders:
    """How the service of ``owner`` comes to write there; ``own`` is its name in folders that systemd makes for it."""
    # The folder of a bound socket is the socket unit's, which outlives the service.
    sockets = (each.removeprefix("unix:") for each in settings.bind if each.startswith("unix:"))
    bound = {os.path.dirname(invocation.absolute(path, directory)) for path in sockets}
    managed: dict[str, list[str]] = {}
    remarks: list[str] = []
    writable: list[str] = []
    shown: list[str] = []
    for folder, names in sorted(_written(settings, directory).items()):
        place = _place(folder)
        if place and _is_its_own(folder, names, owner) and folder not in bound:
            managed.setdefault(_MANAGED[place], []).append(folder.removeprefix(place + "/"))
            continue
        if not owner.may_write_in(folder):
            remarks.append(_remark(folder, owner, own))
        (shown if _is_hidden(folder) else writable).append(folder)
    runtime = tuple(managed.pop("Runtime", ()))
    if needs_home(owner):
        managed.setdefault("State", []).insert(0, own)
    lines = [line for kind, names in sorted(managed.items()) for line in _made_by_systemd(kind, names)]
    return Folders((*remarks, *lines, *_writable(writable)), runtime, tuple(shown))


def needs_home(owner: Account) -> bool:
    """Whether the account's home is none that the service could see."""
    return owner.uid is None or _is_hidden(owner.home)


def keys(settings: Settings, directory: str, owner: Account) -> dict[str, list[Key]]:
    """By setting, the files of TLS and of variables that the service may not read by itself.

    Where it may not read one of a setting, all of that setting.
    """
    found = {}
    for setting in _HANDED_OVER:
        paths = [invocation.absolute(path, directory) for path in getattr(settings, setting)]
        if not all(map(owner.may_read, paths)):
            found[setting] = [Key(f"{setting}-{number}", path) for number, path in enumerate(paths, 1)]
    return found


def read_by_itself(settings: Settings, directory: str, owner: Account) -> list[str]:
    """Folders with such files that the service reads, at each reload again."""
    handed_over = keys(settings, directory, owner)
    names = [name for name in _HANDED_OVER if name not in handed_over]
    paths = [path for name in names for path in getattr(settings, name)] + [settings.ca_certs or ""]
    return [os.path.dirname(invocation.absolute(path, directory)) for path in paths if path]


def _place(folder: str) -> str:
    """The one of systemd's places that ``folder`` lies in, or nothing."""
    return next((place for place in _MANAGED if folder.startswith(place + "/") and not _is_hidden(folder)), "")


def _is_its_own(folder: str, names: Sequence[str], owner: Account) -> bool:
    """Whether systemd may give ``folder`` to the account, with all that is in it: no file of another account is."""
    try:
        found = os.stat(folder)
        inside = os.listdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    # Beside ours only rotated ones, such as access.log.1.gz.
    return found.st_uid == owner.uid or all(each.startswith(tuple(names)) for each in inside)


def _is_hidden(folder: str) -> bool:
    return any(folder == place or folder.startswith(place + "/") for place in HIDDEN)


def _remark(folder: str, owner: Account, own: str) -> str:
    typed = shlex.quote(folder)
    if owner.uid is None:
        why = f"an account that systemd makes may not write there: name a file in /var/log/{own}"
    elif not os.path.isdir(folder):
        why = f"there is no such folder yet: install -d -o {owner.name} {typed}"
    else:
        why = f"{owner.name} may not write there yet: chown {owner.name} {typed}"
    return one_line(f"# {folder}: {why}")


def _made_by_systemd(kind: str, names: Iterable[str]) -> tuple[str, str]:
    return f"{kind}Directory={' '.join(quoted(name) for name in names)}", f"{kind}DirectoryMode=0750"


def _writable(found: Sequence[str]) -> tuple[str, ...]:
    # With "-" one that is missing is passed over: forkserver's own complaint is the clearer one.
    return (f"ReadWritePaths={' '.join(quoted(f'-{folder}') for folder in found)}",) if found else ()
