"""Binding Unix sockets: at a path, or at a name of the abstract namespace.

Source: unix(7).
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

from forkserver.errors import BindError
from forkserver.linux.files import trusted_paths
from forkserver.linux.files.file_permissions import acting_as
from forkserver.linux.files.trusted_paths import Place, UntrustedPathError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.linux.sockets.socket_file import ABSTRACT, clear_stale, give, maker_of
from forkserver.linux.sockets.stream_socket import bind_error, new_socket, prepare


def bind_abstract(address: str, backlog: int) -> ListeningSocket:
    """Listen at a name of the abstract namespace, which ends with its last descriptor. Raises BindError. unix(7)."""
    listening = new_socket(socket.AF_UNIX, address)
    try:
        prepare(listening)
        listening.bind(b"\0" + os.fsencode(address.removeprefix(ABSTRACT)))
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise bind_error(address, error, address.removeprefix("unix:")) from None
    return ListeningSocket(listening, own=True)


def bind_unix(
    path: str, backlog: int, mode: int, credentials: Credentials, service: int | None = None
) -> ListeningSocket:
    """Listen at ``path``: a stale socket there is replaced, a live one refused. Raises BindError.

    In a folder that another user may change, the socket is made with that user's rights (trusted_paths.py);
    ``service`` is the uid that workers run as, where that is not the owner in ``credentials``.
    """
    try:
        with trusted_paths.find(path, credentials.uid if service is None else service, follow=False) as place:
            listening = _bind_in(place, path, backlog, mode, credentials)
    except UntrustedPathError as error:
        raise BindError(f"cannot bind unix:{path}: {error}") from None
    except BindError:
        raise
    except OSError as error:
        raise _unix_error(path, error) from None
    return ListeningSocket(listening, own=True, owner=credentials, service=service)


def _bind_in(place: Place, path: str, backlog: int, mode: int, credentials: Credentials) -> socket.socket:
    maker = maker_of(place, credentials)
    listening = new_socket(socket.AF_UNIX, f"unix:{path}")
    try:
        prepare(listening)
        with acting_as(maker):
            clear_stale(path)
            _bind_with_mode(listening, path, mode)
        try:
            if credentials.changes:
                give(path, credentials, maker)
            listening.listen(backlog)
        except BaseException:
            with suppress(OSError), acting_as(maker):
                os.unlink(path)
            raise
    except BaseException as error:
        listening.close()
        if isinstance(error, PermissionError) and not isinstance(error, BindError) and maker is not None:
            raise BindError(
                f"cannot bind unix:{path}: {place.reason}, so it is made with the rights of {maker.name}, which do not "
                f"suffice; let {maker.name} write that folder, or choose one that only root may write",
                error.errno,
            ) from None
        raise
    return listening


def _bind_with_mode(listening: socket.socket, path: str, mode: int) -> None:
    before = os.umask(0o777 & ~mode)  # from its first moment the file has its mode: no chmod to win a race against
    try:
        listening.bind(path)
    finally:
        os.umask(before)


def _unix_error(path: str, error: OSError) -> BindError:
    folder = os.path.dirname(path)
    if error.errno == errno.EACCES:
        own = f"/run/user/{os.geteuid()}" if os.geteuid() else "/run"
        reason = (
            f"permission denied, this user (uid {os.geteuid()}) may not make files in {folder}; choose a folder of its "
            f"own, such as --bind unix:{own}/{os.path.basename(path)}, or have systemd make one (RuntimeDirectory=)"
        )
    elif error.errno == errno.ENOENT:
        reason = f"there is no folder {folder}; make it, or choose another with --bind"
    elif error.errno == errno.EROFS:
        from forkserver.linux.files import read_only  # late: for a mistake

        reason = f"read-only file system; {read_only.way_out(error, path)}"
    else:
        return bind_error(f"unix:{path}", error)
    return BindError(f"cannot bind unix:{path}: {reason}", error.errno)
