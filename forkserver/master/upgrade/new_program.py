"""The next program: how it is called, and a trial of it in a child before the master executes it.

The command of the first start is looked up anew (the interpreter and the directory by their paths) and gets the
environment of the first start. The trial answers and prints into memory of a fixed size, which the master reads once
the child has ended. A trial that fails, hangs or does not even begin gives a TrialResult with the reason.

Source: https://docs.python.org/3/library/sys.html#sys.orig_argv, execve(2), memfd_create(2).
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, NoReturn

from forkserver.config import working_directory
from forkserver.config.invocation import Environment
from forkserver.config.settings import Settings
from forkserver.errors import ConfigError
from forkserver.linux import descriptor_limit, signals, syscalls, systemd
from forkserver.linux.common.records import NamedTuple
from forkserver.master.model.transitions import UNENDED_SECONDS

VARIABLE: Final = "FORKSERVER_UPGRADE"  # tells the next program what is wanted of it, and where the state is
TRIAL_SECONDS: Final = 30.0  # to start, import and answer: a second or less where nothing is wrong
_ROOM: Final = 64 * 1024  # bytes of an answer, and of what the trial prints
_SHOWN: Final = 8000  # characters of that which are logged: its end, where the error stands
_OF_THE_MANAGER: Final = (*systemd.LISTEN, *systemd.NOTIFY)


class NewProgram(NamedTuple):
    """A command line with its environment and the directory that it is meant from, by its path.

    ``environment`` is the Python environment that it was given from, by the path that was typed.
    """

    words: list[str]
    environ: Mapping[str, str]
    directory: str
    environment: Environment | None = None

    def become(self, order: str, settings: Iterable[Settings] = (), soft_limit: int | None = None) -> None:
        """Execute it, with ``order`` for it to obey; it goes on by ``settings``. Does not return.

        ``soft_limit`` is that of open files which it is to have, None for ours. Raises OSError and ConfigError, in the
        directory of before.
        """
        with working_directory.entered(self.directory):
            for each in settings:
                working_directory.refuse_chosen(each, self.directory)
            self._execute(order, soft_limit)

    def _execute(self, order: str, soft_limit: int | None) -> NoReturn:
        # Its own name tells the interpreter which environment it belongs to.
        moved = self.environment is not None and self.environment.python
        words = [self.program(), *self.words[1:]] if moved else self.words
        program = self.program()
        if soft_limit is not None:  # last: more may be open than it allows, until they are closed on exec
            descriptor_limit.restore(soft_limit)
        syscalls.execute(program, words, {**self.environ, VARIABLE: order})

    def program(self) -> str:
        """The interpreter's path: as it was called, searched on PATH where it was, or where we were started from.

        A console script names its interpreter by the path at which its environment was made; where the script was
        reached by another path, the interpreter is the one beside it.
        """
        if self.environment is not None and self.environment.python:
            return self.environment.python
        called = self.words[0]
        if "/" in called:
            return called
        found = (f"{folder}/{called}" for folder in self.environ.get("PATH", os.defpath).split(os.pathsep) if folder)
        return next((path for path in found if os.path.isfile(path) and os.access(path, os.X_OK)), sys.executable)

    def without_manager(self) -> NewProgram:
        """The same with nothing of the service manager's: the process that runs it is not the service."""
        kept = {name: value for name, value in self.environ.items() if name not in _OF_THE_MANAGER}
        return self._replace(environ=kept)


class TrialResult(NamedTuple):
    """What a trial has come to: ``program`` is what the next program calls itself, empty where it is refused.

    ``details`` are then its traceback; else the environment that it runs in (``sys.prefix``, with no link left).
    """

    program: str
    reason: str = ""
    details: str = ""

    def checked(self, environment: Environment | None) -> TrialResult:
        """The same, or a refusal: the next program must run in ``environment``, where that has moved."""
        place = environment.moved() if environment is not None else ""
        if environment is None or not (self.program and self.details and place) or self.details == place:
            return self
        return TrialResult(
            "",
            f"{environment.typed} leads to {place} by now, but {self.program} runs in {self.details}: new code would "
            f"meet other dependencies; start it as {place}/bin/forkserver, which takes a restart",
        )

    @property
    def new_program(self) -> str:
        """What the next program calls itself, with its environment as far as that is known."""
        return f"{self.program} in {self.details}" if self.details else self.program


class Trial:
    """A child that runs ``command`` to read ``state``, a descriptor, which is closed. Raises OSError.

    ``soft_limit`` is that of open files which the child is to have, None for ours. ``deadline`` (CLOCK_MONOTONIC) is
    when it is to be killed; where it is ``late``, it was, and is given up then.
    """

    def __init__(
        self, command: NewProgram, state: int, seconds: float = TRIAL_SECONDS, soft_limit: int | None = None
    ) -> None:
        self._seconds = seconds
        descriptors = [state]
        try:
            # Memory, not pipes: no process has to read while it runs, and nothing of it can make us wait.
            descriptors.append(_room("forkserver-answer"))
            descriptors.append(_room("forkserver-output"))
            self._answer, self._output = descriptors[1:]
            self.pid = signals.spawn(lambda: _run(command, soft_limit, *descriptors))
        except OSError:
            _close(descriptors)
            raise
        os.close(state)
        self.deadline = syscalls.clock() + seconds
        self.late = False

    def kill(self) -> None:
        """Kill it; that it has ended is told as of any child."""
        syscalls.kill(self.pid, signal.SIGKILL)
        self.deadline, self.late = syscalls.clock() + UNENDED_SECONDS, True

    def ended(self, status: int) -> TrialResult:
        """What it has come to, by its wait status."""
        answer, output = _content(self._answer), _content(self._output)
        self.close()
        if self.late:
            return TrialResult("", f"the next program has not answered within {self._seconds:g} s", output)
        try:
            return TrialResult(*json.loads(answer))
        except (ValueError, TypeError):
            last = output.rstrip().rpartition("\n")[2]
            how = f"the next program does not start: {syscalls.how_it_ended(status)}"
            return TrialResult("", f"{how}: {last}" if last else how, output)

    def close(self) -> None:
        """Give its memory back."""
        _close((self._answer, self._output))


def answer(descriptor: int, verdict: TrialResult) -> None:
    """In the trial: say what it has come to."""
    program, reason, details = verdict
    encoded = json.dumps([program, reason[:1000], details[-_SHOWN:]]).encode()
    os.pwrite(descriptor, encoded, 0)


def _run(command: NewProgram, soft_limit: int | None, state: int, answer_to: int, output: int) -> int:
    """The child, until it is the next program. Signals stay blocked: only SIGKILL is meant for it."""
    syscalls.die_with_parent(signal.SIGKILL)
    with suppress(OSError):  # a sandbox without a writable /proc; where memory runs out, what serves is to be spared
        syscalls.prefer_for_oom(syscalls.OOM_SCORE_MAX)
    try:
        for stream in (1, 2):
            os.dup2(output, stream)
        for number in (state, answer_to):
            os.set_inheritable(number, True)
        command.without_manager().become(f"try:{state}:{answer_to}", soft_limit=soft_limit)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        answer(answer_to, TrialResult("", f"cannot run {command.program()}: {error.strerror}{where}"))
    except ConfigError as error:
        answer(answer_to, TrialResult("", f"cannot run {command.program()}: {error}"))
    os._exit(1)


def _room(name: str) -> int:
    """Memory of a fixed size: a write beyond it fails."""
    number = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(number, _ROOM)
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return number


def _content(number: int) -> str:
    text = os.pread(number, _ROOM, 0).rstrip(b"\0").decode("utf-8", "replace")
    return text[-_SHOWN:]


def _close(numbers: Iterable[int]) -> None:
    for number in numbers:
        os.close(number)
