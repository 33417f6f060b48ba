"""The directory that relative names in the settings are meant from.

It is entered by its path, again at each reload, since a link on the path may lead to a new release by then. Where
another user may change the path, that user chooses the directory. What is opened there by root by a relative name would
be opened with root's rights in a folder of that user's choice, such as /etc/sudoers.d: the walk of trusted_paths.py
begins at the directory and does not see which way led to it. ``refuse_chosen`` compares the two.

Source: chdir(2), getcwd(3); path_resolution(7).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from forkserver.config.settings import FILE, Settings
from forkserver.errors import ConfigError
from forkserver.linux.files import trusted_paths
from forkserver.linux.sockets.socket_file import ABSTRACT
from forkserver.logs.syslog import is_syslog

_FILES: Final = ("env_file", "pidfile", "control_socket", "certfile", "keyfile", "ca_certs", "access_log", "error_log")
_NO_FILES: Final = ("", "-", "auto", "off")


@contextmanager
def entered(directory: str) -> Iterator[None]:
    """Make ``directory`` the current one; where the block raises, the one of before again. Raises ConfigError."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            os.chdir(directory)
        except OSError as error:
            raise ConfigError(f"{directory}: cannot be entered: {error.strerror}; put it back") from None
        yield
    except BaseException:
        os.fchdir(before)
        raise
    finally:
        os.close(before)


def refuse_chosen(settings: Settings, directory: str) -> None:
    """Refuse relative names of files that root opens, where another user has chosen where ``directory`` leads.

    ``directory`` is the path by which the current directory was entered. Raises ConfigError.
    """
    name = next(_relative(settings), "")
    if not name or os.geteuid() != 0:
        return
    try:
        why = trusted_paths.why_chosen(directory)
    except OSError as error:
        raise ConfigError(f"{directory}: {(error.strerror or str(error)).lower()}; give whole paths") from None
    if why:
        raise ConfigError(
            f"{name}: relative to {directory}, which leads to {os.getcwd()}, and root opens no file where another user "
            f"has led it: {why}; give its whole path"
        )


def _relative(settings: Settings) -> Iterator[str]:
    """The settings that name files by relative paths, in words."""
    if settings.config_path is not None and not os.path.isabs(settings.config_path):
        named = settings.config is not None
        yield f"config {settings.config_path!r}" if named else f"{FILE} of the current directory"
    for name in _FILES:
        value = getattr(settings, name)
        for path in value if isinstance(value, list) else [value]:
            if path is not None and path not in _NO_FILES and not os.path.isabs(path) and not is_syslog(path):
                yield f"{name} {path!r}"
    bound = [("bind", address) for address in settings.bind]
    bound += [] if settings.admin_bind is None else [("admin_bind", settings.admin_bind)]
    for name, address in bound:
        path = address.removeprefix("unix:")
        if path != address and not address.startswith(ABSTRACT) and not os.path.isabs(path):
            yield f"{name} {address!r}"
