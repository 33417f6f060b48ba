"""The admin process from its fork to its end: it gives up what is the master's, and serves ``admin_bind``.

It is forked by the master and runs as the workers' user, with no code of the application. It keeps the standard
streams, the error log, its listener and its channel, and closes every other descriptor by number. Objects of the master
that own some of those numbers are in memory still; they were dropped with the master's frames, or are frozen here, so
that the collector closes no number that is another file's by then. No process of its user can read its memory. It ends
with the master, or is told to leave by the end of its channel.
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from forkserver.config import settings as settings_table
from forkserver.config.invocation import Environment
from forkserver.config.settings import Settings
from forkserver.ipc.status_channel import ClosedError, StatusEnds, StatusQuestions
from forkserver.linux import descriptor_limit, signals, syscalls, terminal
from forkserver.linux.common.process_title import set_title
from forkserver.linux.common.records import NamedTuple
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets.listening_socket import ListeningSocket
from forkserver.logs.access_log import AccessLog
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.forking.helper_process import run_to_end
from forkserver.worker.loading import env_files
from forkserver.worker.loading.release_paths import pin_packages, search_path_without

if TYPE_CHECKING:
    from forkserver.server.wsgi_server import WSGIServer

MOST_CONNECTIONS: Final = 256
GRACE_SECONDS: Final = 2.0  # for answers that are on their way, once it is to leave
OOM_MORE: Final = 200  # it dies before template and workers
_MULTIPROC: Final = "PROMETHEUS_MULTIPROC_DIR"
_KIB: Final = 1024
_MIB: Final = 1024 * _KIB


class AdminConfig(NamedTuple):
    """What the master gives at the fork: ``ends`` of the channel, the bound ``listener``, and how the service runs.

    ``directory`` is the application's, by its path; ``started_in`` that of the first start; ``environment`` is where
    packages come from; ``soft_limit`` is that of open files.
    """

    settings: Settings
    credentials: Credentials
    listener: ListeningSocket
    ends: StatusEnds
    log: ErrorLog
    environment: Environment
    directory: str
    started_in: str
    soft_limit: int


def main(config: AdminConfig, master: int) -> NoReturn:
    """The life of the admin process, from its fork; ``master`` is the pid of its parent."""
    run_to_end(AdminServer(config, master).run, config.log, "the admin process")


class AdminServer:
    """The process itself."""

    def __init__(self, config: AdminConfig, master: int) -> None:
        self._config = config
        self._log = config.log
        self._master = master
        self._httpd: WSGIServer | None = None

    def run(self) -> None:
        """Serve until the master has closed the channel."""
        settings, log = self._config.settings, self._log
        set_title(f"forkserver: admin [{settings.app}]")
        log.process = "admin"
        log.part()
        self._leave_behind()
        faulthandler.register(signal.SIGUSR2, log.dump_fileno(), all_threads=True)
        faulthandler.enable(log.dump_fileno())
        signals.forget_parent()
        signals.rest()
        signals.unblock()
        folder = self._multiproc_folder()
        pin_packages(self._config.environment)
        # By our own rights, for the workers' user may not be able to read what we are made of; from here on nothing is
        # imported from the folder of the application, which -m and -c search first.
        with search_path_without(self._config.started_in):
            self._httpd = httpd = self._server(folder)
            only_ours = sys.path[:]
        sys.path[:] = only_ours
        self._take_rights()
        httpd.open()
        while not httpd.retired:
            httpd.handle_request()

    def _leave_behind(self) -> None:
        """Close every descriptor that is not ours."""
        config = self._config
        ours = {0, 1, 2, self._log.fileno(), self._log.dump_fileno(), config.listener.fileno()}
        ours |= {config.ends.bell, config.ends.answers.fileno()}
        bounds = [*sorted(ours), os.sysconf("SC_OPEN_MAX")]
        for number, following in itertools.pairwise(bounds):
            os.closerange(number + 1, following)
        descriptor_limit.restore(config.soft_limit)

    def _multiproc_folder(self) -> str | None:
        """Where the application's prometheus_client writes; the variable is taken out, for this process writes none."""
        read = env_files.variables(self._config.settings, self._config.directory)
        variables = [pair.partition("=") for pair in read]
        named = {name: value for name, _, value in variables if name == _MULTIPROC}
        folder = os.environ.pop(_MULTIPROC, "")
        folder = named.get(_MULTIPROC, folder)
        inside = os.path.join(self._config.directory, self._config.settings.chdir or "")
        return os.path.join(inside, folder) if folder else None

    def _server(self, folder: str | None) -> WSGIServer:
        from forkserver.server.request_handler import WSGIRequestHandler  # late: the master imports this module
        from forkserver.server.wsgi_server import WSGIServer
        from forkserver.worker.admin import page
        from forkserver.worker.admin.admin_app import AdminApp
        from forkserver.worker.admin.exposition import exposition
        from forkserver.worker.admin.status_cache import StatusCache

        config = self._config
        questions = StatusQuestions(config.ends)
        httpd = WSGIServer(("127.0.0.1", 0), WSGIRequestHandler, bind_and_activate=False)
        served = server_settings(config.settings)
        httpd.adopt([(1, config.listener.socket)], None, served, self._log, AccessLog(None), None, None)
        settings = config.settings
        hosts = {*settings.admin_hosts, (settings.admin_bind or "").rpartition(":")[0]}
        httpd.set_app(AdminApp(StatusCache(questions.ask), exposition(folder, self._log), hosts, page.load()))

        def hear() -> None:
            try:
                questions.receive()
            except ClosedError:
                self._leave(questions)

        httpd.watch(questions.fileno(), hear)
        return httpd

    def _leave(self, questions: StatusQuestions) -> None:
        """Finish what is being sent, and leave. The kernel sees to it that this ends."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(2 * GRACE_SECONDS))
        assert self._httpd is not None
        self._httpd.unwatch(questions.fileno())
        questions.close()
        self._httpd.retire(GRACE_SECONDS, handoff=False)

    def _take_rights(self) -> None:
        credentials = self._config.credentials
        try:
            syscalls.prefer_for_oom(OOM_MORE)
        except OSError as error:  # a sandbox without a writable /proc; it only says which process dies first
            self._log.debug(f"oom_score_adj cannot be raised: {error}")
        terminal.leave(another_user=credentials.changes)
        os.chdir("/")
        credentials._replace(no_new_privs=True).take()
        syscalls.refuse_to_be_dumped()
        # After the rights: changing them clears it. The master may have ended before, see prctl(2).
        syscalls.die_with_parent(signal.SIGKILL)
        if os.getppid() != self._master:
            os._exit(1)


def server_settings(settings: Settings) -> Settings:
    """How the admin process serves, beside the ``settings`` of the service."""
    return settings_table.defaults(
        worker_connections=MOST_CONNECTIONS,
        timeout=float("inf"),
        header_timeout=5.0,
        body_timeout=5.0,
        write_timeout=30.0,
        max_body=_KIB,
        spool_dir=settings.spool_dir,
        max_spool=64 * _MIB,
        forwarded_allow_ips=[],
    )
