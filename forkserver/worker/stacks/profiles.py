"""The profiles that clients ask of this worker, one at a time: the thread of the one that is taken."""

from __future__ import annotations

import threading
from types import CodeType
from typing import Any, Final

from forkserver.ipc.channel import close_all
from forkserver.ipc.messages import BeginProfile
from forkserver.ipc.report_ring import Ends, Outbox
from forkserver.ipc.scoreboard import Row
from forkserver.linux.process_limits import with_limit
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.stacks.profiler import Profile, refuse
from forkserver.worker.stacks.serving_threads import ServingThreads

_DESCRIPTORS: Final = 3  # memory, bell, and the socket that tells the end
_TAKEN: Final = "another profile of it is being taken; ask again when that is over"


class Profiles:
    """Of the server ``httpd``; see ServingThreads for ``row`` and ``entry``."""

    def __init__(self, httpd: Any, row: Row, entry: CodeType, log: ErrorLog) -> None:
        self._threads = ServingThreads(httpd, row, entry)
        self._log = log
        self._profile: Profile | None = None

    def begin(self, order: BeginProfile, descriptors: tuple[int, ...]) -> None:
        """Take a profile, or tell the client why there is none. Takes the ``descriptors`` over. Raises OSError."""
        if len(descriptors) != _DESCRIPTORS:
            close_all(descriptors)
            self._log.error(f"{order} with {len(descriptors)} descriptors")
            return
        memory, bell, number = descriptors
        link = PlainSocket(fileno=number)
        try:
            outbox = Outbox(Ends(memory, bell))
        except BaseException:
            link.close()
            raise
        if self._profile is not None and not self._profile.over:
            refuse(outbox, link, _TAKEN)
            return
        profile = Profile(order, outbox, link, self._threads)
        try:
            threading.Thread(target=self._take, args=(profile,), name="profiler", daemon=True).start()
        except RuntimeError as error:
            refuse(outbox, link, with_limit(str(error)))
            return
        self._profile = profile

    def _take(self, profile: Profile) -> None:
        try:
            profile.run()
        except Exception as error:
            self._log.exception("a fault in a profile", error)
        finally:
            profile.close()

    def forget(self) -> None:
        """In a process that the application has forked, which has no such thread: leave nothing of a profile."""
        profile, self._profile = self._profile, None
        if profile is not None:
            profile.restore()
            profile.close()
