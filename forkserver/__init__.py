"""forkserver: a pre-fork WSGI server with the one-page promise of ``wsgiref.simple_server``.

    from forkserver import make_server, demo_app

    with make_server("", 8000, demo_app) as httpd:
        httpd.serve_forever()

Under a master with workers: ``forkserver myapp:app -w 4``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forkserver.config.version import VERSION as __version__  # noqa: N811 - the name by custom

if TYPE_CHECKING:
    from forkserver.errors import BindError, RequestTimeout
    from forkserver.server.request_handler import WSGIRequestHandler
    from forkserver.server.wsgi_server import WSGIServer, demo_app, make_server

__all__ = [
    "BindError",
    "RequestTimeout",
    "WSGIRequestHandler",
    "WSGIServer",
    "__version__",
    "demo_app",
    "make_server",
]


def __getattr__(name: str) -> Any:
    # Looked up late: the master imports this package and must not load the package server.
    if name not in __all__:
        raise AttributeError(f"module 'forkserver' has no attribute {name!r}")
    from forkserver import errors

    if hasattr(errors, name):
        globals()[name] = getattr(errors, name)
    else:
        from forkserver.server import request_handler, wsgi_server

        globals()[name] = getattr(wsgi_server, name, None) or getattr(request_handler, name)
    return globals()[name]
