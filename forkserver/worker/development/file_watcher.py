"""The file watcher from its fork to its end: it waits until a file of the application changes, and rings the master.

Processes that import the application report the files that they have read (file_reports.py). The kernel wakes the
watcher when something happens in their folders (inotify(7)); then, and once in ``LOOK_SECONDS``, it looks at the files
themselves (file_states.py). An editor or a checkout changes files in several steps, so it waits until none has changed
for ``SETTLE_SECONDS``. It logs what has changed, and adds to a counter of the master's, which has no other content.

It has no code of the application, runs as its user, and keeps the standard streams, the error log and its own channels.
It ends with the master, or when the master closes the channel.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
from collections.abc import Iterable
from typing import Final, NoReturn

from forkserver.config.settings import Settings
from forkserver.linux import signals, syscalls, terminal
from forkserver.linux.common.process_title import set_title
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.files.directory_events import DirectoryEvents
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets.plain_socket import PlainSocket
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.development.file_reports import REPORT_BYTES, Report, ReportKind, decode
from forkserver.worker.development.file_states import FileStates
from forkserver.worker.forking.helper_process import run_to_end

LOOK_SECONDS: Final = 1.0  # between two looks where the kernel tells of changes
LOOK_OFTEN_SECONDS: Final = 0.2  # where it does not
SETTLE_SECONDS: Final = 0.03
MOST_SETTLE_SECONDS: Final = 1.0
_NAMES: Final = 3  # of changed files that a line names


class WatcherEnds(NamedTuple):
    """What the watcher is given: ``bell`` to ring, ``leash``, whose end tells it to leave, and where it ``hears``."""

    bell: int
    leash: PlainSocket
    hears: PlainSocket

    def close(self) -> None:
        os.close(self.bell)
        self.leash.close()
        self.hears.close()


class WatcherConfig(NamedTuple):
    """What the master gives at the fork; ``directory`` is the application's, by its path."""

    settings: Settings
    credentials: Credentials
    ends: WatcherEnds
    log: ErrorLog
    directory: str


def main(config: WatcherConfig, master: int) -> NoReturn:
    """The life of the watcher, from its fork; ``master`` is the pid of its parent."""
    run_to_end(FileWatcher(config, master).run, config.log, "the file watcher")


class FileWatcher:
    """The process itself."""

    def __init__(self, config: WatcherConfig, master: int) -> None:
        self._config = config
        self._log = config.log
        self._master = master
        self._ends = config.ends
        self._states = FileStates()
        self._begun_ns = 0  # when the last import has begun
        self._watched: set[str] = set()  # folders of which the kernel tells

    def run(self) -> None:
        """Watch until the master has closed the channel."""
        settings = self._config.settings
        set_title(f"forkserver: file watcher [{settings.app}]")
        self._log.process = "watcher"
        self._log.part()
        self._leave_behind()
        signals.forget_parent()
        signals.rest()
        signals.unblock()
        terminal.leave(another_user=self._config.credentials.changes)
        self._config.credentials._replace(no_new_privs=True).take()
        syscalls.die_with_parent(signal.SIGKILL)
        if os.getppid() != self._master:
            return
        self._events = self._kernel_events()
        self._watch_settings()
        poll = select.poll()
        for number in (self._ends.leash.fileno(), self._ends.hears.fileno()):
            poll.register(number, select.POLLIN)
        if self._events is not None:
            poll.register(self._events.fileno(), select.POLLIN)
        while self._turn(poll):
            continue

    def _leave_behind(self) -> None:
        """Close every descriptor that is not ours."""
        ends = self._ends
        ours = {0, 1, 2, self._log.fileno(), self._log.dump_fileno(), ends.bell, ends.leash.fileno()}
        bounds = [*sorted(ours | {ends.hears.fileno()}), os.sysconf("SC_OPEN_MAX")]
        for number, following in itertools.pairwise(bounds):
            os.closerange(number + 1, following)
        ends.hears.setblocking(False)

    def _kernel_events(self) -> DirectoryEvents | None:
        try:
            return DirectoryEvents()
        except OSError as error:
            self._log.debug(f"files are looked at {1 / LOOK_OFTEN_SECONDS:g} times a second: {error}")
            return None

    def _watch_settings(self) -> None:
        settings, directory = self._config.settings, self._config.directory
        inside = os.path.join(directory, settings.chdir or "")
        named = [*settings.env_file, *([settings.config_path] if settings.config_path is not None else [])]
        self._states.add([os.path.join(directory, path) for path in named])
        self._states.add_roots([os.path.normpath(os.path.join(inside, path)) for path in settings.reload_extra_files])
        self._watch_folders()

    def _turn(self, poll: select.poll) -> bool:
        """Wait for something, and tell what has changed; False when the channel was closed."""
        every = LOOK_SECONDS if self._events is not None else LOOK_OFTEN_SECONDS
        ready = {number for number, _ in poll.poll(every * 1000)}
        if self._ends.leash.fileno() in ready:
            return False
        changed: list[str] = []
        while (report := self._heard()) is not None:
            changed += self._learn(report)
        if self._events is not None:
            self._events.take()
        if changed := changed + self._states.changed():
            self._tell(self._settled(changed))
        return True

    def _heard(self) -> Report | None:
        """A report that has come; None where there is none that can be understood."""
        try:
            return decode(self._ends.hears.recv(2 * REPORT_BYTES))
        except BlockingIOError:
            return None

    def _learn(self, report: Report) -> list[str]:
        """Watch what ``report`` names; returns what has changed since its import began."""
        states, late = self._states, list[str]()
        match report.kind:
            case ReportKind.BEGUN:
                states.loading, self._begun_ns = True, report.begun_ns
                return late
            case ReportKind.READ | ReportKind.FAILED:
                late = states.add(report.paths, self._begun_ns)
                states.failed = report.kind is ReportKind.FAILED or (states.failed and not states.loading)
                states.loading = False
            case ReportKind.FOLDERS:
                late = states.look_for_modules_in(report.paths, self._begun_ns)
        self._watch_folders()
        return late

    def _watch_folders(self) -> None:
        """Have the kernel tell of each folder in which something may happen, as far as it can."""
        if self._events is None:
            return
        for folder in self._states.folders() - self._watched:
            self._watched.add(folder)
            try:
                self._events.watch(folder)
            except OSError as error:  # it is not there, or there are too many: the looks find what changes
                self._log.debug(f"the kernel tells nothing of {folder}: {error.strerror}")

    def _settled(self, changed: list[str]) -> list[str]:
        """``changed``, and what changes until nothing has for a moment."""
        until = syscalls.clock() + MOST_SETTLE_SECONDS
        while syscalls.clock() < until:
            if not syscalls.has_event(self._ends.leash.fileno(), select.POLLIN, SETTLE_SECONDS):
                if not (more := self._states.changed()):
                    break
                changed += more
            else:
                break
        return sorted(set(changed))

    def _tell(self, changed: list[str]) -> None:
        self._log.info(f"{named(changed, self._config.directory)} changed")
        os.eventfd_write(self._ends.bell, 1)


def named(paths: Iterable[str], directory: str) -> str:
    """A few of ``paths``, as a person in ``directory`` names them, and how many more there are."""
    below = os.path.join(directory, "")
    shown = [path.removeprefix(below) for path in paths]
    more = [f"{len(shown) - _NAMES} more"] if len(shown) > _NAMES else []
    return ", ".join([*shown[:_NAMES], *more])
