"""What a process hears, read from /proc."""

from __future__ import annotations

import faulthandler
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from forkserver.linux import syscalls

READY = """
import faulthandler, signal, sys
faulthandler.register(signal.SIGUSR2)
if sys.argv[1] == "blocked":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", READY, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.process
@pytest.mark.parametrize(("child", "heard"), [("open", True), ("blocked", False)], indirect=["child"])
def test_a_blocked_signal_is_not_heard(child: subprocess.Popen[bytes], heard: bool) -> None:
    assert syscalls.hears(child.pid, signal.SIGUSR2) is heard
    assert not syscalls.hears(child.pid, signal.SIGTERM), "it has no handler for that"


@pytest.mark.process
@pytest.mark.parametrize("child", ["open"], indirect=True)
def test_a_stopped_process_hears_nothing(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert not syscalls.hears(child.pid, signal.SIGUSR2)


@pytest.mark.process
def test_a_process_that_is_not_there_hears_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert not syscalls.hears(ended.pid, signal.SIGUSR2)
    assert not syscalls.kill_group(ended.pid, signal.SIGUSR2)


def test_an_option_is_told_by_the_number_of_a_socket() -> None:
    with socket.socket() as sock:
        told = syscalls.socket_option(sock.fileno(), socket.SOL_SOCKET, socket.SO_TYPE, 4)
        assert int.from_bytes(told, sys.byteorder) == socket.SOCK_STREAM
        number = sock.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        syscalls.socket_option(number, socket.SOL_SOCKET, socket.SO_TYPE, 4)


@pytest.mark.parametrize("signum", [None, signal.SIGKILL, signal.SIGSEGV])
def test_the_end_of_one_child_is_told_as_that_of_any(signum: signal.Signals | None) -> None:
    def forked() -> int:
        pid = os.fork()
        if pid == 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            faulthandler.disable()
            if signum is not None:
                os.kill(os.getpid(), signum)
            os._exit(3)
        return pid

    _, wanted = os.waitpid(forked(), 0)
    pid = forked()
    pidfd = os.pidfd_open(pid)
    try:
        assert syscalls.has_event(pidfd, select.POLLIN, 60)
        assert syscalls.news_of(pidfd) == (pid, wanted)
        assert syscalls.news_of(pidfd) is None  # it was reaped
    finally:
        os.close(pidfd)


def test_a_child_that_stops_and_goes_on_is_told_as_such() -> None:
    child = subprocess.Popen(["/bin/sleep", "60"])
    pidfd = os.pidfd_open(child.pid)
    try:
        assert syscalls.news_of(pidfd) is None
        for signum, option in ((signal.SIGSTOP, os.WSTOPPED), (signal.SIGCONT, os.WCONTINUED)):
            os.kill(child.pid, signum)
            os.waitid(os.P_PID, child.pid, option | os.WNOWAIT)
            found = syscalls.news_of(pidfd)
            assert found is not None
            assert (os.WIFSTOPPED(found[1]), os.WIFCONTINUED(found[1])) == (
                option == os.WSTOPPED,
                option == os.WCONTINUED,
            )
    finally:
        os.close(pidfd)
        child.kill()
        child.wait()
