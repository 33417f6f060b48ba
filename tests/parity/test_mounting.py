"""Several applications below one server, by wsgiref.util.shift_path_info, as the page suggests it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from wsgiref.util import shift_path_info
from wsgiref.validate import validator

from harness.asking import PLAIN, ask
from harness.clients import request


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
