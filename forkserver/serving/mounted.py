"""An application below a path of the site: SCRIPT_NAME, where a proxy has put it there.

It promises that SCRIPT_NAME and PATH_INFO together are the path that the client asked for. It refuses to serve anything
itself.

Source: PEP 3333 "URL Reconstruction".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from forkserver.serving.gateway import App


class Mounted:
    """``app``, which clients see at ``root``, such as ``/shop``.

    Whether the proxy has cut ``root`` off a path is seen from the path; ``/shop/shop`` is taken as not cut.
    """

    def __init__(self, app: App, root: str) -> None:
        self._app = app
        self._root = root.encode().decode("latin-1")  # as PEP 3333 has paths
        self._below = self._root + "/"

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == self._root or path.startswith(self._below):
            environ["PATH_INFO"] = path[len(self._root) :]
        environ["SCRIPT_NAME"] = self._root
        return self._app(environ, start_response)
