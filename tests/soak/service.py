"""The program under test: its releases of code, its log as it comes, its processes.

It promises that no line of the log is missed by who waits for it. It refuses to judge what the
log says.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from harness import processes
from harness.clients import Address
from harness.journal import Entry
from harness.program import MODULE, clean_environment, own_address
from soak import application, material
from soak.cgroup import ProcessLimit

BOUND = 60.0  # seconds; nothing that goes well takes so long, not on a crowded machine either
TESTS = Path(__file__).parents[1]
GOOD = "from soak.application import Application\napp = Application({version})\n"
BROKEN = (
    "def app(:\n",
    "raise RuntimeError('no database')\n",
    "import sys\nsys.exit(3)\n",
    "app = 7\n",
    "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
)
READ_BYTES = 64 * 1024
_REMEMBERED = 20_000  # lines of the log; all of them are in the folder


class TooLateError(AssertionError):
    """What was expected of the log has not come."""


def supported(folder: Path) -> frozenset[str]:
    """The flags that the program knows."""
    asked = [*MODULE, "--help"]
    shown = subprocess.run(asked, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=True)
    return frozenset(re.findall(r"--[a-z-]+", shown.stdout))


def written(address: Address) -> str:
    """The address as ``--bind`` takes it."""
    return f"unix:{address}" if isinstance(address, str) else f"{address[0]}:{address[1]}"


class LogReader:
    """The reader of a log that is a FIFO; what it reads is forgotten."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._writable = select.poll()
        self._writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        self._writable.register(self._writer, select.POLLOUT)

    def resume(self) -> None:
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def pause(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)

    def full(self) -> bool:
        """Whether no line can be written to it."""
        return not self._writable.poll(0)

    def close(self) -> None:
        self.pause()
        os.close(self._fd)
        os.close(self._writer)

    def _read(self) -> None:
        os.read(self._fd, READ_BYTES)


class Service:
    """One run, from ``start`` on. ``watch`` is called with every line of its log."""

    def __init__(self, folder: Path, watch: Callable[[Entry], None]) -> None:
        self.folder = folder
        self.version = 0
        self.lines: deque[Entry] = deque(maxlen=_REMEMBERED)
        self.addresses: tuple[Address, ...] = (own_address(), str(folder / "soak.sock"))
        self._watch = watch
        self._count = 0  # of all lines so far
        self.access_log = LogReader(folder / "access.fifo")
        self.limit = ProcessLimit.make()
        (folder / application.POOL).write_bytes(material.pool())

    async def start(self, arguments: Iterable[str], descriptors: int = 0) -> None:
        """Start it and return once it serves; ``descriptors`` is how many a process may have, 0 for as many as ours."""
        self.release()
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        binds = [flag for address in self.addresses for flag in ("-b", written(address))]
        # The application's journal is opened at import, to be shared.
        always = ["--log-level", "debug", "--pythonpath", str(TESTS), "--preload", "on"]
        always += ["--access-log", str(self.access_log.path)]
        self.access_log.resume()
        limit = ("prlimit", f"--nofile={descriptors}") if descriptors else ()
        self.command = [*limit, *MODULE, *always, *binds, *arguments, "release:app"]
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            cwd=self.folder,
            env=clean_environment(**{application.FOLDER: str(self.folder)}),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=None if self.limit is None else self.limit.enter,
        )
        self.pid = self.process.pid
        self._reader = asyncio.create_task(self._read())
        await self.find(r" serving release:app at ", 0)

    # Code

    def release(self) -> int:
        """Put the next version in place, at once as a deploy does."""
        self.version += 1
        self.mend()
        return self.version

    def mend(self) -> None:
        self._write(GOOD.format(version=self.version))

    def break_code(self, how: str) -> None:
        self._write(how)

    def _write(self, text: str) -> None:
        fresh = self.folder / "release.py.new"
        fresh.write_text(text)
        fresh.rename(self.folder / "release.py")

    # The log

    def mark(self) -> int:
        """Where the log ends now."""
        return self._count

    async def find(
        self, pattern: str, since: int, such: Callable[[re.Match[str]], object] = lambda _match: True
    ) -> re.Match[str]:
        """The first line after ``since`` that holds ``pattern``, ``such`` that this is true. Raises TooLateError."""
        try:
            async with asyncio.timeout(BOUND):
                while True:
                    for text in self._after(since):
                        if (match := re.search(pattern, text)) and such(match):
                            return match
                    since = self._count
                    await asyncio.shield(self._news)
        except TimeoutError:
            raise TooLateError(f"the log has not said {pattern!r} within {BOUND:g} s") from None

    def _after(self, since: int) -> list[str]:
        new = self._count - since
        return [self.lines[at].text for at in range(max(0, len(self.lines) - new), len(self.lines))]

    async def _read(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        with (self.folder / "log").open("w", encoding="utf-8") as file:
            self._file = file
            while line := await stream.readline():
                self._take(line.decode("utf-8", "backslashreplace").rstrip("\n"))
        self._news.set_exception(TooLateError("the log has ended"))
        self._news.exception()  # a waiter is told; it is no fault where none waits

    def note(self, what: str) -> None:
        """Put ``what`` is done to the program beside what it says itself."""
        if self.process.returncode is None:
            self._take(f"soak: {what}")

    def _take(self, text: str) -> None:
        entry = Entry(time.monotonic(), text)
        self._file.write(f"{entry.at:.3f} {entry.text}\n")
        self.lines.append(entry)
        self._count += 1
        self._watch(entry)
        news, self._news = self._news, asyncio.get_running_loop().create_future()
        news.set_result(None)

    def neighbourhood(self, moment: float, seconds: float = 3.0) -> list[Entry]:
        """What the log says around ``moment``."""
        return [entry for entry in self.lines if abs(entry.at - moment) < seconds]

    # Processes

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def family(self) -> list[processes.Member]:
        return processes.family(self.pid)

    def workers(self) -> list[processes.Member]:
        return [member for member in self.family() if member.role == "worker"]

    async def wait(self) -> int:
        """The exit status; the log is read to its end. Raises TooLateError."""
        try:
            async with asyncio.timeout(BOUND):
                status = await self.process.wait()
                await self._reader
        except TimeoutError:
            raise TooLateError(f"the program has not ended within {BOUND:g} s") from None
        return status

    def end(self) -> None:
        """Kill what is left of it, after a soak that failed."""
        left = {member.pid for member in self.family()}
        if self.process.returncode is None:
            self.process.kill()
        processes.end(left)
        self.access_log.close()
        if self.limit is not None:
            processes.end(processes.children())  # an ended process counts until it is reaped
            self.limit.remove()


async def gone(pid: int) -> None:
    """Wait until ``pid`` has ended. Raises TooLateError."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(BOUND):
            await ended.wait()
    except TimeoutError:
        raise TooLateError(f"process {pid} ({processes.title(pid)}) has not ended within {BOUND:g} s") from None
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
