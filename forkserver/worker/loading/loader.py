"""Loading what a worker serves: the application, the classes that the settings name, and the hooks.

The template loads once for all its workers, or each worker for itself; ``--check-config`` loads in a child. The master
never does.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from forkserver.config.settings import Settings
from forkserver.errors import ConfigError, ForkserverError, LoadError, own_files_missing
from forkserver.ipc.messages import LoadFailed
from forkserver.linux.common.records import NamedTuple
from forkserver.logs.error_log import ErrorLog
from forkserver.worker import user_hooks
from forkserver.worker.loading import log_config
from forkserver.worker.loading.application import resolve, resolve_class

_NOT_CALLED: Final = ("server_bind", "server_activate")


class Code(NamedTuple):
    """What serves: the application, the classes that the settings name, and the hooks."""

    app: Callable[..., Any]
    server_class: type[Any]
    handler_class: type
    hooks: Mapping[str, user_hooks.Hook]


def load(settings: Settings, log: ErrorLog) -> Code:
    """Import the application, the classes, the hooks, and the package server. Raises ConfigError and LoadError."""
    from forkserver.server.loop.worker_server import prepare  # late: the master carries no HTTP
    from forkserver.worker.fork_safety import monkey_patches

    if settings.app is None:
        raise ConfigError("no application given; name it as MODULE:APP, such as forkserver myapp:app")
    if settings.log_config is not None:
        log_config.apply(settings.log_config)
    server_class, handler_class = _classes(settings, log)
    prepare(settings, server_class, handler_class)
    code = Code(resolve(settings.app), server_class, handler_class, user_hooks.load(settings.hooks, log))
    monkey_patches.refuse(settings.app)
    return code


def _classes(settings: Settings, log: ErrorLog) -> tuple[type, type]:
    """The classes of the server and of its handlers: those that the settings name, or what needs no handler."""
    if not _names_classes(settings):
        from forkserver.server.loop.worker_server import NoHandler, WorkerServer

        return WorkerServer, NoHandler
    from http.server import BaseHTTPRequestHandler

    from forkserver.server.wsgi_server import WSGIServer

    server_class = resolve_class(settings.server_class, WSGIServer, "server_class")
    for name in _NOT_CALLED:
        if getattr(server_class, name) is not getattr(WSGIServer, name):
            log.warning(f"{settings.server_class}.{name} is not called here: the master has bound the listeners")
    return server_class, resolve_class(settings.handler_class, BaseHTTPRequestHandler, "handler_class")


def _names_classes(settings: Settings) -> bool:
    """Whether one of the classes is another than the default, which changes nothing of what a worker does."""
    defaults = Settings.server_class.default, Settings.handler_class.default
    return (settings.server_class, settings.handler_class) != defaults


def preload_modules(settings: Settings | None = None, shared: bool = True) -> None:
    """Import what every worker needs, whatever the application: its memory is shared in any case.

    And what ``settings`` ask for, or could, where there are none; and what an import is judged by that is to be
    ``shared``. Afterwards nothing of forkserver's own is imported.
    """
    if shared:
        import forkserver.worker.fork_safety.verdict
    import forkserver.server.loop.worker_server
    import forkserver.server.wsgi.script_name
    import forkserver.worker.fork_safety.monkey_patches
    import forkserver.worker.stacks.profiles
    from forkserver.server.wsgi.accelerator import loading

    if settings is None or _names_classes(settings):
        import forkserver.server.wsgi_server
    if settings is not None and settings.log_config is not None:
        log_config.preload()
    if settings is None or settings.encrypted:
        import forkserver.server.connection.tls_transport
    if settings is None or settings.threads > 1:
        import forkserver.server.threads.thread_pool  # noqa: F401
    with suppress(ImportError):  # a worker tells of it when it begins to serve
        loading.load()


def load_failed(error: Exception) -> LoadFailed:
    """The report of ``error``: what we raise says all there is to say, anything else is a fault of ours."""
    if isinstance(error, LoadError):
        return LoadFailed(error.exit_status, str(error), error.traceback)
    if isinstance(error, ForkserverError):
        return LoadFailed(error.exit_status, str(error), "")
    if missing := own_files_missing(error):
        return LoadFailed(ForkserverError.exit_status, missing, "")
    return LoadFailed(ForkserverError.exit_status, f"cannot load: {error}", "".join(traceback.format_exception(error)))


def mounted(app: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    """``app`` below the path that ``settings``, or trusted proxies, name; ``app`` itself where neither does."""
    if settings.root_path is None and "script_name" not in settings.forwarded_fields:
        return app
    from forkserver.server.wsgi.script_name import ScriptName

    return ScriptName(app, settings.root_path)
