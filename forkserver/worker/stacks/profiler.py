"""One profile of this worker: a thread that looks where the serving threads are, and writes that for a client.

It wakes ``rate`` times a second, at times that follow no rhythm of the application's, and weighs what it sees by the
time since it has looked last. So a call that held the interpreter's lock meanwhile, in C code, has the whole of it.

A thread that asks for the lock gets it when another releases it, or takes it away after ``sys.getswitchinterval()``
(5 ms). Most calls are shorter, so it would see each thread where it waits for something, and never where it computes.
While the profiler sleeps, the interval is so short that it is seen where it is; while it looks, it is the usual one.

Samples go through shared memory to the client, and past the master. A socket tells the end: its other end is the
client's. What the client does not read in time is lost, and counted.

Source: https://docs.python.org/3/library/sys.html#sys.setswitchinterval.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from forkserver.ipc import messages, profile_records
from forkserver.ipc.profile_records import ProfileEnd, ProfileLoss, ProfileSample, encode_record
from forkserver.ipc.report_ring import Outbox
from forkserver.linux import syscalls
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.worker.stacks.serving_threads import InnermostFrames, ServingThreads, ThreadAtWork
from forkserver.worker.stacks.stack_table import StackTable

SWITCH_SECONDS: Final = 20e-6  # where one thread calls the application; less, and it takes the lock from us as soon
SWITCH_SECONDS_OF_SEVERAL: Final = 100e-6  # they compete, and take the lock from each other as often
_LAST_OF_SEVERAL: Final = 2_500_000  # ns: so it is that short before a look only, 1 to 3 ms, as chance has it
_GOLDEN: Final = 0.6180339887498949  # its multiples, modulo 1, are spread evenly and have no period
_FRAME_BYTES: Final = 16 * 1024
_NANO: Final = 1_000_000_000
_LATE: Final = _NANO // 10  # between two looks: what happens in between is not as what is seen
_END: Final = 0  # events of poll(2) beside an end, which is told in any case


class Profile:
    """What ``order`` asks for, written to ``outbox`` until ``link`` has ended or the time is over.

    ``clock`` is CLOCK_MONOTONIC in ns, ``frames`` gives the innermost frame of each thread.
    """

    def __init__(
        self,
        order: messages.BeginProfile,
        outbox: Outbox,
        link: PlainSocket,
        threads: ServingThreads,
        clock: Callable[[], int] = syscalls.monotonic_ns,
        frames: InnermostFrames = sys._current_frames,
    ) -> None:
        self.over = False  # nothing is sampled any more
        self._paths = order.paths
        self._period = _NANO // min(max(order.rate, 1), profile_records.MOST_RATE)
        self._late = max(10 * self._period, _LATE)
        self._length = round(min(max(order.seconds, 0.0), profile_records.LONGEST_SECONDS) * _NANO)
        self._outbox = outbox
        self._link = link
        self._threads = threads
        self._clock = clock
        self._frames = frames
        self._table = StackTable()
        self._usual = sys.getswitchinterval()
        self._several = threads.several
        self._short = SWITCH_SECONDS_OF_SEVERAL if threads.several else SWITCH_SECONDS
        self._lasted = threads.lasted
        self._looks = 0
        self._lost = 0

    def run(self) -> None:
        """Sample until the end, and tell it."""
        try:
            syscalls.wake_on_time()
            self._write([])  # that it has begun
            last = self._clock()
            until = last + self._length
            while not self._sleep(min(self._pause(), until - last)):
                now = self._clock()
                self.look(now, now - last)
                last = now
                if now >= until:
                    break
            why = ""
        except BaseException:
            why = "a fault of forkserver's; the error log has more"
            raise
        finally:
            self.over = True
            self._put([encode_record(ProfileEnd(why))])

    def _pause(self) -> int:
        """Nanoseconds until the next look: a period on average, half of one to one and a half."""
        return round(self._period * (0.5 + self._looks * _GOLDEN % 1.0))

    def _sleep(self, nanoseconds: int) -> bool:
        """Sleep, and say whether the client has gone."""
        if self._several:
            last = round(_LAST_OF_SEVERAL * ((self._looks + 1) * _GOLDEN % 1.0))
            if nanoseconds > last and syscalls.has_event(self._link.fileno(), _END, (nanoseconds - last) / _NANO):
                return True
            nanoseconds = min(nanoseconds, last)
        interval = sys.getswitchinterval()
        if interval != self._short:
            self._usual = interval
        sys.setswitchinterval(self._short)
        self._short = sys.getswitchinterval()  # as it is rounded
        try:
            return syscalls.has_event(self._link.fileno(), _END, max(0, nanoseconds) / _NANO)
        finally:
            self.restore()

    def restore(self) -> None:
        """Give threads the time that they had before, unless the application has set another."""
        if sys.getswitchinterval() == self._short:
            sys.setswitchinterval(self._usual)

    def look(self, now: int, elapsed: int) -> None:
        """Take a sample of each thread that is at work; ``elapsed`` ns have passed since the last look."""
        self._looks += 1
        seen = self._threads.at_work(self._frames, self._paths)
        samples = [encode_record(self._sample(each, now, elapsed)) for each in seen]
        samples += self._unseen(elapsed)
        del seen  # frames keep the application's objects alive
        if samples:
            self._write(samples)

    def _sample(self, thread: ThreadAtWork, now: int, elapsed: int) -> ProfileSample:
        weight = elapsed
        if elapsed > self._late:  # a call that has begun since then has not lasted so long
            weight = min(elapsed, max(now - thread.since if thread.since else 0, self._period))
        path = self._table.path(thread.line) if thread.line else 0
        return ProfileSample(self._table.stack(thread.frames), path, weight)

    def _unseen(self, elapsed: int) -> list[bytes]:
        """After a look that came late: what calls have taken that ended before it."""
        lasted, self._lasted = self._threads.lasted - self._lasted, self._threads.lasted
        if elapsed <= self._late or lasted <= self._period:
            return []
        return [encode_record(ProfileSample(self._table.unseen, 0, min(lasted, elapsed)))]

    # Writing

    def _write(self, samples: list[bytes]) -> None:
        new = self._table.new
        told = self._put(new)
        del new[:told]
        if new:
            self._lost += len(samples)  # they would name what the reader does not know
            return
        if self._lost and self._put([encode_record(ProfileLoss(self._lost))]):
            self._lost = 0
        self._lost += len(samples) - self._put(samples)

    def _put(self, records: list[bytes]) -> int:
        """Write ``records``, several to a frame; returns how many of them there was room for."""
        at = 0
        while at < len(records):
            size, end = 0, at
            while end < len(records) and (end == at or size + len(records[end]) <= _FRAME_BYTES):
                size += len(records[end])
                end += 1
            if not self._outbox.put_frame(b"".join(records[at:end])):
                break
            at = end
        return at

    def close(self) -> None:
        """Close what the worker has of it; the client sees the end."""
        self._outbox.close()
        self._link.close()


def refuse(outbox: Outbox, link: PlainSocket, why: str) -> None:
    """Tell the client that no profile begins, and ``why``."""
    outbox.put_frame(encode_record(ProfileEnd(why)))
    outbox.close()
    link.close()
