"""The log writer: a helper that writes the master's lines where the application could have the master wait.

What it writes to may be held in the kernel by a process of the application, for as long as that likes (log_output.py).
Then this process waits, and its queue fills up; the master drops what does not fit, and counts it. For the same reason
this process waits for a reader that has stopped reading, and tries again where a disk is full: it loses nothing itself
while the master lives. At the end of the queue it says that all is written and stays until the master has ended.

It keeps each pipe open that the application may have too, for the kernel takes the same lock where the last descriptor
is closed: that is never the master's, at its end, at an upgrade's execve(2), and where a reload closes a log. Where no
line is to be written by another process, keeping pipes open is all that this one does.

The end of the queue says nothing of the master's own: an interpreter, and the kernel, may close that before a pipe. So
this process waits for a signal. LEAVE comes from a master that does not need it any more, or from the kernel once the
master has ended, which is after its last close (PR_SET_PDEATHSIG, sent by exit_notify() after exit_files() and
exit_task_work()). LEAVE_NOW has the kernel kill a process that does not get on, at the same moment.

Source: prctl(2), signal(7).
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
from typing import Final, NoReturn

from forkserver.linux import signals, syscalls
from forkserver.linux.common.process_title import set_title
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.files import file_size_limit
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.logs import log_output
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.forking.helper_process import run_to_end

WRITTEN: Final = b"\0"  # all that was sent is written
ORDERS: Final = frozenset({signals.LEAVE, signals.LEAVE_NOW})
_MOST_BYTES: Final = 64 * 1024  # of what the master sends at once
_AGAIN_SECONDS: Final = 0.5  # between two tries where a write fails
_RDHUP: Final = 0x2000  # POLLRDHUP of poll(2): the master sends nothing any more
_NOW: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class PumpConfig(NamedTuple):
    """What the master gives at the fork: the end of the queue to read, the log to write, the application, its pid."""

    queue: int
    log: ErrorLog
    app: str
    master: int


def main(config: PumpConfig) -> NoReturn:
    """The life of the log writer, from its fork, for which ``ORDERS`` are blocked."""
    run_to_end(lambda: _run(config), config.log, "the log writer")


def _run(config: PumpConfig) -> None:
    signals.forget_parent()
    signal.signal(signals.LEAVE_NOW, lambda _signum, _frame: _end_with(config.master))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signals.LEAVE_NOW})
    set_title(f"forkserver: log writer [{config.app}]")
    config.log.process = "log writer"
    ours = {0, 1, 2, config.queue, config.log.fileno(), *log_output.pipes()}
    for number, following in itertools.pairwise([*sorted(ours), os.sysconf("SC_OPEN_MAX")]):
        os.closerange(number + 1, following)
    LogPump(PlainSocket(fileno=config.queue), config.log.fileno()).run()
    _outlive(config.master)


def _outlive(master: int) -> None:
    """Return once ``master`` has ended and has closed what it had open, or has said that it does not need us."""
    syscalls.die_with_parent(signals.LEAVE)
    if os.getppid() == master:
        signal.sigwait({signals.LEAVE})


def _end_with(master: int) -> None:
    """Have the kernel end this process once ``master`` has ended and has closed what it had open."""
    syscalls.die_with_parent(signal.SIGKILL)
    if os.getppid() != master:
        os._exit(0)


class LogPump:
    """Writes to the descriptor ``target`` what comes by ``queue``, a socket that keeps messages apart."""

    def __init__(self, queue: PlainSocket, target: int) -> None:
        self._queue = queue
        self._target = target
        self._piece = select.PIPE_BUF if log_output.is_fifo(target) else None
        self._reason = ""

    def run(self) -> None:
        """Write until the queue has ended, and say so."""
        while data := self._queue.recv(_MOST_BYTES):
            self.write(data)
        try:
            self._queue.send(WRITTEN, _NOW)
        except OSError:  # the master does not listen any more, or is full of our reasons and will not wait for this
            pass

    def write(self, data: bytes) -> None:
        """Write whole lines, in pieces that a pipe takes at once."""
        view = memoryview(data)
        for begin, end in log_output.pieces(data, self._piece):
            while begin < end:
                try:
                    begin += os.write(self._target, view[begin:end])
                except BlockingIOError:  # another process has made its description so, which is ours too
                    syscalls.has_event(self._target, select.POLLOUT, 60.0)
                except OSError as error:
                    if not self._again(file_size_limit.of_log(error)):
                        return
            self._reason = ""

    def _again(self, reason: str) -> bool:
        """Tell the master why a write has failed, once; whether another try is worth it, for which this waits."""
        if reason != self._reason:
            self._reason = reason
            try:
                self._queue.send(reason.encode(), _NOW)
            except OSError:  # it reads them only when it drops lines
                pass
        return not syscalls.has_event(self._queue.fileno(), _RDHUP, _AGAIN_SECONDS)
