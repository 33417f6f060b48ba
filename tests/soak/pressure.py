"""Faults that leave the program short of something (descriptors, processes, a reader of its log, time), or lie to it.

Each fault ends once clients that came while it lasted have been answered rightly.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

from soak import questions
from soak.books import Books
from soak.clients import Crew, Once
from soak.connection import Connection, CutError
from soak.records import Outcome
from soak.service import BOUND, Service, TooLateError

SPARE_DESCRIPTORS = 2  # that a worker still has, once its limit is set
STORM_CRASHES = (3, 8)
STORM_GAP_SECONDS = 1.0
SLOW_BODY = b"POST /digest/0/- HTTP/1.1\r\nHost: soak\r\nContent-Length: 1000\r\n\r\n"
SLOW_GAP_SECONDS = 0.1
SERVED = 5  # clients that are answered rightly while a fault lasts


class Pressure:
    """``room`` is how many connections the workers have in all."""

    def __init__(self, service: Service, books: Books, crew: Crew, chance: random.Random, room: int) -> None:
        self._service = service
        self._books = books
        self._crew = crew
        self._chance = chance
        self._room = room

    async def descriptor_limit(self) -> None:
        """One worker has hardly a descriptor left, beyond those that it opens before its first answer."""
        victim = self._some_answering_worker()
        if victim is None:
            return
        try:
            soft, hard = victim.rlimit(resource.RLIMIT_NOFILE)
            victim.rlimit(resource.RLIMIT_NOFILE, (min(soft, victim.num_fds() + SPARE_DESCRIPTORS), hard))
        except psutil.NoSuchProcess:
            return
        async with self._short_of_room():
            try:
                await self._some_are_served()
            finally:
                self._give_back(victim, soft, hard)

    @staticmethod
    def _give_back(victim: psutil.Process, soft: int, hard: int) -> None:
        if victim.is_running():
            victim.rlimit(resource.RLIMIT_NOFILE, (soft, hard))

    async def process_limit(self) -> None:
        """No process can be forked, no thread started; a worker dies, and is replaced once the limit is lifted."""
        limit = self._service.limit
        assert limit is not None
        since = self._service.mark()
        limit.forbid_more()
        try:
            await self._crash()
            await self._some_are_served()
        finally:
            limit.lift()
        await self._service.find(r"worker=\d+ gen=\d+ pid=\d+ is ready", since)

    async def crash_storm(self) -> None:
        """A request that kills its worker, again and again."""
        for _ in range(self._chance.randint(*STORM_CRASHES)):
            await self._crash()
            await self._one_is_served()
            await asyncio.sleep(STORM_GAP_SECONDS)

    async def lying_application(self) -> None:
        """An application that names processes as workers which are none, this one among them."""
        window = self._books.lies()
        try:
            await self._once().put(questions.lie(self._books.number(), os.getpid()))
            await self._some_are_served()
        finally:
            window.until = asyncio.get_running_loop().time()

    async def full_log(self) -> None:
        """The access log's pipe is full, and its reader does not read."""
        reader = self._service.access_log
        reader.pause()
        try:
            async with asyncio.timeout(BOUND):
                while not reader.full():
                    await self._one_is_served()
            await self._some_are_served()
        except TimeoutError:
            raise TooLateError(f"the access log's pipe is not full after {BOUND:g} s") from None
        finally:
            reader.resume()

    async def slow_bodies(self) -> None:
        """More clients than the workers have room for, each in the middle of a body."""
        crowd: list[Connection] = []
        async with self._short_of_room():
            try:
                for _ in range(int(self._room * 1.2)):
                    await self._begin_slow_body(crowd)
                trickle = asyncio.create_task(self._trickle(crowd))
                try:
                    await self._some_are_served()
                finally:
                    trickle.cancel()
                    await asyncio.wait([trickle])
            finally:
                for connection in crowd:
                    connection.close(reset=self._chance.random() < 0.2)

    async def _begin_slow_body(self, crowd: list[Connection]) -> None:
        try:
            connection = await Connection.open(self._chance.choice(self._crew.addresses))
        except BlockingIOError:  # a Unix socket's queue is full, unix(7)
            return
        crowd.append(connection)
        await _send(connection, SLOW_BODY)

    @staticmethod
    async def _trickle(crowd: list[Connection]) -> None:
        while True:
            for connection in crowd:
                await _send(connection, b"x")
            await asyncio.sleep(SLOW_GAP_SECONDS)

    # Clients that come meanwhile

    async def _crash(self) -> None:
        await self._once().put(questions.crash(self._books.number()))

    async def _some_are_served(self) -> None:
        for _ in range(SERVED):
            await self._one_is_served()

    async def _one_is_served(self) -> None:
        """Ask on new connections until one is answered rightly. Raises TooLateError."""
        try:
            async with asyncio.timeout(BOUND):
                while not self._crew.stopping:
                    request = await self._once().put(questions.make("small", self._books.number(), self._chance))
                    if request.outcome is Outcome.RIGHT:
                        return
        except TimeoutError:
            raise TooLateError(f"no client was answered rightly within {BOUND:g} s") from None

    def _once(self) -> Once:
        return Once(self._crew, self._chance.choice(self._crew.addresses), random.Random(self._chance.random()))

    def _some_answering_worker(self) -> psutil.Process | None:
        found = [worker for worker in self._service.workers() if worker.pid in self._books.answering]
        try:
            return psutil.Process(self._chance.choice(found).pid) if found else None
        except psutil.NoSuchProcess:
            return None

    @asynccontextmanager
    async def _short_of_room(self) -> AsyncIterator[None]:
        window = self._books.crowd()
        try:
            yield
        finally:
            window.until = asyncio.get_running_loop().time()


async def _send(connection: Connection, data: bytes) -> None:
    """Send what a server that has closed the connection already does not want."""
    try:
        await connection.send(data)
    except CutError:
        return  # it made room for another
