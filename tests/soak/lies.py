"""False reports to the master, as an application can write them that runs in a worker."""

from __future__ import annotations

import gc
import os
import random
import struct

from forkserver.ipc import messages
from forkserver.ipc.channel import Channel

ROWS = 64
LONGEST = 2000  # bytes of nonsense


def tell(chance: random.Random, bystander: int) -> None:
    """Name ``bystander`` and other processes as workers that a template has forked; then report what is no message."""
    pids = (-1, 0, 1, bystander, os.getppid())
    named = [messages.encode(messages.Forked(chance.randrange(ROWS), pid)) for pid in pids]
    gc.unfreeze()  # else what was made before the fork is not shown
    channels = [each for each in gc.get_objects() if isinstance(each, Channel) and each.fileno() >= 0]
    if not channels:
        raise LookupError("there is no channel to lie on")
    for channel in channels:
        for data in (*named, chance.randbytes(chance.randint(1, LONGEST))):
            _report(channel, data)


def _report(channel: Channel, data: bytes) -> None:
    """Write one frame into the ring of reports, as Outbox.send does after its checks."""
    outbox = channel._outbox
    frame = struct.pack("=I", len(data)) + data
    outbox._ring.write(outbox._written, frame)
    outbox._written += len(frame)
    os.eventfd_write(outbox._bell, len(frame))
