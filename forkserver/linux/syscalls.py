"""System calls on processes that the os module lacks, or that a test replaces.

Each does what its manual page says, and raises OSError where it fails.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import time
from array import array
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

from forkserver.linux.sockets.plain_socket import Closable

PR_SET_PDEATHSIG: Final = 1  # include/uapi/linux/prctl.h
PR_SET_DUMPABLE: Final = 4
PR_SET_TIMERSLACK: Final = 29
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38

OOM_SCORE_MAX: Final = 1000
SCM_MAX_FD: Final = 253  # descriptors beside one message, unix(7)

_SIGSET_BYTES: Final = 128  # sigset_t of glibc and musl; the kernel reads its first words
_SFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC  # SFD_NONBLOCK and SFD_CLOEXEC are defined as these
# struct signalfd_siginfo: ssi_signo, ssi_errno, ssi_code, ssi_pid, ssi_uid, and what is not looked at.
_SIGINFO: Final = struct.Struct("=IiiII108x")
_SIGNALS_AT_ONCE: Final = 16
SO_PASSRIGHTS: Final = 83  # include/uapi/asm-generic/socket.h
_UNIX_QUEUE_BYTES: Final = 512 * 1024  # more than net.core.wmem_default lets a client queue
_NOT_THERE: Final = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EACCES)
_P_PIDFD: Final = 3  # include/uapi/linux/wait.h; not every build of CPython has the name
_COUNTER: Final = struct.Struct("=Q")
SEALS: Final = 0x0002 | 0x0004 | 0x0001  # F_SEAL_SHRINK, GROW, SEAL; this is imported where CPython lacks the names
_SI_KERNEL: Final = 0x80  # include/uapi/asm-generic/siginfo.h: a terminal, for example

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.send.restype = ctypes.c_ssize_t

# freezegun replaces each attribute of a module that is one of the time module's functions: no timeout would ever end.
# A partial object is another than the function that it calls, so it stays.
monotonic: Final = partial(time.monotonic)
monotonic_ns: Final = partial(time.monotonic_ns)
wall_time: Final = partial(time.time)


def clock() -> float:
    """Seconds of CLOCK_MONOTONIC, the clock of every deadline here and of the scoreboard."""
    return monotonic()


def fork() -> int:
    """fork(2): the child's pid, or 0 in the child."""
    return os.fork()


def execute(program: str, words: list[str], environ: Mapping[str, str]) -> NoReturn:
    """execve(2): become ``program``, called as ``words``. Raises OSError."""
    os.execve(program, words, environ)


def initial_environ() -> dict[str, str]:
    """The variables that this program was executed with; those of now where no /proc tells. proc_pid_environ(5).

    Instrumentation takes itself out of PYTHONPATH in os.environ, so that programs which are started do without it; a
    program that is to be executed as it was needs it again. To be called before setproctitle writes over them.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = [entry.partition(b"=") for entry in file.read().split(b"\0")]
    except OSError:
        return dict(os.environ)
    return {os.fsdecode(name): os.fsdecode(value) for name, equals, value in entries if equals}


def kill(pid: int, signum: int) -> bool:
    """Send ``signum`` to ``pid``, and say whether there was such a process."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def kill_exactly(pidfd: int, signum: int) -> bool:
    """Send ``signum`` to the process behind ``pidfd``, whatever has become of its number since."""
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    return True


def kill_group(group: int, signum: int) -> bool:
    """Send ``signum`` to every process of ``group`` that we may signal, and say whether there was one."""
    try:
        os.killpg(group, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def hears(pid: int, signum: int) -> bool:
    """Whether a handler of ``pid`` would run for ``signum`` now: it has one, does not block it, and is not stopped.

    Of a process that shows nothing (it has ended, or there is no /proc) this is false. Source: proc(5).
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            shown = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
        blocked, caught = (int(shown[name], 16) >> (signum - 1) & 1 for name in (b"SigBlk", b"SigCgt"))
    except (OSError, KeyError, ValueError):
        return False
    return bool(caught and not blocked) and shown[b"State"].strip()[:1] not in (b"T", b"t", b"Z", b"X")


def is_child(pidfd: int) -> bool:
    """Whether the process behind ``pidfd`` is our child, ended or not, and not reaped yet. waitid(2), P_PIDFD."""
    try:
        os.waitid(_P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def take_count(eventfd: int) -> int:
    """The sum written to ``eventfd`` since the last call, 0 for nothing; never waits. eventfd(2), preadv2(2).

    O_NONBLOCK would not do: the flag belongs to every process that shares the descriptor, and each can clear it.
    """
    counter = bytearray(_COUNTER.size)
    try:
        os.preadv(eventfd, [counter], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        return 0
    return int(_COUNTER.unpack(counter)[0])


def missing_call() -> str:
    """The call that every master needs and this kernel, or a sandbox, refuses, with its reason; empty where none is.

    The newest of them are looked for: pidfd_open(2) of Linux 5.3, RWF_NOWAIT on an eventfd of Linux 5.7. Raises
    OSError where it cannot be known, as without a free descriptor.
    """
    eventfd = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        for name, call in (
            ("pidfd_open", lambda: os.close(os.pidfd_open(os.getpid()))),
            ("preadv2 with RWF_NOWAIT", lambda: take_count(eventfd)),
        ):
            try:
                call()
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    raise
                return f"{name}: {error.strerror}"
    finally:
        os.close(eventfd)
    return ""


def sealed_memory(name: str, size: int) -> int:
    """A descriptor, closed on exec, of ``size`` bytes of zeros that stay so many. Raises OSError.

    A process that has it could else truncate it under the others (SIGBUS). memfd_create(2), fcntl(2) on F_ADD_SEALS.
    """
    made = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(made, size)
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(made)
        raise
    return made


def refuse_descriptors(sock: socket.socket) -> None:
    """Have a Unix socket, and what it accepts, refuse descriptors at their sender (from Linux 6.16 on)."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)


def control_messages(descriptors: Iterable[int]) -> list[tuple[int, int, array[int]]]:
    """What sendmsg(2) takes to pass ``descriptors`` on: SCM_RIGHTS in unix(7); nothing for none."""
    passed = array("i", descriptors)
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)] if passed else []


def holds_descriptors(sock: socket.socket) -> bool:
    """Whether a descriptor waits in the queue of a Unix stream socket. Looking at one without room for it says so."""
    try:
        return bool(sock.recvmsg(_UNIX_QUEUE_BYTES, 0, socket.MSG_PEEK | socket.MSG_DONTWAIT)[2] & socket.MSG_CTRUNC)
    except OSError:
        return False  # nothing there


def close_in_child(*socks: Closable) -> None:
    """Close ``socks`` such that the last to hold them is a child that ends. Raises OSError, with all still open.

    The kernel closes descriptors in their queues then in the child's context, and where a process ends it does not wait
    for one that lingers (SO_LINGER, socket(7)), nor for one of ``socks`` that has become such a connection.
    """
    reading, writing = os.pipe()
    try:
        pid = fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if pid == 0:
        try:
            os.close(writing)
            os.read(reading, 1)
        finally:
            os._exit(0)
    for sock in socks:
        sock.close()
    os.close(reading)
    os.close(writing)


def reap() -> tuple[int, int] | None:
    """A child that has ended, was stopped or goes on, as its pid and wait status; None where there is no such news."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def news_of(pidfd: int) -> tuple[int, int] | None:
    """The same of the child behind ``pidfd`` alone. waitid(2), P_PIDFD; its status as wait(2) has it."""
    try:
        found = os.waitid(_P_PIDFD, pidfd, os.WEXITED | os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
    except ChildProcessError:
        return None
    if found is None:
        return None
    code, value = found.si_code, found.si_status
    if code == os.CLD_CONTINUED:
        return found.si_pid, 0xFFFF
    shifted = {os.CLD_EXITED: value << 8, os.CLD_STOPPED: value << 8 | 0x7F, os.CLD_TRAPPED: value << 8 | 0x7F}
    return found.si_pid, shifted.get(code, value | 0x80 * (code == os.CLD_DUMPED))


def reap_exactly(pidfd: int) -> None:
    """Reap the child behind ``pidfd``, where it has ended and was not reaped yet. waitid(2), P_PIDFD."""
    with suppress(ChildProcessError):
        os.waitid(_P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


def wait_for(pid: int) -> int:
    """The wait status of the child ``pid``, once it has ended; 0 where SIGCHLD is set so that none is kept for us."""
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


def adopt_orphans(own: bool) -> None:
    """Have orphans among our descendants become our ``own`` children, or the next subreaper's above us. prctl(2)."""
    _prctl(PR_SET_CHILD_SUBREAPER, own)


def refuse_to_be_dumped() -> None:
    """Leave no core file, and have no process of our user read our memory or /proc entries (PR_SET_DUMPABLE)."""
    _prctl(PR_SET_DUMPABLE, 0)


def die_with_parent(signum: int) -> None:
    """Have the kernel send us ``signum`` when our parent dies; 0 takes that back (PR_SET_PDEATHSIG)."""
    _prctl(PR_SET_PDEATHSIG, signum)


def refuse_new_privileges() -> None:
    """Have execve(2) grant nothing from now on, in this process and all below it (PR_SET_NO_NEW_PRIVS)."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def wake_on_time() -> None:
    """Have waits of the calling thread end when they are over, not up to 50 µs later (PR_SET_TIMERSLACK)."""
    _prctl(PR_SET_TIMERSLACK, 1)


def _prctl(option: int, argument: int) -> None:
    zero = ctypes.c_ulong(0)  # prctl is variadic: without a width, what stands in the other registers is garbage
    if _libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def signalfd(signums: Iterable[int]) -> int:
    """A non-blocking descriptor, closed on exec, to read blocked ``signums`` from. Raises OSError. signalfd(2)."""
    words = (ctypes.c_ulong * (_SIGSET_BYTES // ctypes.sizeof(ctypes.c_ulong)))()
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    for signum in signums:
        words[(signum - 1) // bits] |= 1 << (signum - 1) % bits
    descriptor = int(_libc.signalfd(-1, words, _SFD_FLAGS))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"signalfd: {os.strerror(number)}")
    return descriptor


def read_signals(descriptor: int) -> list[tuple[int, int, int, bool]]:
    """The signals at ``descriptor`` of ``signalfd``: number, sender's pid and uid, and whether the kernel sent it."""
    found: list[tuple[int, int, int, bool]] = []
    while True:
        try:
            data = os.read(descriptor, _SIGINFO.size * _SIGNALS_AT_ONCE)
        except BlockingIOError:
            return found
        found += ((signum, pid, uid, code == _SI_KERNEL) for signum, _, code, pid, uid in _SIGINFO.iter_unpack(data))


def send_now(number: int, data: bytes | memoryview) -> int:
    """Send ``data`` to the stream socket ``number`` without waiting, whatever its flags; returns the bytes taken.

    A socket object would set O_NONBLOCK where the application has set a default timeout, and the flag is shared with
    every process that has inherited the socket. Raises OSError; BlockingIOError where the buffer is full. send(2).
    """
    content = bytes(data)
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    sent = int(_libc.send(number, content, ctypes.c_size_t(len(content)), flags))
    if sent < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"send: {os.strerror(error)}")
    return sent


def socket_option(descriptor: int, level: int, option: int, size: int) -> bytes:
    """The first ``size`` bytes of a socket's option, by its number: what has no socket object needs none made.

    What the kernel does not tell is zero. Raises OSError. Source: getsockopt(2).
    """
    told, length = ctypes.create_string_buffer(size), ctypes.c_uint(size)
    if _libc.getsockopt(descriptor, level, option, told, ctypes.byref(length)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return told.raw


def prefer_for_oom(more: int) -> None:
    """Raise our oom_score_adj by ``more``: when memory runs out, we are to die before our parent. See proc(5)."""
    with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
        score = int(file.read())
        file.seek(0)
        file.write(str(min(score + more, OOM_SCORE_MAX)))


def oom_score() -> int:
    """Our own oom_score_adj, 0 where it cannot be read. See proc(5)."""
    try:
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0


def set_oom_score(pid: int, score: int) -> None:
    """Set the oom_score_adj of process ``pid`` to ``score``, at most OOM_SCORE_MAX. Raises OSError.

    It may be lowered to what a process with CAP_SYS_RESOURCE has last set, by any process that may write the file.
    """
    with open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(min(score, OOM_SCORE_MAX)))


def how_it_ended(status: int) -> str:
    """A wait status in words: ``exit status 3`` or ``killed by SIGABRT``."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"killed by {signal_name(-code)}"


def signal_name(signum: int) -> str:
    """``SIGTERM`` for 15, ``SIGRTMIN+4`` for a real-time signal without a name."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        rank = signum - signal.SIGRTMIN
        return f"SIGRTMIN+{rank}" if 0 < rank < signal.SIGRTMAX - signal.SIGRTMIN else f"signal {signum}"


def has_event(fd: int, events: int, seconds: float = 0.0) -> bool:
    """Whether ``fd`` has one of the ``events`` of poll(2), an error or its end, now or within ``seconds``."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(seconds * 1000))
