"""What the master tells the operator: log lines and the service manager's status, from what the roster has for news.

It promises that "generation N serves" is said only when no older one can answer any more, and that a refused reload
names its reason and who serves on. It refuses to decide anything.
"""

from __future__ import annotations

from forkserver import systemd
from forkserver.supervision import banner
from forkserver.supervision.lives import State, Worker
from forkserver.supervision.news import Kind, News
from forkserver.supervision.resources import Resources
from forkserver.supervision.roster import Roster


class Herald:
    """Speaks for the master."""

    def __init__(self, resources: Resources, facts: Roster, notifier: systemd.Notifier) -> None:
        self._resources = resources
        self._facts = facts
        self._notifier = notifier

    def tell(self, news: News) -> None:
        """Tell one turning point."""
        log, why = self._resources.log, news.why
        match news.kind:
            case Kind.READY:
                self._ready()
            case Kind.SERVES:
                self._serves(news.generation)
            case Kind.REFUSED | Kind.WENT_BACK:
                self._failed(f"reload failed: {why.reason}", why.details)
            case Kind.NOT_REPLACED:
                log.error(f"no new template: {why.reason}; living workers serve on", details=why.details)
            case Kind.TEMPLATE_DIED:
                log.error(f"template gen={news.generation} died ({why.reason}); its workers serve on")
            case Kind.NEVER_STARTED:
                if self._resources.log_files[0]:  # standard error is told by the program's end
                    log.critical(f"cannot start: {why.reason}", details=why.details)

    def settings_refused(self, reason: str) -> None:
        """The settings to reload with are wrong."""
        self._failed(f"reload failed: {reason}", "")

    def reloading(self, generation: int) -> None:
        """A reload begins."""
        self._resources.log.info(f"reload: loading generation {generation}")
        if self._facts.serving_generation:
            self._notifier.reloading(f"loading generation {generation}; {self._status()}")

    def replacing(self, generation: int) -> None:
        """A generation is loaded in place of a dead template."""
        self._resources.log.info(f"loading generation {generation} for the workers to come")

    def stopping(self, how: str) -> None:
        """The service begins to stop."""
        self._resources.log.info(f"stopping: {how}")
        self._notifier.stopping(f"stopping: {how}")

    def resized(self) -> None:
        """The number of workers wanted has changed."""
        self._resources.log.info(f"workers wanted: {self._facts.wanted}")
        self._notifier.status(self._status())

    def cannot_share(self, reason: str) -> None:
        """The import left something that a fork would break."""
        self._resources.log.warning(
            f"the import left {reason}: each worker imports for itself (preload=auto); "
            "open them when first used, and the workers share memory"
        )

    def worker_ended(self, worker: Worker, how: str) -> None:
        """A worker is no more."""
        log = self._resources.log
        if worker.state is State.SERVING:
            log.error(f"{worker} ended: {how}; it is replaced")
        elif worker.state is State.STARTING:
            log.error(f"{worker} ended before it was ready: {how}")
        else:
            log.debug(f"{worker} has left: {how}")

    def logs_reopened(self) -> None:
        """The log files were opened again, and everyone writes to the new ones."""
        self._resources.log.info("log files are opened again")
        self._notifier.status(f"{self._status()}; log files opened again")

    def _ready(self) -> None:
        resources, facts = self._resources, self._facts
        shared = facts.generations[facts.current].shares
        pids = [worker.pid for worker in facts.serving()]
        for line in banner.lines(resources.settings, resources.listeners, pids, shared):
            resources.log.info(line)
        for line in banner.warnings(resources.settings, resources.listeners):
            resources.log.warning(line)
        self._notifier.ready(self._status())

    def _serves(self, generation: int) -> None:
        self._resources.log.info(f"generation {generation} serves: {self._counted()}")
        if self._facts.reloading:  # the next reload has begun, and READY would say that it is over
            self._notifier.status(self._status())
        else:
            self._notifier.ready(self._status())

    def _failed(self, what: str, details: str) -> None:
        serving = self._facts.serving_generation
        message = f"{what}; still serving generation {serving or self._facts.current}"
        self._resources.log.error(message, details=details)
        if serving:
            # There is no "reload failed" for the manager: READY, and the status says it. See sd_notify(3).
            self._notifier.ready(message)
        else:
            self._notifier.status(message)

    def _status(self) -> str:
        serving = self._facts.serving_generation
        return f"generation {serving} serves: {self._counted()}" if serving else "starting"

    def _counted(self) -> str:
        count = len(self._facts.serving())
        return "1 worker" if count == 1 else f"{count} workers"
