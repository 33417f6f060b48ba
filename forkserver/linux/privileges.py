"""The rights of the application: user, groups, umask, and the variables that tell programs which user that is.

They are given up for good and all at once, before any code of the application is imported.

Source: credentials(7), initgroups(3), environ(7), PR_SET_NO_NEW_PRIVS in prctl(2).
"""

from __future__ import annotations

import grp
import os
import pwd
from typing import Final

from forkserver.errors import ConfigError
from forkserver.linux import syscalls
from forkserver.linux.common.records import NamedTuple

# Folders that root's session may name and that another user cannot write to.
_FOLDER_VARIABLES: Final = ("TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR")


class Credentials(NamedTuple):
    """The user and group to become, -1 where they stay as they are; ``name`` is the user's, for initgroups.

    With ``no_new_privs`` a program that the application starts gains nothing by setuid and setgid bits.
    """

    uid: int = -1
    gid: int = -1
    name: str | None = None
    umask: int | None = None
    no_new_privs: bool = False

    @property
    def changes(self) -> bool:
        return self.uid != -1 or self.gid != -1

    def take(self) -> None:
        """Become that user, that group and that user's supplementary groups. Raises OSError."""
        if self.umask is not None:
            os.umask(self.umask)
        # Settings have refused another user than ours; a group without root is refused below.
        if os.geteuid() == 0 and self.changes:
            self._drop()
        if self.no_new_privs:
            syscalls.refuse_new_privileges()

    def _drop(self) -> None:
        gid = self.gid if self.gid != -1 else os.getgid()
        if self.name is not None:
            os.initgroups(self.name, gid)
        else:
            os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        if self.uid != -1:
            os.setresuid(self.uid, self.uid, self.uid)
            _introduce(self.uid)


def _introduce(uid: int) -> None:
    """Say in the environment who ``uid`` is, as login(1) and systemd.exec(5) do: root's own values are not its own."""
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        for variable in ("USER", "LOGNAME", "SHELL"):
            os.environ.pop(variable, None)
        os.environ["HOME"] = "/"
    else:
        own = {"HOME": found.pw_dir, "USER": found.pw_name, "LOGNAME": found.pw_name, "SHELL": found.pw_shell}
        os.environ.update({variable: value for variable, value in own.items() if value})
    for variable in _FOLDER_VARIABLES:
        if variable in os.environ and not os.access(os.environ[variable], os.W_OK | os.X_OK):
            del os.environ[variable]


def wanted(user: str | None, group: str | None, umask: int | None, no_new_privs: bool = False) -> Credentials:
    """The rights that the settings ``user`` and ``group`` name, by name or number. Raises ConfigError."""
    uid, gid, name = -1, -1, None
    if user is not None:
        uid, gid, name = _account(user)
    if group is not None:
        gid = group_id(group)
    if gid not in (-1, os.getegid()) and os.geteuid() != 0 and group is not None:
        raise ConfigError(f"group {group!r}: only root may change its group; start as root or leave it out")
    return Credentials(uid, gid, name, umask, no_new_privs)


def socket_owner(user: str | None, group: str | None, umask: int | None, socket_group: str | None) -> Credentials:
    """The owner of a Unix socket: as ``wanted``, but ``socket_group`` where that is named. Raises ConfigError."""
    owner = wanted(user, group, umask)
    return owner if socket_group is None else owner._replace(gid=group_id(socket_group))


def _account(user: str) -> tuple[int, int, str | None]:
    """Uid, group and name of ``user``; a number without an account is taken as it is, with a group to match."""
    try:
        found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if user.isdecimal():
            return int(user), int(user), None
        raise ConfigError(f"user {user!r}: no such user here; name another") from None
    return found.pw_uid, found.pw_gid, found.pw_name


def group_id(group: str) -> int:
    """The number of ``group``, a name or a number. Raises ConfigError."""
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"group {group!r}: no such group here; name another") from None
