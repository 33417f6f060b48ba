"""One soak from start to end: warm up, rest, faults, rest, stop under load; then the table.

It promises exit status 0 only where the books balance, nothing has grown, and nothing is left.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from harness import processes
from soak import faults, growth
from soak.books import Books
from soak.clients import Crew
from soak.faults import Faults
from soak.service import Service, TooLateError, gone, supported

WARM_SHARE, WARM_MOST = 0.15, 60.0  # of the time, in seconds: what comes before the first measurement
LAST_SECONDS = 2.0  # of load without faults before the stop
TICK_SECONDS = 0.5
SHOWN = 10  # failures in full
CONNECTIONS = 48  # that one worker holds, so that a crowd can be larger
DESCRIPTORS = 96  # that one process has, where they are to be the limit
MEMORY = "64MiB"  # that a worker may have; one that has served for a while has half of it
RESTS = 5  # tries to find the program at rest


@dataclass
class Options:
    seconds: float
    seed: str
    workers: int
    threads: int
    clients: int
    timeout: float
    faults: list[str]
    more: list[str]  # flags of the program
    folder: Path
    throwaway: bool  # the folder, after a soak that went well


class Soak:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.chance = random.Random(options.seed)
        self.books = Books(options.folder, options.timeout, options.threads, shared=not _imports_apart(options.more))
        self.service = Service(options.folder, self.books.read_line)
        self.crew = Crew(self.books, self.service.addresses, options.seed)
        self.sizes: list[growth.Size] = []
        self.started = time.monotonic()
        self.known = supported(options.folder)
        few = self.chance.random() < 0.5
        self.descriptors = DESCRIPTORS if few else 0
        room = DESCRIPTORS if few else CONNECTIONS
        self.faults = Faults(
            self.service,
            self.books,
            self.crew,
            self.chance,
            options.faults or faults.WEIGHTS,
            room * options.workers,
            options.timeout,
            "--max-worker-memory" in self.known,
        )

    async def run(self) -> bool:
        """Whether all went well."""
        judging = asyncio.create_task(self._judge())
        try:
            await self.service.start(self._arguments(), self.descriptors)
            self.crew.start(self.options.clients)
            await self._load()
            if not self.books.failures:
                await self._stop()
        except TooLateError as error:
            self.books.fail(str(error))
        finally:
            judging.cancel()
            await self.crew.dismiss()
            self.service.end()
        self.books.judge(finally_=not self.books.failures)
        return not self.books.failures

    def _arguments(self) -> list[str]:
        options = self.options
        wanted = ["-w", str(options.workers), "--threads", str(options.threads), "--timeout", f"{options.timeout:g}"]
        wanted += ["--graceful-timeout", "10"]
        if not self.descriptors:
            wanted += ["--worker-connections", str(CONNECTIONS)]
        return wanted + self._recycling() + options.more

    def _recycling(self) -> list[str]:
        """Flags that replace workers all the time, as far as the program has them."""
        wanted = {
            "--max-requests": self.chance.randint(500, 3000),
            "--max-requests-jitter": 500,
            "--max-worker-lifetime": self.chance.randint(8, 40),
            "--max-worker-memory": MEMORY,
        }
        return [f"{flag}={value}" for flag, value in wanted.items() if flag in self.known]

    async def _load(self) -> None:
        warm = min(self.options.seconds * WARM_SHARE, WARM_MOST)
        await self.faults.run(warm)
        await self._rest()
        self.crew.resume()
        await self.faults.run(self.options.seconds - warm)
        if self.books.failures:
            return
        await self._rest()
        for what in growth.grown(self.sizes[0], self.sizes[-1]):
            self.books.fail(f"it grows: {what}")

    async def _rest(self) -> None:
        """Measure the program with a fresh generation, all workers there, and no client."""
        await self.crew.pause()
        for _ in range(RESTS):
            generation = await self.faults.reload()
            now = {member.pid for member in self.service.family() if member.generation == generation}
            for child in psutil.Process(self.service.pid).children(recursive=True):
                if child.pid not in now:
                    await gone(child.pid)
            try:
                size = await asyncio.to_thread(growth.measure, self.service.pid)
            except psutil.NoSuchProcess:
                continue  # one was about to leave
            if size.processes == self.options.workers + 1:
                self.sizes.append(size)
                return
        self.books.fail(f"it does not come to rest: {self.service.family()}")

    async def _stop(self) -> None:
        """TERM under load."""
        self.crew.resume()
        await asyncio.sleep(LAST_SECONDS)
        below = [member.pid for member in self.service.family()]
        self.crew.stopping = True
        self.service.process.terminate()
        status = await self.service.wait()
        if status != 0:
            self.books.fail(f"the exit status after TERM is {status}")
        for pid in below:
            if processes.title(pid):
                self.books.fail(f"left behind: {processes.title(pid)}")
        await self.crew.left()
        if left := {pid: processes.title(pid) for pid in processes.children()}:
            self.books.fail(f"left behind: {left}")

    async def _judge(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.books.judge()
            for error in self.crew.broken_off():
                self.books.fail(f"a client broke off: {error!r}")
                raise error

    # What is printed

    def report(self) -> str:
        books = self.books
        seconds = time.monotonic() - self.started
        lines = [f"{sum(books.kinds.values())} requests in {seconds:.0f} s"]
        lines += _columns("asked", books.kinds)
        lines += _columns("became", {outcome.value: count for outcome, count in books.outcomes.items()})
        lines += _columns("faults", self.faults.done)
        lines += _columns("recycled", books.recycled)
        lines += _columns("losses", {loss.value: count for loss, count in books.losses.items()})
        lines += _columns("workers that died by SIGKILL", {"": books.deaths})
        if books.unexplained:
            lines.append(f"lost in calls of killed workers, whose last lines do not tell of calls: {books.unexplained}")
        lines += _columns("kept connections that the server closed while idle", books.idle_ends)
        lines.append(
            f"longest wait of a small request: {books.longest * 1000:.0f} ms, "
            f"faults included {books.longest_of_all * 1000:.0f} ms"
        )
        lines += [f"{'first' if not at else 'last'} rest: {size}" for at, size in enumerate(self.sizes)]
        return "\n".join(lines + [self._failure(failure.at, failure.text) for failure in books.failures[:SHOWN]])

    def _failure(self, at: float, text: str) -> str:
        around = "\n".join(f"    {entry.at:.3f} {entry.text}" for entry in self.service.neighbourhood(at))
        return f"\nFAILED at {at:.3f}: {text}\n  the log at that time:\n{around}"


def _imports_apart(flags: list[str]) -> bool:
    """Whether the program's ``flags`` have each worker import for itself."""
    return "--preload=off" in flags or ("--preload", "off") in pairwise(flags)


def _columns(name: str, counts: dict[str, int]) -> list[str]:
    shown = ", ".join(f"{what} {count}".strip() for what, count in sorted(counts.items(), key=lambda each: -each[1]))
    return [f"{name}: {shown or 'none'}"]
