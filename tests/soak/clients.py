"""The kinds of clients, all turned by one event loop, so that none keeps another from asking.

They promise to tell the books of every request what became of it. They refuse to judge.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

from harness.clients import Address
from soak import questions
from soak.books import Books
from soak.connection import Connection, CutError, Pace, pauses
from soak.questions import Question
from soak.records import Request

PATIENCE = 60.0  # seconds; who waits longer was forgotten by the server
SMALL_BUFFER = 16 * 1024
_UNSEEN = (ConnectionRefusedError, FileNotFoundError)  # nobody listens any more


class LeaveError(Exception):
    """Nobody listens any more, and that is as it should be."""


class Crew:
    """All clients; between ``pause`` and ``resume`` none has a connection."""

    def __init__(self, books: Books, addresses: Sequence[Address], seed: str) -> None:
        self.books = books
        self.addresses = addresses
        self.stopping = False  # the server has been told to stop: who is refused leaves
        self._seed = seed
        self._running = asyncio.Event()
        self._busy = 0
        self._idle = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, count: int) -> None:
        self._running.set()
        kinds = [kind for kind, share in SHARES.items() for _ in range(max(1, round(count * share)))]
        for place, kind in enumerate(kinds):
            client = kind(self, self.addresses[place % len(self.addresses)], random.Random(f"{self._seed} {place}"))
            self._tasks.append(asyncio.create_task(client.run(), name=f"client {place}"))

    async def pause(self) -> None:
        self._running.clear()
        self._idle.clear()
        if self._busy:
            await self._idle.wait()

    def resume(self) -> None:
        self._running.set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    async def left(self) -> None:
        """Wait until every client has left by itself."""
        await asyncio.gather(*self._tasks)

    async def dismiss(self) -> None:
        """End them wherever they are, after a soak that failed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def broken_off(self) -> list[BaseException]:
        """What has ended clients that should run."""
        return [error for task in self._tasks if task.done() and not task.cancelled() and (error := task.exception())]

    @asynccontextmanager
    async def round(self) -> AsyncIterator[None]:
        await self._running.wait()
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()


class Client:
    """Asks any kind of request, round after round. A kind of client overrides ``round``."""

    receive_buffer: ClassVar[int] = 0

    def __init__(self, crew: Crew, address: Address, chance: random.Random) -> None:
        self.crew = crew
        self.books = crew.books
        self.address = address
        self.chance = chance
        self._connection: Connection | None = None

    async def run(self) -> None:
        try:
            while True:
                async with self.crew.round():
                    while not self.crew.paused:
                        await self.round()
                    self.leave()
        except LeaveError:
            return
        finally:
            self.leave()

    async def round(self) -> None:
        raise NotImplementedError

    def question(self, kind: str = "", *, close: bool = False, size: int = 0) -> Question:
        return questions.make(
            kind or questions.any_kind(self.chance), self.books.number(), self.chance, close=close, size=size
        )

    def leave(self, reset: bool = False) -> None:
        if self._connection is not None:
            self._connection.close(reset)
            self._connection = None

    async def connected(self) -> Connection:
        """The connection that is there, or a new one. Raises LeaveError; what else goes wrong is a failure."""
        if self._connection is not None and self._connection.ended():
            self.books.ended_idle(self._connection.used, self.crew.stopping)
            self.leave()
        if self._connection is None:
            try:
                async with asyncio.timeout(PATIENCE):
                    self._connection = await Connection.open(self.address, self.receive_buffer)
            except OSError as error:  # a TimeoutError is one
                if self.crew.stopping and isinstance(error, _UNSEEN):
                    raise LeaveError from None
                self.books.fail(f"connecting to {self.address}: {error!r}")
                raise LeaveError from None
        return self._connection

    async def ask(self, *asked: Question, slow: Pace | None = None, reads: Pace | None = None) -> list[Request]:
        """Ask, all in one go where there are several, and read the answers."""
        connection = await self.connected()
        requests = [self.books.asked(question, connection.made, connection.answers) for question in asked]
        pending = list(zip(requests, asked, strict=True))
        try:
            async with asyncio.timeout(PATIENCE):
                await self._converse(connection, pending, slow, reads)
                return requests
        except CutError as error:
            for request, _ in pending:
                self.books.cut(request, error)
        except TimeoutError:
            for request, _ in pending:
                self.books.broken(request, f"no whole answer within {PATIENCE:g} s")
        except (ValueError, KeyError) as error:
            for request, _ in pending:
                self.books.broken(request, f"nonsense came: {error!r}")
        self.leave()
        return requests

    async def _converse(
        self, connection: Connection, pending: list[tuple[Request, Question]], slow: Pace | None, reads: Pace | None
    ) -> None:
        """Take out of ``pending`` what is answered."""
        await self._send(connection, [question for _, question in pending], slow)
        while pending:
            request, question = pending[0]
            answer = await connection.answer(question.kind == "head", reads)
            if answer.status == 100 and question.waits:
                await self._send_body(connection, question.body, slow)
                continue
            del pending[0]
            self.books.answered(request, question, answer)
            if answer.last:
                for request, _ in pending:
                    self.books.turned_away(request)
                self.leave()
                return

    async def _send(self, connection: Connection, asked: Iterable[Question], slow: Pace | None) -> None:
        data = b"".join(question.head + (b"" if question.waits else question.body) for question in asked)
        await self._send_body(connection, data, slow)

    async def _send_body(self, connection: Connection, data: bytes, slow: Pace | None) -> None:
        if slow is None:
            await connection.send(data)
            return
        step = len(data) // 20 + 1
        for at in range(0, len(data), step):
            await slow()
            await connection.send(data[at : at + step])


class Keeper(Client):
    """Keeps its connection; mostly asks at once again, sometimes idles."""

    async def round(self) -> None:
        await self.ask(self.question())
        if self.chance.random() < 0.1:
            await asyncio.sleep(self.chance.choice((0.005, 0.05, 0.5)))


class Brief(Client):
    """A connection for each request."""

    async def round(self) -> None:
        await self.ask(self.question(close=self.chance.random() < 0.5))
        self.leave()


class Pipeliner(Client):
    """Two requests in one go."""

    async def round(self) -> None:
        kinds = ("small", "small", "whole", "file", "stream", "head", "sleep")
        await self.ask(*(self.question(self.chance.choice(kinds), size=self.chance.choice((0, 100))) for _ in "ab"))
        await asyncio.sleep(self.chance.uniform(0, 0.05))


class SlowReader(Client):
    """Takes large bodies piece by piece."""

    receive_buffer = SMALL_BUFFER

    async def round(self) -> None:
        size = self.chance.randint(256 * 1024, 2 * 1024 * 1024)
        question = self.question(self.chance.choice(questions.DOWNLOADS), size=size)
        await self.ask(question, reads=pauses(self.chance, 0, 0.03))


class SlowSender(Client):
    """Sends heads and bodies piece by piece."""

    async def round(self) -> None:
        kind = self.chance.choice((*questions.UPLOADS, "small"))
        question = self.question(kind, size=questions.some_size(self.chance, 512 * 1024))
        await self.ask(question, slow=pauses(self.chance, 0, 0.05))


class Patient(Client):
    """Asks for what takes its time."""

    async def round(self) -> None:
        await self.ask(self.question(self.chance.choice(("sleep", "sleep", "sleep", "sleep", "long"))))
        await asyncio.sleep(self.chance.uniform(0, 0.3))


class Vanisher(Client):
    """Goes away in the middle: of its request, of the call, of the answer."""

    async def round(self) -> None:
        connection = await self.connected()
        question = self.question()
        request = self.books.asked(question, connection.made, connection.answers)
        data = question.head + question.body
        try:
            async with asyncio.timeout(self.chance.uniform(0, 0.3)):
                if self.chance.random() < 0.4:
                    await connection.send(data[: self.chance.randrange(len(data))])
                else:
                    await connection.send(data)
                    if self.chance.random() < 0.5:
                        await connection.head()
                await asyncio.sleep(self.chance.uniform(0, 0.1))
        except (TimeoutError, CutError):
            pass  # it leaves anyway
        self.books.vanished(request)
        self.leave(reset=self.chance.random() < 0.5)


SHARES: dict[type[Client], float] = {
    Keeper: 0.45,
    Brief: 0.15,
    Pipeliner: 0.08,
    SlowReader: 0.08,
    SlowSender: 0.08,
    Patient: 0.08,
    Vanisher: 0.08,
}


class Once(Client):
    """One question, asked once."""

    async def put(self, question: Question) -> Request:
        try:
            (request,) = await self.ask(question)
        finally:
            self.leave()
        return request
