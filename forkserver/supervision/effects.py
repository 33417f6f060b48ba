"""The steps of a plan, taken: what the master does to processes.

It promises that the roster hears of every step, so that no plan names it twice. It refuses to decide: which steps, and
when, stands in plan.py.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Final

from forkserver import kernel, scoreboard
from forkserver.errors import ForkserverError
from forkserver.scoreboard import Row
from forkserver.settings import Settings
from forkserver.supervision import messages, plan, rights, signals, template
from forkserver.supervision.herald import Herald
from forkserver.supervision.links import Links
from forkserver.supervision.lives import State, Template, Worker
from forkserver.supervision.messages import Channel
from forkserver.supervision.news import Failure
from forkserver.supervision.resources import Resources
from forkserver.supervision.roster import Purpose, Roster, Times

_ROW_STATES: Final = {
    State.ORDERED: scoreboard.STARTING,
    State.STARTING: scoreboard.STARTING,
    State.SERVING: scoreboard.SERVING,
}


class Effects:
    """The master's hands. ``noted`` are its signals, which a template leaves behind."""

    def __init__(
        self, resources: Resources, facts: Roster, herald: Herald, links: Links, noted: signals.Signals
    ) -> None:
        self._resources = resources
        self._facts = facts
        self._herald = herald
        self._links = links
        self._signals = noted
        self._settings: dict[int, Settings] = {}  # by generation
        self._rows: dict[Worker, Row] = {}

    def act(self, step: plan.Step, now: float) -> None:
        """Take one step."""
        match step:
            case plan.Reload():
                self._reload()
            case plan.Replace():
                settings = self._settings[self._facts.current]  # not those of a reload that has failed since
                self._herald.replacing(self.begin(Purpose.REPLACE, settings))
            case plan.StartTemplate(generation, shares):
                self._start_template(generation, shares, now)
            case plan.EndTemplate(each):
                self._end_template(each, now)
            case plan.AskForStacks(process):
                self._ask_for_stacks(process, now)
            case plan.KillTemplate(each):
                self._resources.log.error(f"{each} has not ended in time; the master kills it")
                kernel.kill(each.pid, signal.SIGKILL)
                self._facts.template_overdue(each, now)
            case plan.SpawnWorker(slot, generation):
                self._spawn(slot, generation, now)
            case plan.RetireWorker(worker):
                self._retire(worker, now)
            case plan.QuitWorker(worker):
                kernel.kill(worker.pid, signal.SIGINT)
                self._facts.worker_quitting(worker, now)
            case plan.KillWorker(worker):
                self._resources.log.error(f"{worker} has not left in time; the master kills it")
                self.kill(worker, now)
            case plan.AbandonWorker(worker):
                self._resources.log.error(f"{worker} was ordered and never forked; it is given up")
                self._facts.worker_overdue(worker, now)
                self.release(worker)

    def begin(self, purpose: Purpose, settings: Settings) -> int:
        """Begin a generation that is to run by ``settings``; returns its number."""
        times = Times(settings.boot_timeout, settings.graceful_timeout)
        number = self._facts.begin(purpose, settings.workers, times, settings.preload != "off")
        known = self._facts.generations
        self._settings = {each: of for each, of in self._settings.items() if each in known} | {number: settings}
        return number

    def watched_calls(self) -> list[tuple[Worker, Row, float]]:
        """The workers that may be in a call, each with its row and how many seconds a call may last."""
        return [
            (worker, self._rows[worker], self._settings[worker.generation].timeout)
            for worker in self._facts.workers
            if worker.state in (State.SERVING, State.DRAINING)
        ]

    def kill(self, worker: Worker, now: float) -> None:
        """SIGKILL. Whoever calls says why in the log."""
        kernel.kill(worker.pid, signal.SIGKILL)
        self._facts.worker_overdue(worker, now)

    def give_listeners(self, process: Template | Worker) -> None:
        """To a worker, to serve them; to a template, to end our own ones if the master dies."""
        listeners = self._resources.listeners
        if isinstance(process, Template):
            own = [listener.fileno() for listener in listeners if listener.own]
            self._links.order(process, messages.Guard(), own)
        elif listeners and process.state is State.STARTING:
            order = messages.Serve(siblings=self._facts.wanted > 1)
            self._links.order(process, order, [listener.fileno() for listener in listeners])

    def close_listeners(self) -> None:
        """Everyone has the order to retire: nobody but the workers is to hold a listener any more."""
        if self._resources.listeners:
            self._resources.close_listeners()
            for each in self._facts.templates:
                self._links.order(each, messages.Guard())

    def show(self, worker: Worker) -> None:
        """Show the worker's pid and state on the scoreboard."""
        words = self._rows[worker].words
        words[scoreboard.PID] = worker.pid
        words[scoreboard.STATE] = _ROW_STATES.get(worker.state, scoreboard.DRAINING)

    def release(self, worker: Worker) -> None:
        """Give back what a worker had that is no more."""
        self._links.drop(worker)
        self._rows.pop(worker).clear()

    # Templates

    def _reload(self) -> None:
        try:
            self._resources.reload()
        except ForkserverError as error:
            self._facts.reload_refused()
            self._herald.settings_refused(str(error))
            return
        self._herald.reloading(self.begin(Purpose.RELOAD, self._resources.settings))

    def _start_template(self, generation: int, shares: bool, now: float) -> None:
        settings = self._settings[generation]
        ours, theirs = Channel.pair()
        try:
            legacy = template.Legacy(
                settings=settings,
                generation=generation,
                shares=shares,
                directory=self._resources.directory,
                started_in=self._resources.started_in,
                rights=rights.wanted(settings.user, settings.group, settings.umask),
                log=self._resources.log,
                access=self._resources.access,
                board=self._resources.board,
                leave_behind=partial(self._leave_behind, ours),
            )
            pid = signals.spawn(partial(template.main, legacy, Channel(theirs), os.getpid()))
        except (OSError, ForkserverError) as error:
            ours.close()
            theirs.close()
            self._facts.generation_failed(generation, Failure(f"cannot start a template: {error}", exit_status=1), now)
            return
        theirs.close()
        self._links.add(self._facts.template_started(generation, pid, now), ours)

    def _leave_behind(self, ours: Channel) -> None:
        """In a template: close what is the master's own, or the end of the master would not be seen."""
        ours.close()
        self._links.close()
        self._signals.close()
        for listener in self._resources.listeners:
            listener.close()

    def _end_template(self, each: Template, now: float) -> None:
        # While it imports it hears no order; the signal ends it there.
        if each.state is not State.LOADED or not self._links.order(each, messages.Retire(0)):
            kernel.kill(each.pid, signal.SIGTERM)
        self._facts.template_ending(each, now)

    def _ask_for_stacks(self, process: Template | Worker, now: float) -> None:
        self._resources.log.error(
            f"{process} has not started within boot_timeout; its stacks follow, then it is killed"
        )
        kernel.kill(process.pid, signal.SIGUSR2)
        if isinstance(process, Template):
            self._facts.template_overdue(process, now)
        else:
            self._facts.worker_overdue(process, now)

    # Workers

    def _spawn(self, slot: int, generation: int, now: float) -> None:
        parent, row = self._facts.template(generation), self._resources.lease_row()
        if parent is None or row is None:
            self._not_spawned(slot, generation, row, "every row of the scoreboard is taken", now)
            return
        row.words[scoreboard.SLOT], row.words[scoreboard.GENERATION] = slot, generation
        try:
            ours, theirs = Channel.pair()
        except OSError as error:
            self._not_spawned(slot, generation, row, str(error), now)
            return
        sent = self._links.order(parent, messages.Spawn(row.index, slot, generation), [theirs.fileno()])
        theirs.close()
        if not sent:
            ours.close()
            self._not_spawned(slot, generation, row, f"{parent} takes no orders", now)
            return
        worker = self._facts.worker_ordered(slot, generation, row.index, now)
        self._rows[worker] = row
        self._links.add(worker, ours)

    def _not_spawned(self, slot: int, generation: int, row: Row | None, why: str, now: float) -> None:
        if row is not None:
            row.clear()
        self._resources.log.error(f"no worker for slot {slot + 1}: {why}")
        self._facts.spawn_failed(generation, why, now)

    def _retire(self, worker: Worker, now: float) -> None:
        grace = self._settings[worker.generation].graceful_timeout
        # Before it serves it may be importing, and hear only a signal.
        if not self._links.order(worker, messages.Retire(grace)) or worker.state is State.STARTING:
            kernel.kill(worker.pid, signal.SIGTERM)
        self._facts.worker_retiring(worker, now)
        self.show(worker)
