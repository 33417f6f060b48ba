"""Several applications under one server, each below a path of its own: http://127.0.0.1:8000/hello/you, /demo, /admin.

Start it as a script, `python mounting.py`, or with workers: `forkserver mounting:site -w 4`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.util import shift_path_info

from forkserver import demo_app, make_server

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def mount(applications: dict[str, App], otherwise: App) -> App:
    """An application that hands on by the first part of the path.

    ``shift_path_info`` moves that part from PATH_INFO to SCRIPT_NAME: an application below sees its own path, and builds
    links that lead back to it. What ``mount`` gives is an application, so it may be mounted itself.
    """

    def front(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        application = applications.get(shift_path_info(environ) or "", otherwise)
        return application(environ, start_response)

    return front


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    name = environ["PATH_INFO"].strip("/") or "world"
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"Hello {name}, from {environ['SCRIPT_NAME']}\n".encode()]


def not_found(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"nothing is mounted here\n"]


site = mount({"hello": hello, "demo": demo_app, "admin": mount({"hello": hello}, not_found)}, not_found)

if __name__ == "__main__":
    with make_server("127.0.0.1", 8000, site) as httpd:
        httpd.serve_forever()
