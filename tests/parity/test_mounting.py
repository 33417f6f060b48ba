"""Several applications below one server, by wsgiref.util.shift_path_info, as the page suggests it."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import shift_path_info
from wsgiref.validate import validator

from harness.asking import PLAIN, ask
from harness.clients import request

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "mounting.py"


def test_mounted_applications_see_their_own_paths(make: Callable[..., Any]) -> None:
    """An application never knows that it is mounted, and may mount others."""

    def shown(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [*PLAIN])
        return [f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}|{environ['QUERY_STRING']}".encode()]

    def mount(**applications: Any) -> Any:
        def front(environ: dict[str, Any], start_response: Any) -> Any:
            return applications.get(shift_path_info(environ) or "", shown)(environ, start_response)

        return front

    httpd = make(validator(mount(blog=validator(shown), shop=mount(cart=validator(shown)))))
    asked = {
        "/blog/2026/first?page=2": "/blog|/2026/first|page=2",
        "/blog": "/blog||",
        "/blog/": "/blog|/|",
        "/shop/cart/1": "/shop/cart|/1|",
        "/shop/other/": "/shop/other|/|",
    }
    assert {target: ask(httpd, request(target)).text for target in asked} == asked


def test_the_example_of_the_documents_works(make: Callable[..., Any]) -> None:
    """What a reader copies must run."""
    httpd = make(validator(runpy.run_path(str(EXAMPLE))["site"]))
    assert ask(httpd, request("/hello/you")).text == "Hello you, from /hello\n"
    assert ask(httpd, request("/admin/hello")).text == "Hello world, from /admin/hello\n"
    assert "SCRIPT_NAME = '/demo'" in ask(httpd, request("/demo")).text
    assert [ask(httpd, request(path)).status for path in ("/", "/admin/other")] == [404, 404]
