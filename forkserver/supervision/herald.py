"""What the master tells the operator: log lines and the service manager's status, from what the roster has for news.

It promises that "generation N serves" is said only when no older one can answer any more, and that a refused reload
names its reason and who serves on. It refuses to decide anything.
"""

from __future__ import annotations

from forkserver import systemd
from forkserver.supervision import banner, roster
from forkserver.supervision.resources import Resources
from forkserver.supervision.roster import News, Roster


class Herald:
    """Speaks for the master."""

    def __init__(self, resources: Resources, facts: Roster, notifier: systemd.Notifier) -> None:
        self._resources = resources
        self._facts = facts
        self._notifier = notifier

    def tell(self, news: News) -> None:
        """Tell one turning point."""
        log = self._resources.log
        generation, why = news.generation, news.why
        if news.kind == roster.READY:
            self._ready()
        elif news.kind == roster.SERVES:
            log.info(f"generation {generation} serves: {self._counted()}")
            if self._facts.reloading:  # the next reload has begun, and READY would say that it is over
                self._notifier.status(self._status())
            else:
                self._notifier.ready(self._status())
        elif news.kind in (roster.REFUSED, roster.WENT_BACK):
            self._failed(f"reload failed: {why.reason}", why.details)
        elif news.kind == roster.NOT_REPLACED:
            log.error(f"no new template: {why.reason}; living workers serve on", details=why.details)
        elif news.kind == roster.TEMPLATE_DIED:
            log.error(f"template gen={generation} died ({why.reason}); its workers serve on, another is started")
        elif news.kind == roster.NEVER_STARTED and self._resources.log_files[0]:
            log.critical(
                f"cannot start: {why.reason}", details=why.details
            )  # standard error is told by the program's end

    def settings_refused(self, reason: str) -> None:
        """The settings to reload with are wrong."""
        self._failed(f"reload failed: {reason}", "")

    def reloading(self, generation: int) -> None:
        """A reload begins."""
        self._resources.log.info(f"reload: loading generation {generation}")
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

    def logs_reopened(self) -> None:
        """The log files were opened again, and everyone was told."""
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
        return f"generation {self._facts.serving_generation} serves: {self._counted()}"

    def _counted(self) -> str:
        count = len(self._facts.serving())
        return "1 worker" if count == 1 else f"{count} workers"
