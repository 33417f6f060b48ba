"""The upgrade in place (SIGUSR2): the master executes the next program, which goes on with its state.

First a child of the next program, the trial, reads the real state and settings and says that it understands them. Only
then does the master write its state into memory, keep that and its descriptors open, and execute. What is refused is
logged with its reason, and the running program serves on.

Workers and templates stay our children: exec changes the program of a process, not the process (execve(2)). What the
next program does then is a reload: it loads a new generation, and a roll brings every slot to it.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING

from forkserver.config import loading, working_directory
from forkserver.errors import ConfigError, ForkserverError
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.process_limits import why_refused
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.model.plan import plan
from forkserver.master.resources import log_set, resources
from forkserver.master.upgrade import snapshot
from forkserver.master.upgrade.new_program import VARIABLE, NewProgram, Trial, TrialResult, answer
from forkserver.master.upgrade.snapshot import Snapshot, SnapshotError
from forkserver.worker.loading import late_modules

if TYPE_CHECKING:
    from forkserver.config.invocation import Environment
    from forkserver.master.model.rollout import Rollout
    from forkserver.master.processes.unended import Unended
    from forkserver.master.reporting.reporter import Reporter

_TRY, _GO_ON = "try", "go-on"


class Upgrade:
    """An upgrade from the wish to the exec. ``write`` gives the state, told what the next program calls itself."""

    def __init__(
        self,
        command: NewProgram,
        rollout: Rollout,
        reporter: Reporter,
        write: Callable[[str], Snapshot],
        unended: Unended,
    ) -> None:
        self.wanted = False
        self._command = command
        self._fleet = rollout.fleet
        self._rollout = rollout
        self._reporter = reporter
        self._write = write
        self._unended = unended
        self._trial: Trial | None = None
        self._new_program = ""  # what it calls itself, once it has said that it understands

    @property
    def trying(self) -> bool:
        """Whether a child of the next program lives."""
        return self._trial is not None

    @property
    def pid(self) -> int:
        """That of the child of the next program; 0 where there is none."""
        return 0 if self._trial is None else self._trial.pid

    @property
    def next_look(self) -> float:
        """When ``turn`` has something to do although nothing has happened."""
        return NEVER if self._trial is None else self._trial.deadline

    @property
    def due(self) -> bool:
        """Whether the next program understands, and neither another trial nor a stop has been asked for meanwhile."""
        return bool(self._new_program) and not self.wanted and not self._stopping

    def want(self) -> None:
        """Try the next program, now or once what is under way is over; not when a stop is near."""
        self.wanted = not self._stopping
        if self._stopping:
            self._reporter.upgrade_unwanted()

    @property
    def _stopping(self) -> bool:
        return self._fleet.draining or self._fleet.stopping

    def _serve_reload(self) -> None:
        """Upgrade before a reload that is wanted, where the environment has moved: dependencies come with it."""
        environment = self._command.environment
        if self.wanted or self._trial is not None or self._new_program or environment is None:
            return
        if self._rollout.reload_wanted and self._rollout.settled and (place := environment.moved()):
            if why := self._why_untrusted(environment):
                self._rollout.reload_refused()
                self._reporter.settings_refused(f"{environment.typed} leads to {place} by now: {why}")
                return
            self._reporter.environment_moved(environment.typed, place, environment.real)
            self.want()

    def _why_untrusted(self, environment: Environment) -> str:
        """Why root does not execute what the path of ``environment`` leads to; empty where it may.

        Only an upgrade that was asked for (USR2) and a start take the word of the user who may switch a link there.
        """
        directory = self._command.directory
        program = os.path.join(directory, self._command.program())
        modules = "-m" in self._command.words and not sys.flags.safe_path  # found in the current directory first
        try:
            why = environment.why_untrusted(program, directory if modules else "")
        except OSError as error:
            return f"cannot look at it: {why_refused(error)}; repair it, then reload again"
        way_out = "give the folders to root alone, or order it as root: by an upgrade (USR2) or a restart"
        return why and f"root does not execute it at a reload, {why}; {way_out}"

    def turn(self, now: float) -> None:
        """Begin a trial where one is wanted and nothing else is under way; end one that is not waited for any more."""
        if self._stopping:
            self._forget(now)
        elif self._trial is not None:
            if now >= self._trial.deadline:
                self._end(self._trial)
        else:
            self._serve_reload()
            if self.wanted and self._rollout.settled:
                self._begin()

    def _begin(self) -> None:
        self.wanted, self._new_program = False, ""
        self._reporter.upgrading(self._command.program())
        try:
            written = self._write("")
            self._trial = Trial(self._command, written.sealed(), soft_limit=written.resources.soft_limit)
        except OSError as error:
            self._refuse(TrialResult("", f"cannot try the next program: {why_refused(error)}"))
            return
        self._rollout.upgrading = True

    def _forget(self, now: float) -> None:
        """The service stops: the next program is not executed."""
        self.wanted, self._new_program = False, ""
        if self._trial is not None and (not self._trial.late or now >= self._trial.deadline):
            self._end(self._trial)

    def _end(self, trial: Trial) -> None:
        """Kill ``trial``; where that was done and has not ended it in time, it counts as ended."""
        if not trial.late:
            trial.kill()
            return
        self._unended.give_up(trial.pid, f"the next program (pid {trial.pid})")
        self.ended(trial.pid, signal.SIGKILL)

    def ended(self, pid: int, status: int) -> bool:
        """A child has ended: whether it was the trial, and then what follows from that."""
        if self._trial is None or pid != self._trial.pid:
            return False
        verdict, self._trial = self._trial.ended(status).checked(self._command.environment), None
        if self._stopping:
            self._rollout.upgrading = False
        elif verdict.program:
            self._new_program = verdict.new_program
        else:
            self._refuse(verdict)
        return True

    def become(self, now: float) -> None:
        """Become the next program; returns where that cannot be, with everything as it was.

        All that has happened until now to be known.
        """
        new_program, self._new_program = self._new_program, ""
        self._reporter.becoming(new_program, now)
        descriptors: list[int] = []
        try:
            written = self._write(new_program)
            memory = written.sealed()
            descriptors = [memory, *written.descriptors()]
            _keep(descriptors, True)
            self._command.become(f"{_GO_ON}:{memory}", map(loading.from_snapshot, written.settings()))
        except (OSError, ConfigError) as error:
            _keep(descriptors, False)
            if descriptors:
                os.close(descriptors[0])
            self._reporter.stays()
            why = error.strerror if isinstance(error, OSError) else error
            self._refuse(TrialResult("", f"cannot become the next program: {why}"))

    def _refuse(self, verdict: TrialResult) -> None:
        environment = self._command.environment
        self._rollout.upgrading = False
        self._reporter.upgrade_refused(verdict.reason, verdict.details)
        if self._rollout.reload_wanted and environment is not None and environment.moved():
            self._rollout.reload_refused()  # or it would be tried again and again
            self._reporter.settings_refused(f"upgrade refused: {verdict.reason}")


def _keep(descriptors: Sequence[int], over_exec: bool) -> None:
    for number in descriptors:
        os.set_inheritable(number, over_exec)


# In the next program


class Order(NamedTuple):
    """The order of the program before: ``reply`` is where a trial answers, -1 where we are to go on."""

    state: int
    reply: int


def take_order(environ: MutableMapping[str, str]) -> Order | None:
    """The order in ``environ``, which is taken out; None where we are no next program. Raises ConfigError."""
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    wanted, *numbers = text.split(":")
    count = {_TRY: 2, _GO_ON: 1}.get(wanted)
    if count != len(numbers) or not all(number.isdecimal() for number in numbers):
        raise ConfigError(f"variable {VARIABLE} {text!r}: it is for forkserver's own upgrade in place; unset it")
    return Order(*map(int, numbers), *[-1] * (2 - len(numbers)))


def try_on(order: Order, argv: Sequence[str], environ: Mapping[str, str], program: str) -> int:
    """The trial: read state and settings as if to go on with them, and answer. Returns the exit status."""
    try:
        _understand(order.state, argv, environ)
        verdict = TrialResult(program, details=os.path.realpath(sys.prefix))
    except ForkserverError as error:
        verdict = TrialResult("", f"{program} refuses: {error}", getattr(error, "traceback", ""))
    except Exception as error:  # a fault of the next program, found before the service depends on it
        verdict = TrialResult("", f"{program} fails: {error}", traceback.format_exc())
    answer(order.reply, verdict)
    return 0 if verdict.program else 1


def _understand(descriptor: int, argv: Sequence[str], environ: Mapping[str, str]) -> None:
    # Every module that we shall need has to be there, and what they import late.
    from forkserver.worker.loading import loader

    late_modules.load()
    loader.preload_modules()
    written = _read(descriptor, os.getppid())
    plan(written.rollout.fleet, written.rollout, 0.0)
    loaded = loading.load(argv, environ)
    if loaded.app is None:
        raise ConfigError("no application given any more; name it as MODULE:APP")
    for each in (*map(loading.from_snapshot, written.settings()), loaded):
        if written.resources.directory:
            working_directory.refuse_chosen(each, written.resources.directory)
        resources.tls_for(each)  # keys are read again by the program that takes over
    log_set.try_on(loading.from_snapshot(written.resources.settings))


def adopt(order: Order) -> Snapshot:
    """The state to go on with; its descriptors are closed on exec from now on. Raises SnapshotError."""
    late_modules.load()  # now: a master that goes on is never ready for the first time
    os.set_inheritable(order.state, False)
    written = _read(order.state, os.getpid())
    _keep(written.descriptors(), False)
    os.close(order.state)
    return written


def _read(descriptor: int, master: int) -> Snapshot:
    written = snapshot.read(descriptor)
    if written.pid != master:
        raise SnapshotError(f"variable {VARIABLE} is meant for pid {written.pid}; unset it")
    return written
