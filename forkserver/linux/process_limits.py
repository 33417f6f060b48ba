"""Which limit on processes and threads is reached, in words for the log.

The kernel refuses a process or a thread with EAGAIN where one of three limits is reached: ``pids.max`` of a control
group (systemd: ``TasksMax``), RLIMIT_NPROC of the user (``ulimit -u``; root is exempt), or the machine's
``threads-max`` and ``pid_max``. Each is read where it can be; a sandbox may hide all of them.

Source: fork(2), errors; getrlimit(2); Linux Documentation/admin-guide: cgroup-v2.rst, "PID"; cgroup-v1/pids.rst.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from typing import Final

from forkserver.linux.cgroups import CGROUPS, MEMBERSHIP, groups

_NAME: Final = 100  # characters of a group's name in a message
_NEAR: Final = 2  # fewer free places than that, and the limit is the one that was reached


def reached(cgroups: str = CGROUPS, membership: str = MEMBERSHIP) -> str:
    """The limits that bind this process, the one that is reached first; empty where none can be read."""
    limits = list(_of_groups(cgroups, membership))
    if full := [text for free, text in limits if free < _NEAR]:
        return f"{full[0]}; raise TasksMax= of the unit, or the container's limit of pids"
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:
        return f"RLIMIT_NPROC of uid {os.geteuid()} is {soft}; raise LimitNPROC= of the unit, or ulimit -u"
    return min(limits)[1] if limits else ""


def why_refused(error: OSError) -> str:
    """Why a process, or the descriptors for one, were refused, with the limit that is reached where it is one."""
    why = error.strerror or str(error)
    if error.errno == errno.EMFILE:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        command = "ulimit -n" if soft < hard else "ulimit -Hn"
        return f"{why} (RLIMIT_NOFILE is {soft}; raise LimitNOFILE= of the unit, or {command}, or run fewer workers)"
    return with_limit(why) if error.errno == errno.EAGAIN else why


def with_limit(why: str, cgroups: str = CGROUPS, membership: str = MEMBERSHIP) -> str:
    """``why`` a process or thread was refused, followed by the limit that is reached, where that is known."""
    limit = reached(cgroups, membership)
    return f"{why} ({limit})" if limit else why


def _of_groups(cgroups: str, membership: str) -> Iterator[tuple[int, str]]:
    """The free places in each control group that has a limit, with a sentence that names both."""
    for group in groups("pids", cgroups, membership):
        most, current = group.read("pids.max"), group.read("pids.current")
        if most.isdigit() and current.isdigit():
            text = f"pids.max of control group {ascii(group.name)[1:-1][-_NAME:]} is {most}, and {current} run"
            yield int(most) - int(current), text
