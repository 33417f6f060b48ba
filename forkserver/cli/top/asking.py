"""Questions to the service that the screen does not wait for.

Each is asked by a thread of its own, which ends with its answer. Answers are kept until they are taken, and a byte at
``bell`` says that there is one.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any

from forkserver.cli.control_client import AmbiguousError, UnreachableError
from forkserver.linux.common.records import NamedTuple


class MasterAnswer(NamedTuple):
    """What came of ``command``: the ``reply``, or in ``trouble`` why there is none."""

    command: Mapping[str, Any]
    reply: dict[str, Any]
    trouble: str


class Questions:
    """``ask`` asks a command and waits for its answer; it raises what control_client's functions raise."""

    def __init__(self, ask: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self._ask = ask
        self._answers: deque[MasterAnswer] = deque()
        self.bell, self._rope = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    @property
    def rope(self) -> int:
        """Where a byte rings the bell; signals may do that, too."""
        return self._rope

    def close(self) -> None:
        """Give up the bell; every question must have been answered."""
        os.close(self.bell)
        os.close(self._rope)

    def begin(self, command: Mapping[str, Any]) -> None:
        """Have ``command`` asked."""
        # A daemon: the program may end while a master does not answer.
        Thread(target=self._run, args=(command,), name=f"ask {command['command']}", daemon=True).start()

    def _run(self, command: Mapping[str, Any]) -> None:
        self._answers.append(answer(self._ask, command))
        try:
            os.write(self._rope, b".")
        except BlockingIOError:  # full of bytes that ring it already
            pass

    def taken(self) -> list[MasterAnswer]:
        """The answers that have come."""
        try:
            while os.read(self.bell, 4096):
                pass
        except BlockingIOError:  # all is read
            pass
        taken = []
        while self._answers:
            taken.append(self._answers.popleft())
        return taken


def answer(ask: Callable[[Mapping[str, Any]], dict[str, Any]], command: Mapping[str, Any]) -> MasterAnswer:
    """Ask ``command``, and wait."""
    try:
        return MasterAnswer(command, ask(command), "")
    except TimeoutError:
        return MasterAnswer(command, {}, "no answer in time; is the master stopped?")
    except (UnreachableError, AmbiguousError) as error:
        return MasterAnswer(command, {}, str(error))
