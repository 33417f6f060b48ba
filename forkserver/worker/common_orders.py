"""Orders that mean the same to every child of the master, at any time."""

from __future__ import annotations

from forkserver.ipc.channel import Arrival, Channel, close_all
from forkserver.ipc.messages import LogFiles, LogsAdopted
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog


def adopt_logs(
    order: LogFiles, descriptors: tuple[int, ...], log: ErrorLog, access: AccessLog, channel: Channel
) -> None:
    """Go on in the log files that the master has opened again, and tell it so."""
    left = list(descriptors)
    if order.error and left:
        log.adopt(left.pop(0))
    if order.access and left:
        access.adopt(left.pop(0))
    close_all(left)
    channel.send(LogsAdopted())


def obey_in_passing(arrival: Arrival, log: ErrorLog, access: AccessLog, channel: Channel) -> None:
    """Obey an order that means the same at any time."""
    if isinstance(arrival.message, LogFiles):
        adopt_logs(arrival.message, arrival.descriptors, log, access, channel)
        return
    log.error(f"cannot obey {arrival.message}")
    close_all(arrival.descriptors)
