"""503 in place of the application, and the application again."""

from __future__ import annotations

from typing import Any

import pytest

import forkserver
from forkserver.server.wsgi.maintenance import MaintenancePage
from harness.asking import ask, ok
from harness.clients import request


class Asked(forkserver.WSGIServer):
    """A class of a user's that gives the application for each request."""

    asked = 0

    def get_app(self) -> Any:
        self.asked += 1
        return super().get_app()


@pytest.mark.parametrize("server_class", [forkserver.WSGIServer, Asked])
def test_it_can_be_switched_on_and_off_and_twice(server_class: type[forkserver.WSGIServer]) -> None:
    with forkserver.make_server("127.0.0.1", 0, ok, server_class=server_class) as httpd:
        for on, status in ((True, 503), (True, 503), (False, 200), (False, 200), (True, 503), (False, 200)):
            httpd.maintain(on)
            answer = ask(httpd)
            assert answer.status == status
            assert (answer.headers["Retry-After"] == "30") == on
        assert httpd.get_app() is ok


def test_a_head_request_gets_no_body() -> None:
    with forkserver.make_server("127.0.0.1", 0, ok) as httpd:
        httpd.maintain(True)
        answer = ask(httpd, request(method="HEAD"), to_head=True)
    assert (answer.status, answer.body) == (503, b"")


@pytest.mark.parametrize(
    ("health", "path", "open_"),
    [("/healthz", "/healthz", True), ("/healthz?deep=1", "/healthz", True), ("/a%20b", "/a b", True),
     ("/healthz", "/healthz/", False), ("/healthz", "/", False), (None, "/healthz", False)],
)  # fmt: skip
def test_only_the_health_path_goes_to_the_application(health: str | None, path: str, open_: bool) -> None:
    """A balancer that finds it well keeps its clients here, where they are told to come again."""
    said: list[str] = []
    app = MaintenancePage(lambda: ok, health)
    body = app({"PATH_INFO": path}, lambda status, fields: said.append(status))
    assert said == ["200 OK" if open_ else "503 Service Unavailable"]
    assert (b"".join(body) == b"ok") == open_
