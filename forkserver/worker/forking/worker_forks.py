"""Forking workers, so that each becomes a child of the master and is known to it before it does anything.

A worker is forked twice: the process between ends at once, so that the worker becomes the child of the master, the
nearest subreaper (prctl(2)), and outlives its template. The process between forks all workers that are ordered at one
time, for its own fork and end cost as much as a worker's, and sends the pid and pidfd of each to the template. The
workers wait at a gate until their pids have been reported to the master (fork_handshake.py).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from forkserver.ipc import messages
from forkserver.ipc.channel import Arrival, Channel, close_all
from forkserver.linux import process_limits, signals, syscalls
from forkserver.linux.descriptor_limit import Headroom
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.forking.fork_handshake import ForkHandshake, open_handshake
from forkserver.worker.forking.worker_pidfds import WorkerPidfds

# From the process between, before a row and the pid there; what begins otherwise has a row and why there is none.
_FORKED: Final = b"+"


def flush() -> None:
    """Write what the application has printed. That it cannot be written, or that there is no flush, is no fault here.

    The disk may be full, the reader of a pipe gone, and the stream an object of the application's own.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()


class WorkerForks:
    """Forks the workers of one template, the process that makes this object.

    ``run`` is the life of a worker, ``leave_behind`` closes what is the template's own. Reports go by ``channel``.
    Workers have sessions of their own, but where they are not to be ``apart`` from the terminal.
    """

    apart = True

    def __init__(
        self,
        log: ErrorLog,
        channel: Channel,
        pidfds: WorkerPidfds,
        run: Callable[[messages.Spawn, Channel], int],
        leave_behind: Callable[[], None],
    ) -> None:
        self._log = log
        self._channel = channel
        self._pidfds = pidfds
        self._run = run
        self._leave_behind = leave_behind
        self._template = os.getpid()
        self._forking = False  # the process between is being forked
        self._headroom = Headroom(0, 0)

    def take_headroom(self, headroom: Headroom) -> None:
        """Have room for the template's own descriptors from now on, but in what is forked."""
        self._headroom = headroom
        headroom.take()

    def forked(self) -> None:
        """First of all in a process that was forked here, before a hook of the application that may hang.

        The process between is known to its template alone, so it ends with it.
        """
        if self._forking:
            self._forking = False
            syscalls.die_with_parent(signal.SIGKILL)
            if os.getppid() != self._template:
                os._exit(1)

    def fork(self, spawns: list[Arrival]) -> None:
        """Fork the process that forks the workers, wait for its end, and let the workers go.

        ``spawns`` are orders for workers, each with the descriptors of its channel.

        No ``finally`` here: the children leave through these frames too.
        """
        flush()  # what stands in a buffer would be printed twice
        orders = [each.message for each in spawns if isinstance(each.message, messages.Spawn)]
        try:
            fork_handshake = open_handshake([each.descriptors for each in spawns])
        except OSError as error:
            self._report_failures(orders, process_limits.why_refused(error))
            return
        self._forking = True
        self._headroom.give_back()
        try:
            between = signals.spawn(lambda: self._between(orders, fork_handshake))
        except OSError as error:
            self._headroom.take()
            self._report_failures(orders, process_limits.why_refused(error))
        else:
            self._headroom.take()
            fork_handshake.theirs.close()
            reports = self._read_reports(fork_handshake.ours, len(orders))
            if status := syscalls.wait_for(between):
                self._log.error(f"a fork ended before there was a worker: {syscalls.how_it_ended(status)}")
            for report in reports:
                self._report_fork(report)
        self._forking = False
        fork_handshake.close()  # the gate with it: the workers are the master's children by now, and named

    def _report_failures(self, orders: list[messages.Spawn], why: str) -> None:
        for order in orders:
            self._channel.send(messages.ForkFailed(order.row, why))

    def _read_reports(self, ours: PlainSocket, most: int) -> list[bytes]:
        """What the process between says of each worker; less where the application has ended it early."""
        reports: list[bytes] = []
        while len(reports) < most:
            data, descriptors, _, _ = socket.recv_fds(ours, 1024, 1, socket.MSG_CMSG_CLOEXEC)
            self._pidfds.add(descriptors)
            if not data:
                break
            reports.append(data)
        return reports

    def _report_fork(self, report: bytes) -> None:
        """Pass the worker's pid on while it is the master's child already and the gate is still shut.

        The master verifies it, and knows it before its channel can end. Without a pid, that end tells the master.
        """
        row, _, said = report[1:].decode().partition(" ")
        if report.startswith(_FORKED):
            self._channel.send(messages.Forked(int(row), int(said)))
        else:
            self._channel.send(messages.ForkFailed(int(row), said))

    def _between(self, orders: list[messages.Spawn], fork_handshake: ForkHandshake) -> int:
        """The process between: fork the workers, pass their pidfds to the template, end."""
        fork_handshake.ours.close()
        os.close(fork_handshake.gatepost)
        self._leave_behind()
        self._pidfds.close()
        for order, channel in zip(orders, fork_handshake.channels, strict=True):
            self._fork_worker(order, channel, fork_handshake)
        os._exit(0)

    def _fork_worker(self, order: messages.Spawn, channel: Channel, fork_handshake: ForkHandshake) -> None:
        try:
            pid = signals.spawn(lambda: self._worker(order, channel, fork_handshake))
        except OSError as error:
            fork_handshake.theirs.send(f"-{order.row} {process_limits.why_refused(error)}".encode())
            return
        pidfds = []
        try:
            pidfds.append(os.pidfd_open(pid))
        except OSError as error:  # the worker lives, but the template cannot end it once the master is gone
            self._log.error(f"cannot watch pid={pid}: {error.strerror}")
        socket.send_fds(fork_handshake.theirs, [_FORKED + f"{order.row} {pid}".encode()], pidfds)
        close_all(pidfds)

    def _worker(self, order: messages.Spawn, channel: Channel, fork_handshake: ForkHandshake) -> int:
        """The worker: at the gate until the process between has ended, then on its own."""
        if self.apart:
            os.setsid()  # no signal to the group of one worker reaches another
        fork_handshake.theirs.close()
        for other in fork_handshake.channels:
            if other is not channel:
                other.close()  # or the master would not see the end of that worker
        os.read(fork_handshake.gate, 1)
        os.close(fork_handshake.gate)
        return self._run(order, channel)
