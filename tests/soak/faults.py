"""What is done to the program: each fault is started at a random moment, and has to have its effect.

It promises that a fault whose effect does not come is a failure. It refuses to look at the clients' answers.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from harness.processes import Member, title
from soak import questions
from soak.books import Books
from soak.clients import Client, Crew, Once
from soak.connection import Connection
from soak.pressure import Pressure
from soak.records import Outcome
from soak.service import BROKEN, Service, TooLateError, gone

GAP_SECONDS = (0.1, 2.0)  # between the beginnings of two faults
LEAK_BYTES = 48 * 1024 * 1024  # more than run.MEMORY leaves to a worker
OUR_KILLS = re.compile(
    "(?:its workers end right after they were|a worker ended before it was) "
    "ready: killed by SIGKILL, sent by another process"
)
GONE = r"\bpid={pid} .*(?:ended|has left|did not start)"
# How often each comes, in proportion.
WEIGHTS = {
    "reload": 5,
    "broken-code": 2,
    "kill-worker": 5,
    "kill-template": 1,
    "resize": 2,
    "stop-worker": 1,
    "long-call": 1,
    "crowd": 1,
    "leak": 1,
    "descriptor-limit": 1,
    "process-limit": 1,
    "crash-storm": 1,
    "full-log": 1,
    "slow-bodies": 1,
    "lying-application": 1,
}


class Faults:
    """``kinds`` are those to choose from; ``room`` is how many connections the workers have in all."""

    def __init__(
        self,
        service: Service,
        books: Books,
        crew: Crew,
        chance: random.Random,
        kinds: Iterable[str],
        room: int,
        timeout: float,
        memory_is_limited: bool,
    ) -> None:
        self.done: Counter[str] = Counter()
        self._service = service
        self._books = books
        self._crew = crew
        self._chance = chance
        self._room = room
        self._timeout = timeout
        self._memory_is_limited = memory_is_limited
        pressure = Pressure(service, books, crew, chance, room)
        self._faults: dict[str, Callable[[], Awaitable[object]]] = {
            "reload": self.reload,
            "broken-code": self._broken_code,
            "kill-worker": self._kill_worker,
            "kill-template": self._kill_template,
            "resize": self._resize,
            "stop-worker": self._stop_worker,
            "long-call": self._long_call,
            "crowd": self._crowd,
            "leak": self._leak,
            "descriptor-limit": pressure.descriptor_limit,
            "process-limit": pressure.process_limit,
            "crash-storm": pressure.crash_storm,
            "full-log": pressure.full_log,
            "slow-bodies": pressure.slow_bodies,
            "lying-application": pressure.lying_application,
        }
        if service.limit is None:  # this machine has no control group to give
            del self._faults["process-limit"]
        self._weights = {kind: WEIGHTS[kind] for kind in self._faults if kind in set(kinds)}
        self._code = asyncio.Lock()  # who needs the code, or the reload, for itself
        self._files = asyncio.Lock()  # who needs them to hold good code, or broken
        self._stopped: set[int] = set()
        self._templates_killed = 0
        self._under_way: set[str] = set()

    async def run(self, seconds: float) -> None:
        """Do this and that for so long, and return when all has had its effect."""
        end = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            while self._weights and asyncio.get_running_loop().time() < end and not self._books.failures:
                await asyncio.sleep(self._chance.uniform(*GAP_SECONDS))
                kind = self._chance.choices(tuple(self._weights), tuple(self._weights.values()))[0]
                if kind not in self._under_way:
                    group.create_task(self._do(kind))
            if not self._weights:
                await asyncio.sleep(seconds)

    async def _do(self, kind: str) -> None:
        self._under_way.add(kind)
        self._books.disturbances += 1
        self._service.note(f"{kind} begins")
        try:
            await self._faults[kind]()
            self.done[kind] += 1
        except TooLateError as error:
            self._books.fail(f"{kind}: {error}")
        finally:
            self._service.note(f"{kind} is over")
            self._under_way.discard(kind)
            self._books.disturbances -= 1
            self._books.calm_since = asyncio.get_running_loop().time()

    # Code

    async def reload(self) -> int:
        """HUP with good code, and wait until it serves; its generation, or 0 where a template was killed meanwhile."""
        async with self._code:
            return await self._reload_now()

    async def _reload_now(self) -> int:
        service, killed = self._service, self._templates_killed
        service.release()
        since = service.mark()
        service.send(signal.SIGHUP)
        number = int((await service.find(r"reload: loading generation (\d+)", since))[1])
        # A later generation serves as well: it takes the place of ours where our template was killed.
        ended = r"reload failed|generation (\d+) serves"
        found = await service.find(ended, since, lambda match: not match[1] or int(match[1]) >= number)
        if found[1]:
            return int(found[1])
        if OUR_KILLS.search(found.string):  # of several of its workers right after they were ready, or of one before
            return await self._reload_now()
        if self._templates_killed == killed:
            self._books.fail(f"good code was refused: {found.string}")
        return 0

    async def _broken_code(self) -> None:
        async with self._code, self._files:
            self._service.break_code(self._chance.choice(BROKEN))
            since = self._service.mark()
            self._service.send(signal.SIGHUP)
            try:
                await self._service.find("reload failed", since)
            finally:
                self._service.mend()

    # Processes

    def _some_worker(self) -> Member | None:
        found = [member for member in self._service.workers() if member.pid not in self._stopped]
        return self._chance.choice(found) if found else None

    async def _kill_worker(self) -> None:
        victim = self._some_worker()
        if victim is not None:
            await self._kill(victim)

    async def _kill(self, victim: Member) -> None:
        since = self._service.mark()
        if title(victim.pid):  # else it has just left by itself, and was reaped or will be
            self._books.killed(victim.pid)
            self._service.note(f"SIGKILL to {victim}")
            _signal(victim.pid, signal.SIGKILL)
            await self._service.find(GONE.format(pid=victim.pid), since)

    async def _kill_template(self) -> None:
        async with self._files:  # what takes its place is loaded from the files as they are
            found = [member for member in self._service.family() if member.role == "template"]
            if found:
                self._templates_killed += 1
                victim = self._chance.choice(found)
                _signal(victim.pid, signal.SIGKILL)
                await gone(victim.pid)

    async def _resize(self) -> None:
        """One worker more and back, or one fewer and back."""
        steps = [signal.SIGTTIN, signal.SIGTTOU]
        if self._chance.random() < 0.5:
            steps.reverse()
        for step in steps:
            since = self._service.mark()
            self._service.send(step)
            await self._service.find("workers wanted: ", since)
            await asyncio.sleep(self._chance.uniform(0.1, 2))

    async def _stop_worker(self) -> None:
        """SIGSTOP: it has to be found, killed and replaced by the master."""
        victim = self._some_worker()
        if victim is None:
            return
        since = self._service.mark()
        if title(victim.pid):
            self._stopped.add(victim.pid)
            _signal(victim.pid, signal.SIGSTOP)
            try:
                await self._service.find(GONE.format(pid=victim.pid), since)
            finally:
                self._stopped.discard(victim.pid)
                _signal(victim.pid, signal.SIGCONT)

    # Clients

    def _client(self, kind: type[Client]) -> Client:
        return kind(self._crew, self._chance.choice(self._crew.addresses), random.Random(self._chance.random()))

    async def _long_call(self) -> None:
        """A call that lasts longer than ``timeout``: 504, or the end of its worker."""
        client = self._client(Once)
        assert isinstance(client, Once)
        seconds = self._timeout + self._chance.uniform(1, 3)
        await client.put(questions.overlong(self._books.number(), int(seconds * 1000)))

    async def _leak(self) -> None:
        """A call that keeps more memory than a worker may have: where there is such a limit, it is replaced."""
        client = self._client(Once)
        assert isinstance(client, Once)
        question = questions.make("grow", self._books.number(), self._chance, leak=LEAK_BYTES)
        since = self._service.mark()
        request = await client.put(question)
        if request.outcome is Outcome.RIGHT and self._memory_is_limited:
            spent = rf"\bpid={request.pid} is recycled: its memory"
            await self._service.find(f"{spent}|{GONE.format(pid=request.pid)}", since)

    async def _crowd(self) -> None:
        """More connections than the workers may hold, or have descriptors for; they idle, and go."""
        window, crowd = self._books.crowd(), []
        try:
            for _ in range(int(self._room * 1.2)):
                try:
                    crowd.append(await Connection.open(self._chance.choice(self._crew.addresses)))
                except BlockingIOError:  # a Unix socket's queue is full, unix(7)
                    break
            await asyncio.sleep(self._chance.uniform(0.5, 2))
        finally:
            for connection in crowd:
                connection.close(reset=self._chance.random() < 0.2)
            window.until = asyncio.get_running_loop().time()


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it was quicker
