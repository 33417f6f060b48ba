"""Which users may connect to a Unix socket, in a sentence for the start's first lines.

A connect(2) needs write permission on the socket's file and search permission on every folder above it; root needs
neither. A web server that runs as another user is the usual client, and a socket that it cannot open the usual mistake.

Source: unix(7) "Pathname socket ownership and permissions", path_resolution(7).
"""

from __future__ import annotations

import grp
import os
import stat
from typing import Final

from forkserver.linux.files.file_permissions import group_name, user_name

# Accounts of web servers: Debian's, then Red Hat's and Arch's, and those that are named for the program.
_WEB_SERVERS: Final = ("www-data", "nginx", "apache", "http", "caddy", "haproxy")
# What the kernel shows for a group that this user namespace does not map: /proc/sys/kernel/overflowgid by default.
_UNSEEN: Final = 65534
_EVERY: Final = "every user"


def told(path: str, own: bool) -> str | None:
    """Which users may connect to the socket at ``path``, and how a web server becomes one; None where there is no such.

    ``own`` says that forkserver made it, by its own settings.
    """
    try:
        found = os.stat(path)
        folder = _narrowest(path)
    except OSError:  # removed, or moved away
        return None
    if not own and found.st_gid == _UNSEEN and found.st_mode & stat.S_IWGRP:  # a unit with PrivateUsers=
        return (
            f"unix:{path} (mode {stat.S_IMODE(found.st_mode):04o}): its socket unit gives it to a group that is not "
            "seen in this service's user namespace; `ls -l` of the path shows it"
        )
    users = _allowed(found, stat.S_IWGRP, stat.S_IWOTH)
    sentence = f"unix:{path} ({_credentials(found)}): {_only(users)} may connect"
    if folder is not None:
        place, its = folder
        sentence += f", and {_only(_allowed(its, stat.S_IXGRP, stat.S_IXOTH))} may enter {place} ({_credentials(its)})"
    way_out = _way_out(found, own)
    return f"{sentence}; {way_out}" if way_out else sentence


def _narrowest(path: str) -> tuple[str, os.stat_result] | None:
    """The folder nearest to ``path`` that not every user may enter."""
    place = os.path.dirname(os.path.realpath(path))
    while True:
        found = os.stat(place)
        if not found.st_mode & stat.S_IXOTH:
            return place, found
        above = os.path.dirname(place)
        if above == place:
            return None
        place = above


def _allowed(found: os.stat_result, of_group: int, of_others: int) -> str:
    if found.st_mode & of_others:
        return _EVERY
    users = list(dict.fromkeys(["root", f"user {user_name(found.st_uid)}" if found.st_uid else "root"]))
    if found.st_mode & of_group:
        users.append(f"group {group_name(found.st_gid)}")
    return " and ".join(filter(None, (", ".join(users[:-1]), users[-1])))


def _only(users: str) -> str:
    return users if users == _EVERY else f"only {users}"


def _way_out(found: os.stat_result, own: bool) -> str:
    if found.st_mode & stat.S_IWOTH:
        return ""
    if not own:
        return "" if _with_web_server(found) else "SocketGroup= and SocketMode= of its socket unit let a web server in"
    if not found.st_mode & stat.S_IWGRP:
        return "--socket-mode 0660 lets its group in, too"
    if found.st_gid == 0:
        return "let a web server in with --socket-group and its group, or with --socket-mode 0666"
    if _with_web_server(found):
        return ""
    group = group_name(found.st_gid)
    return (
        f"let a web server in with --socket-group and its group, with `usermod -aG {group} {_WEB_SERVERS[0]}` and its "
        "restart, or with --socket-mode 0666"
    )


def _with_web_server(found: os.stat_result) -> bool:
    """Whether the group has a web server's account in it."""
    if not found.st_mode & stat.S_IWGRP:
        return False
    try:
        group = grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    return not {group.gr_name, *group.gr_mem}.isdisjoint(_WEB_SERVERS)


def _credentials(found: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(found.st_mode):04o}, {user_name(found.st_uid)}:{group_name(found.st_gid)}"
