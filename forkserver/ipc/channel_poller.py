"""The master's channels: one to each process, and one wait for all of them (epoll(7)).

``wait`` names the processes that have reported; the caller takes a bounded number of messages from each, and what is
left wakes the next wait at once. A send never waits. So a process that has closed its end, does not read, or reports
without end never blocks the master. Where the kernel refuses an order, such as for want of memory, ``on_refused`` is
told and the order counts as not sent. What stands for a process is the caller's: any hashable object.
"""

from __future__ import annotations

import math
import select
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Final, Generic, TypeVar

from forkserver.ipc import report_ring
from forkserver.ipc.channel import MasterChannel, OlderChannel
from forkserver.ipc.messages import Message

P = TypeVar("P", bound=Hashable)
AnyChannel = MasterChannel | OlderChannel
_OTHERS: Final = 16  # descriptors that only end a wait
LONGEST_WAIT: Final = 24 * 3600.0  # the milliseconds of a wait must fit into an int, epoll_wait(2): then wait again


class ChannelPoller(Generic[P]):
    """Channels by process; ``wake_up`` is a further descriptor that ends a wait."""

    def __init__(self, wake_up: int, on_refused: Callable[[P, Message, OSError], None]) -> None:
        self._channels: dict[P, AnyChannel] = {}
        self._by_descriptor: dict[int, P] = {}
        self._on_refused = on_refused
        self._epoll = select.epoll()
        self._epoll.register(wake_up, select.EPOLLIN)

    def __iter__(self) -> Iterator[P]:
        return iter(list(self._channels))

    def wake_by(self, descriptor: int) -> None:
        """Have ``descriptor``, too, end a wait when it is readable."""
        self._epoll.register(descriptor, select.EPOLLIN)

    def add(self, process: P, channel: AnyChannel) -> None:
        """Listen to ``process``."""
        self._channels[process] = channel
        for number, events in channel.watched:
            self._by_descriptor[number] = process
            self._epoll.register(number, events)

    def drop(self, process: P) -> None:
        """Close the channel to ``process``, if it is still there."""
        channel = self._channels.pop(process, None)
        if channel is not None:
            for number, _ in channel.watched:
                self._epoll.unregister(number)
                del self._by_descriptor[number]
            channel.close()

    def channel(self, process: P) -> AnyChannel | None:
        """The channel to ``process``, or None once it is dropped."""
        return self._channels.get(process)

    def order(self, process: P, order: Message, descriptors: Iterable[int] = ()) -> bool:
        """Send ``order``, and say whether it went."""
        channel = self._channels.get(process)
        try:
            return channel is not None and channel.send(order, descriptors)
        except OSError as error:
            self._on_refused(process, order, error)
            return False

    def wait(self, seconds: float) -> list[P]:
        """The processes that have reported, once one has or ``seconds`` are over; infinity is no limit."""
        waiting = [process for process, channel in self._channels.items() if channel.waiting]
        longest = 0.0 if waiting else min(max(0.0, seconds), LONGEST_WAIT)
        most = len(self._by_descriptor) + _OTHERS  # all at once: a wait of no time is to name each that has spoken
        ready = self._epoll.poll(None if seconds == math.inf and not waiting else longest, most)
        # Where a stop of this process (SIGSTOP, a freezer) outlasts the wait, that ends without a look: PEP 475.
        ready = ready or self._epoll.poll(0, most)
        speakers = (self._by_descriptor[number] for number, _ in ready if number in self._by_descriptor)
        return list(dict.fromkeys([*speakers, *waiting]))  # each once

    def descriptors(self, processes: Iterable[P]) -> list[int]:
        """The descriptors of the channels to ``processes``, -1 for one that has none any more."""
        channels = map(self.channel, processes)
        return [-1 if channel is None else channel.fileno() for channel in channels]

    def report_rings(self, processes: Iterable[P]) -> list[report_ring.ReportRingSnapshot | None]:
        """What the next program is told of their reports; None for one that is gone or reports on its socket."""
        channels = map(self.channel, processes)
        return [None if channel is None else channel.snapshot() for channel in channels]

    def close(self) -> None:
        """Close everything; in a process just forked this leaves the master's own copies alone."""
        for channel in self._channels.values():
            channel.close()
        self._epoll.close()
