"""Servers under test: started pinned and silent, counted as a whole process tree, and ended to the last process."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from bench.machine import APPS, CORES, HOST, SERVER, environment, need, on_cores
from bench.peers import Peer, PeerError, Setup, UnableError

START_SECONDS = 30.0
STOP_SECONDS = 10.0
LEAVE_SECONDS = 1.0
REST_SECONDS, REST_NANOSECONDS = 0.3, 1_000_000  # for so long, a server that has started uses at most this
PROBE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


NOBODY_VOUCHES = ssl.create_default_context()
NOBODY_VOUCHES.check_hostname, NOBODY_VOUCHES.verify_mode = False, ssl.CERT_NONE


def make_certificate(folder: Path) -> None:
    """A key on the curve that sites have nowadays, P-256, and a certificate that nobody vouches for."""
    words = shlex.split("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost")
    files = ["-out", str(folder / "certificate.pem"), "-keyout", str(folder / "key.pem")]
    subprocess.run([need("openssl"), *words, *files], check=True, capture_output=True)


class Server:
    """One peer, serving one setup."""

    def __init__(self, peer: Peer, setup: Setup, folder: Path) -> None:
        self.peer = peer
        self.port = free_port()
        self.output = folder / "output"
        self.tls = setup.tls
        if setup.tls:
            make_certificate(folder)
        command = peer.command_line(setup, self.port, folder / "access.log")
        variables = environment(*peer.paths, **dict(setup.environ))
        with self.output.open("wb") as said, on_cores(set(CORES) if setup.every_core else SERVER):
            self.started = time.monotonic()
            # In a session of its own: Ctrl-C is for us, who then stop it.
            self.process = subprocess.Popen(
                command,
                cwd=APPS,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def await_answer(self, pause: float = 0.02) -> float:
        """Seconds from the start to the first answer, asked for every ``pause`` seconds."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise PeerError(f"ended with status {self.process.returncode}: {self.last_words()}")
            if self._answers():
                return time.monotonic() - self.started
            time.sleep(pause)
        raise PeerError(f"no answer within {START_SECONDS:.0f} seconds: {self.last_words()}")

    def _answers(self) -> bool:
        try:
            plain = socket.create_connection((HOST, self.port), timeout=START_SECONDS)
            with plain, NOBODY_VOUCHES.wrap_socket(plain) if self.tls else plain as connection:
                connection.sendall(PROBE)
                return connection.recv(12).startswith(b"HTTP/1.")
        except OSError:
            return False  # it does not listen yet

    def last_words(self) -> str:
        lines = [line.strip() for line in self.output.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"

    def tree(self) -> list[psutil.Process]:
        """Its processes, the first one first; PeerError where that one has ended."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            raise PeerError(f"died: {self.last_words()}") from None

    def cpu_seconds(self) -> float:
        """What the whole tree has used, in user and system."""
        return sum(sum(each.cpu_times()[:2]) for each in self.tree())

    def proportional(self) -> int:
        """Bytes of memory (PSS: a page that several share counts once)."""
        return sum(each.memory_full_info().pss for each in self.tree())

    def peak(self) -> int:
        """The sum of the most bytes that each process has had resident."""
        return sum(_high_water(each.pid) for each in self.tree())

    def pids(self) -> set[int]:
        """Of all but the first process, which stays at a reload."""
        return {each.pid for each in self.tree()[1:]}

    def reload(self) -> None:
        if not self.peer.reloads:
            raise UnableError("cannot reload")
        self.process.send_signal(signal.SIGHUP)

    def settled_cpu_seconds(self) -> float:
        """CPU seconds of a start, up to when the tree rests; ends the server.

        Processes that have ended meanwhile count, and nothing is cut to the ticks of a clock: the kernel adds up what
        it has measured of children and theirs once all of them are reaped.
        """
        self.await_rest()
        living = self.tree()
        before = _reaped_seconds()
        for each in living:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()
        for each in living[1:]:
            _reap(each)
        return _reaped_seconds() - before

    def await_rest(self) -> float:
        """When the tree has last used a processor (time.monotonic), once it has used none for a moment."""
        until = time.monotonic() + START_SECONDS
        used, since = 0, time.monotonic()
        while time.monotonic() < until:
            time.sleep(REST_SECONDS / 10)
            if (now := sum(map(_on_processor, self.tree()))) > used + REST_NANOSECONDS:
                used, since = now, time.monotonic()
            elif time.monotonic() - since > REST_SECONDS:
                return since
        raise PeerError(f"still busy {START_SECONDS:.0f} seconds after its first answer")

    def stop(self) -> None:
        """End it, by force what does not leave. Some leave their workers behind; those get a moment only."""
        with contextlib.suppress(PeerError):
            first, *below = self.tree()
            self.process.terminate()
            _, stuck = psutil.wait_procs([first], timeout=STOP_SECONDS)
            _, left = psutil.wait_procs(below, timeout=LEAVE_SECONDS)
            end([*stuck, *left])
        self.process.wait()


@contextlib.contextmanager
def running(peer: Peer, setup: Setup) -> Iterator[Server]:
    """A server that answers."""
    with started(peer, setup) as server:
        server.await_answer()
        yield server


@contextlib.contextmanager
def started(peer: Peer, setup: Setup) -> Iterator[Server]:
    """A server that has just been started."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = Server(peer, setup, Path(folder))
        try:
            yield server
        finally:
            server.stop()


def end(processes: Iterable[psutil.Process]) -> None:
    killed = list(processes)
    for each in killed:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(killed, timeout=STOP_SECONDS)


def end_all() -> None:
    """Whatever is still below this process, orphans of a server that was killed among it."""
    end(psutil.Process().children(recursive=True))


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _on_processor(process: psutil.Process) -> int:
    """Nanoseconds, see proc_pid_schedstat in the kernel's sched-stats; 0 where it has just ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])
    return 0


def _reaped_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reap(process: psutil.Process) -> None:
    """Once it has ended; it is our child when all above it have (machine.prepare)."""
    until = time.monotonic() + STOP_SECONDS
    while time.monotonic() < until and psutil.pid_exists(process.pid):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
        time.sleep(0.001)


def _high_water(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0  # it has just ended
