"""The reporter: log lines and the service manager's status, from the events of the model. It decides nothing.

"generation N serves" is logged only when no older one can answer any more. A refused reload is logged with its reason
and with the generation that serves on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from forkserver.ipc.busy_call import Busy
from forkserver.linux import systemd
from forkserver.linux.common.counted import count_of
from forkserver.logs.error_log import ErrorLog
from forkserver.master.control.reload_waiters import ReloadWaiters
from forkserver.master.model.events import Event, EventKind, Failure
from forkserver.master.model.lifecycle import Worker
from forkserver.master.model.rollout import Rollout
from forkserver.master.monitoring.memory import MIB
from forkserver.master.monitoring.statistics import Statistics
from forkserver.master.reporting import startup_banner
from forkserver.master.reporting.crash_reports import CrashReports
from forkserver.master.reporting.repeated_errors import RepeatedErrors
from forkserver.master.reporting.status_text import LOADS_FILES, NONE_LEFT, StatusText, not_shared
from forkserver.master.reporting.systemd_status import SystemdStatus
from forkserver.master.resources.resources import Resources
from forkserver.worker.loading import late_modules
from forkserver.worker.loading.release_paths import Move

_AT_THE_END: Final = "the service is draining, and only a stop may follow"
_PIDS: Final = 10  # of processes that are left running


class Reporter:
    """Writes the master's log lines and tells the service manager."""

    def __init__(
        self, resources: Resources, rollout: Rollout, notifier: systemd.Notifier, statistics: Statistics
    ) -> None:
        self._resources = resources
        self._fleet = rollout.fleet
        self._rollout = rollout
        self._notifier = notifier
        self._statistics = statistics
        self.reloads = ReloadWaiters()
        self._repeated_errors = RepeatedErrors()  # of workers
        self._template_errors = RepeatedErrors()
        self._status = StatusText(rollout, self.reloads)
        self._systemd_status = SystemdStatus(notifier, rollout, statistics, self.status)
        self._crashes = CrashReports()

    @property
    def _log(self) -> ErrorLog:
        return self._resources.log  # a reload may bring another

    def tell(self, news: Event, now: float) -> None:
        """Tell one turning point."""
        log, why = self._log, news.why
        match news.kind:
            case EventKind.READY:
                self._ready()
            case EventKind.SERVES if self._rollout.waiting:
                log.info(NONE_LEFT)
            case EventKind.SERVES:
                self._serves(news.generation)
            case EventKind.GOING_BACK:
                log.error(f"generation {news.generation} does not start: {why.reason}; the slots it has taken go back")
            case EventKind.REFUSED | EventKind.WENT_BACK:
                self.reloads.failed(news.generation, self._failed(why.reason, why.details), why.details)
            case EventKind.MIXED:
                self.reloads.failed(news.generation, self._mixed(news.generation, why), why.details)
            case EventKind.COSTLY:
                message = f"generation {news.generation} has taken over, at a cost: {why.reason}"
                log.error(message)
                self.reloads.failed(news.generation, message, "")
            case EventKind.FILES_CHANGED if self._resources.settings.reload_on_change == "off":
                log.warning(
                    "the workers serve on, but each imports for itself: until a reload succeeds no worker is recycled, "
                    f"and one that crashes is replaced by one that {LOADS_FILES}"
                )
            case EventKind.NOT_REPLACED:
                self._not_replaced(why, now)
            case EventKind.TEMPLATE_DIED:
                wait = self._fleet.template_deaths.retry_at - now
                again = f", and the next one is loaded in {wait:.1f} s" if wait > 0 else ""
                log.error(f"template gen={news.generation} died ({why.reason}); its workers serve on{again}")
            case EventKind.NEVER_STARTED:
                if not self._resources.logs.on_standard_error:  # standard error is told by the program's end
                    log.critical(f"cannot start: {why.reason}", details=self.untold(why.reason, why.details))

    def asked_to_leave(self, worker: Worker, signal_name: str) -> None:
        """A signal was sent to ``worker``, or to the whole process group, as Ctrl-C sends SIGINT."""
        if self._rollout.files_changed and not self._fleet.stopping and signal_name != "SIGINT":
            self._log.warning(
                f"{signal_name}: {worker} stays until a reload succeeds, for a new worker {LOADS_FILES}; KILL ends it"
            )
        else:
            self._log.debug(f"{worker} was sent {signal_name}")

    def told(self, why: Failure) -> bool:
        """Whether the error log, on standard error, shows the traceback of ``why`` already."""
        return self._resources.logs.on_standard_error and self._repeated_errors.known(why.reason)

    def in_batches(self, generation: int, workers: int, size: int, left: float) -> None:
        """Memory does not hold all new workers beside those of before."""
        self._log.warning(
            f"generation {generation}: memory has room for {count_of(workers, 'new worker')} beside those of before "
            f"({left / MIB:.0f} MiB left, {size / MIB:.0f} MiB each), so these retire as new ones are ready; "
            "should a later one fail, those that have retired cannot come back"
        )

    def settings_refused(self, reason: str) -> None:
        """The settings to reload with are wrong."""
        if self._rollout.serving_generation:
            # With Type=notify-reload systemd has sent the HUP and waits for RELOADING=1: a READY=1 alone ends nothing.
            self._notifier.reloading(f"reading the settings; {self.status()}")
        self.reloads.refused(self._failed(reason, ""))

    def reloading(self, generation: int) -> None:
        """A reload begins."""
        self.reloads.began(generation)
        self._log.info(f"reload: loading generation {generation}")
        if self._rollout.serving_generation:
            self._notifier.reloading(self.status())

    def asked_to_reload(self, sender: str) -> None:
        """A signal asks for a reload."""
        if self._fleet.draining or self._fleet.stopping:
            self._log.warning(f"{sender}: no reload, the service is draining or stopping")
            self._no_reload_at_the_end()
        else:
            self._log.info(f"reload wanted: {sender}")

    def _no_reload_at_the_end(self) -> None:
        """Answer whatever waits for a reload of a service that drains, as a refused one is answered.

        One that stops has said STOPPING=1, after which the manager waits for nothing else.
        """
        message = f"no reload: {_AT_THE_END}"
        self.reloads.refused(message)
        if self._rollout.serving_generation and not self._fleet.departing:
            self._notifier.reloading(message)
            self._notifier.ready(self.status())

    def upgrading(self, interpreter: str) -> None:
        """The next program is tried. Its arguments may hold secrets, so they are not told."""
        self._log.info(f"upgrade: trying the next program, run by {interpreter}")

    def environment_moved(self, typed: str, place: str, before: str) -> None:
        """A reload would load new code beside old dependencies: it begins with an upgrade."""
        self._log.info(
            f"reload: {typed} leads to {place} by now, and not to {before}; an upgrade takes its dependencies"
        )

    def upgrade_refused(self, reason: str, details: str = "") -> None:
        """The next program cannot take over: this one serves on."""
        message = f"upgrade refused: {reason}; the running program serves on"
        self._log.error(message, details=details)
        self.reloads.upgrade_refused(message)
        self._status.served_then = 0
        self._notifier.status(self.status())

    def upgrade_unwanted(self) -> None:
        """It was asked for while the service stops."""
        self._log.warning("SIGUSR2: no upgrade, the service is draining or stopping")

    def becoming(self, program: str, now: float) -> None:
        """The next program has read the state; this is the last line of this one."""
        self.tell_counted(now)
        before = self._resources.environment.real
        self._log.info(f"upgrade: {program} understands and takes over from the one in {before}")
        self._notifier.stretch_watchdog()

    def stays(self) -> None:
        """The kernel has not run the next program after all."""
        self._notifier.restore_watchdog()

    def upgraded(self, program: str) -> None:
        """The first line of the next program."""
        self._notifier.restore_watchdog()
        self._log.info(f"upgraded to {program}; a reload brings the workers to it")

    def _not_replaced(self, why: Failure, now: float) -> None:
        """A generation does not load in place of a dead template; it is tried again as long as workers are missing."""
        if self._rollout.replace_failures <= 1:  # the first in a row
            self._template_errors.forget()
        self._status.no_template = why.reason
        before = self._template_errors.count(why.reason, now)
        self._log_error("no new template: ", why, "living workers serve on", before)

    def stays_with_release(self, generation: int, move: Move) -> None:
        """A link was switched since the workers' code was loaded, and what replaces its template stays with that."""
        self._tell_once(
            self._log.warning,
            f"generation {generation} is loaded from {move.before}, as what serves: {move.typed} leads to {move.now} "
            "by now, which only a reload takes",
        )

    def takes_another_release(self, generation: int, move: Move) -> None:
        """The code of before is gone, and no worker serves."""
        self._tell_once(
            self._log.error,
            f"generation {generation} is loaded from {move.now}, without a reload: no worker serves, and "
            f"{move.before}, where its code was, is gone; reload",
        )

    def _tell_once(self, log: Callable[[str], object], line: str) -> None:
        """Tell where a template in place of a dead one is loaded from: at its first try, else at level debug."""
        (self._log.debug if self._rollout.replace_failures else log)(line)

    def stopping(self, how: str, seconds: float = 0.0) -> None:
        """The service begins to stop, and may take ``seconds`` for it."""
        self._log.info(f"stopping: {how}")
        self.reloads.stop("the service is stopping")
        self._notifier.stopping(f"stopping: {how}", seconds)

    def resized(self) -> None:
        """The number of workers wanted has changed."""
        fleet, rollout = self._fleet, self._rollout
        risk = f"; a worker that is added {LOADS_FILES}" if rollout.files_changed and not rollout.whole() else ""
        self._log.info(f"workers wanted: {fleet.wanted}{risk}")
        self._notifier.status(self.status())

    def not_resized(self, sender: str, most: int) -> None:
        """A signal has asked for one worker more than there may be."""
        self._log.warning(
            f"workers wanted: still {self._fleet.wanted}, although {sender} asks for one more: max_workers is {most}; "
            "raise that, or workers, in the settings and reload"
        )

    def cannot_share(self, reason: str) -> None:
        """The import left something that a fork would break."""
        self._log.warning(f"each worker imports for itself (preload=auto), because {not_shared(reason)}")

    def worker_ended(self, worker: Worker, cause: str, remains: str, now: float, calls: Sequence[Busy] = ()) -> None:
        """A worker that had served has ended without an order; ``calls`` were going on."""
        facts = self._status.end(worker, cause, remains, now)
        if worker.leaving and worker.sentence:  # it held something for longer than it may, which it was told to finish
            self._log.warning(facts)
        elif self._crashes.in_full(cause, (each.line for each in calls), now):
            self._log.error(facts, request_id=calls[0].request_id if len(calls) == 1 else "")
        else:
            self._log.debug(facts)

    @property
    def next_look(self) -> float:
        """When ``look`` has something to tell."""
        return min(self._crashes.next_look, self._status.shortage.next_look, self._systemd_status.next_look)

    def look(self, now: float) -> None:
        """Tell what was only counted until now, when it is time; and the service manager how the service stands."""
        if now >= self._crashes.next_look:
            self.tell_counted(now)
        if over := self._status.shortage.over(now):
            self._log.info(over)
        self._systemd_status.beat(now)

    def tell_counted(self, now: float) -> None:
        """Tell what was only counted until now: before an end, or when it is time."""
        if summary := self._crashes.summary(now):
            self._log.error(summary)

    def worker_failed(self, worker: Worker, why: Failure, now: float) -> None:
        """A worker has not come to serve: the reason once, then how often."""
        if self._fleet.recovered(self._repeated_errors.last, now):
            self._repeated_errors.forget()
        # A failed worker is tried again after a delay; not where it ends a first start or a reload.
        prospect = self._status.prospect(worker, now) if self._status.wait(worker, now) > 0 else ""
        self._status.reasons[worker.slot] = why.reason
        if self._rollout.told_next(why, self._resources.settings.reload_on_change == "on"):
            return
        self._log_error(f"{worker} did not start: ", why, prospect, self._repeated_errors.count(why.reason, now))

    def no_process(self, why: str, now: float) -> None:
        """The kernel has refused a process, or what belongs to one."""
        wait = self._fleet.forks.retry_at - now
        if said := self._status.shortage.refused(why, now):
            prospect = f"; next try in {wait:.1f} s" if wait > 0 else ""
            self._log.error(f"no new process: {said}{prospect}")

    def hung(self, worker: Worker, request: str, seconds: float) -> None:
        """A call lasts too long."""
        self._log.error(
            f"{worker}: {request} has taken {seconds:.1f} s, longer than it may; "
            "the worker is told to write the stacks of its threads, to end it and to retire; if such calls may last so "
            "long, raise --timeout, or have them ask for more time (forkserver.extend_deadline)"
        )

    def draining(self, sender: str, seconds: float) -> None:
        """A stop has begun with the time in which load balancers notice."""
        self.stopping(f"{sender}; serving on for drain_delay, {seconds:g} s", seconds + self._status.longest_leave())

    def finishing(self, sender: str) -> None:
        """A stop begins that lets every request finish."""
        self.stopping(f"{sender}; finishing open requests", self._status.longest_leave())

    def serving_on(self, sender: str, unfinished: bool) -> None:
        """Answers close their connections from now on, until a stop; a reload may have been left ``unfinished``."""
        self.reloads.stop(_AT_THE_END)
        self._log.info(f"draining: {sender}; serving on with Connection: close until a stop")
        if unfinished:
            self._log.warning(f"the reload that was under way, or was to follow, is left: {_AT_THE_END}")
            self._no_reload_at_the_end()
        else:
            self._notifier.status(self.status())

    def maintenance(self) -> None:
        """Maintenance was switched on or off."""
        what = "on: requests are answered 503" if self._fleet.maintenance else "off: the application answers again"
        self._log.warning(f"maintenance is {what}")
        self._notifier.status(self.status())

    def left_alive(self, pids: list[int]) -> None:
        """Processes of the application that outlive the service."""
        if pids:
            count = count_of(len(pids), "process", "processes")
            more = [f"{len(pids) - _PIDS} more"] if len(pids) > _PIDS else []
            shown = ", ".join([*map(str, pids[:_PIDS]), *more])
            self._log.warning(f"the application leaves {count} running, pid {shown}; it started them")

    def _log_error(self, subject: str, why: Failure, prospect: str, before: int) -> None:
        """State a reason in full, or how often it was counted ``before``."""
        what = f"the same again, {count_of(before, 'time')}" if before else why.reason
        told = "; ".join(filter(None, (subject + what, prospect)))
        self._log.error(told, details="" if before else why.details)

    def logs_reopened(self, kept: int) -> None:
        """Every process writes to the log files that were opened again, and to the old ones of ``kept``."""
        but = f", but for {kept}: the old is written on" if kept else ""
        (self._log.warning if kept else self._log.info)(f"log files are opened again{but}")
        self._notifier.status(f"{self.status()}; log files opened again{but}")

    def forget_errors(self) -> None:
        """State reasons in full again: a reload that failed had other logs, or code is being written."""
        self._repeated_errors.forget()

    def _ready(self) -> None:
        self._statistics.serves(first=True)
        resources, fleet, rollout = self._resources, self._fleet, self._rollout
        shared = fleet.generations[rollout.current].shares
        workers = [worker.pid for worker in fleet.serving()]
        templates = [template.pid for template in fleet.templates]
        for line in startup_banner.lines(resources.settings, resources.listeners, workers, templates, shared):
            resources.log.info(line)
        for line in startup_banner.warnings(resources.settings, resources.listeners):
            resources.log.warning(line)
        self._notifier.ready(self.status())
        self.reloads.serves(rollout.serving_generation, self.status())
        try:
            late_modules.load_for_master(resources.settings, resources.started_in)
        except (ImportError, OSError) as error:  # the workers serve; where one is needed, it is looked for again
            resources.log.warning(
                f"modules that are needed later cannot be loaded: {error}; a reload or a command may fail for that"
            )

    def _serves(self, generation: int) -> None:
        if self._fleet.serving_count or not self._fleet.wanted:
            self._log.info(f"generation {generation} serves: {self._status.counted()}")
        else:
            self._log.warning(
                f"generation {generation} is loaded, but no worker serves: those of before have ended, too"
            )
        self._statistics.serves(first=False)
        if self._rollout.reloading:  # the next reload has begun, and READY would say that it is over
            self._notifier.status(self.status())
        else:
            self._notifier.ready(self.status())
        self.reloads.serves(generation, self.status())  # last: the manager is told before a command returns

    def _failed(self, why: str, details: str) -> str:
        """Tell that a reload has failed; returns the message."""
        serving = self._rollout.serving_generation
        still = f"still serving generation {serving or self._rollout.current}"
        still = "waiting until a file of it changes" if self._rollout.waiting else still
        return self._no_reload(f"reload failed: {why}; {still}", why, details)

    def _mixed(self, generation: int, why: Failure) -> str:
        """Tell that a reload has failed, and that some workers of it serve on; returns the message."""
        message = f"reload failed: {why.reason}; {self._status.mixed(generation)}; fix the cause and reload"
        return self._no_reload(message, why.reason, why.details)

    def _no_reload(self, message: str, why: str, details: str) -> str:
        self._statistics.refused()
        serving = self._status.served_then = self._rollout.serving_generation
        self._log.error(message, details=self.untold(why, details))
        if serving and not self._rollout.reloading:  # nor has the next one begun
            # There is no "reload failed" for the manager: READY, and the status says it. See sd_notify(3).
            self._notifier.ready(message)
        else:
            self._notifier.status(message)
        return message

    def untold(self, reason: str, details: str) -> str:
        """``details``, unless a worker that has failed by ``reason`` has shown them."""
        return "" if self._repeated_errors.known(reason) else details

    def status(self, figures: str = "") -> str:
        """How the service stands, in a line; ``figures`` go behind the workers."""
        return self._status.line(figures)
