"""Loading what a worker serves: the application, the classes that the settings name, and the hooks.

The template loads once for all its workers, or each worker for itself; ``--check-config`` loads in a child. The master
never does.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import forkserver
from forkserver.config.settings import Settings
from forkserver.errors import ConfigError, ForkserverError, LoadError, own_files_missing
from forkserver.ipc.messages import LoadFailed
from forkserver.linux.common.records import NamedTuple
from forkserver.logs.error_log import ErrorLog
from forkserver.worker import user_hooks
from forkserver.worker.loading.application import resolve, resolve_class

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

_NOT_CALLED: Final = ("server_bind", "server_activate")


class Code(NamedTuple):
    """What serves: the application, the classes that the settings name, and the hooks."""

    app: Callable[..., Any]
    server_class: type[forkserver.WSGIServer]
    handler_class: type[BaseHTTPRequestHandler]
    hooks: Mapping[str, user_hooks.Hook]


def load(settings: Settings, log: ErrorLog) -> Code:
    """Import the application, the classes, the hooks, and the package server. Raises ConfigError and LoadError."""
    from http.server import BaseHTTPRequestHandler  # late: the master carries no HTTP

    from forkserver.server.wsgi_server import prepare
    from forkserver.worker.fork_safety import monkey_patches

    if settings.app is None:
        raise ConfigError("no application given; name it as MODULE:APP, such as forkserver myapp:app")
    server_class = resolve_class(settings.server_class, forkserver.WSGIServer, "server_class")
    handler_class = resolve_class(settings.handler_class, BaseHTTPRequestHandler, "handler_class")
    for name in _NOT_CALLED:
        if getattr(server_class, name) is not getattr(forkserver.WSGIServer, name):
            log.warning(f"{settings.server_class}.{name} is not called here: the master has bound the listeners")
    prepare(settings, server_class, handler_class)
    code = Code(resolve(settings.app), server_class, handler_class, user_hooks.load(settings.hooks, log))
    monkey_patches.refuse(settings.app)
    return code


def preload_modules(shared: bool = True) -> None:
    """Import what every worker needs, whatever the application: its memory is shared in any case.

    And what an import is judged by that is to be ``shared``. Afterwards nothing of forkserver's own is imported.
    """
    if shared:
        import forkserver.worker.fork_safety.verdict
    import forkserver.server.wsgi.script_name
    import forkserver.server.wsgi_server
    import forkserver.worker.fork_safety.monkey_patches  # noqa: F401
    from forkserver.server.wsgi.accelerator import loading

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
