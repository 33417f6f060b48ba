"""An application below a path of the site: SCRIPT_NAME, as the setting or a trusted proxy says it.

A WSGI middleware that divides the requested path into SCRIPT_NAME and PATH_INFO.

Source: PEP 3333 "URL Reconstruction".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from forkserver.http1.headers import SCRIPT_NAME
from forkserver.server.wsgi.run import App


class ScriptName:
    """``app``, which clients see at ``root``, such as ``/shop``, or where a request's own field SCRIPT_NAME says.

    Whether the proxy has cut ``root`` off a path is seen from the path; ``/shop/shop`` is taken as not cut. Without
    ``root`` a request that says nothing is passed on as it is.
    """

    def __init__(self, app: App, root: str | None) -> None:
        self._app = app
        self._root = None if root is None else root.encode().decode("latin-1")  # as PEP 3333 has paths

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        root = environ.pop(SCRIPT_NAME, self._root)
        if root is not None:
            path = environ["PATH_INFO"]
            if path == root or path.startswith(f"{root}/"):
                environ["PATH_INFO"] = path[len(root) :]
            environ["SCRIPT_NAME"] = root
        return self._app(environ, start_response)
