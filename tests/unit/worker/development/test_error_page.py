"""Which request gets the page of a failure, and what the page may do."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
from typing import Any

import pytest

from forkserver.server.proxy.forwarded_headers import PASSED_ON
from forkserver.worker.development import error_page
from forkserver.worker.development.error_page import QUESTION, CodeFailure, ErrorPage, all_loopback

FAILURE = CodeFailure("it is <broken>", 'Traceback\n  <script>alert("x")</script> {digest} </pre>', loaded=True)
NAVIGATION = {"HTTP_SEC_FETCH_MODE": "navigate", "HTTP_ACCEPT": "text/html"}


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    assert PASSED_ON not in environ
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the last good code"]


def ask(page: Any, **changes: str | bool | None) -> tuple[str, dict[str, str], bytes]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET", "REQUEST_URI": "/", "PATH_INFO": "/", "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost:8000", **changes,
    }  # fmt: skip
    environ = {name: value for name, value in environ.items() if value is not None}
    said: list[Any] = []
    body = b"".join(page(environ, lambda status, fields, fault=None: said.append((status, dict(fields)))))
    return said[-1][0], said[-1][1], body


def broken(local: bool = True, failure: CodeFailure | None = FAILURE) -> ErrorPage:
    page = ErrorPage(application, local, 1, lambda message, error: None)
    page.failure = failure
    return page


def is_page(answer: tuple[str, dict[str, str], bytes]) -> bool:
    return answer[0].startswith("500") and b"does not load" in answer[2]


@pytest.mark.parametrize(
    "fields",
    [
        NAVIGATION,
        {"HTTP_SEC_FETCH_MODE": "navigate"},
        {"HTTP_ACCEPT": "text/html,application/xhtml+xml"},
    ],
)
def test_a_browser_that_opens_an_address_gets_the_page(fields: dict[str, str]) -> None:
    assert is_page(ask(broken(), **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"HTTP_ACCEPT": "*/*"},
        {"HTTP_ACCEPT": "application/json"},
        {"HTTP_ACCEPT": "text/html", "HTTP_SEC_FETCH_MODE": "cors"},
        {**NAVIGATION, "REQUEST_METHOD": "POST"},
        {**NAVIGATION, "REQUEST_METHOD": "HEAD"},
    ],
)
def test_everything_else_is_answered_by_the_last_good_code(fields: dict[str, str]) -> None:
    assert ask(broken(), **fields)[2] == b"the last good code"


@pytest.mark.parametrize("host", ["localhost", "app.localhost:8000", "127.0.0.1", "127.8.8.8:80", "[::1]:8000"])
def test_names_of_this_machine_are_its_own(host: str) -> None:
    assert is_page(ask(broken(), **NAVIGATION, HTTP_HOST=host))


@pytest.mark.parametrize(
    "changes",
    [
        {"HTTP_HOST": "example.org"},
        {"REQUEST_URI": "http://localhost/"},  # HTTP_HOST is of that, whatever the field Host has said
        {"HTTP_HOST": "localhost.example.org"},
        {"HTTP_HOST": "127.0.0.1.example.org"},
        {"HTTP_HOST": "192.0.2.1:8000"},
        {"HTTP_HOST": "[2001:db8::1]"},
        {"HTTP_HOST": ""},
        {"HTTP_HOST": None},
        {"REMOTE_ADDR": "192.0.2.7"},
        {"REMOTE_ADDR": ""},
        {PASSED_ON: True},
        {"HTTP_FORWARDED": "for=127.0.0.1"},
        {"HTTP_X_FORWARDED_SERVER": "a"},
        {"HTTP_VIA": "1.1 tunnel"},
        {"HTTP_X_REAL_IP": "127.0.0.1"},
        {"HTTP_CF_CONNECTING_IP": "127.0.0.1"},
    ],
)
def test_no_other_machine_gets_it_and_nothing_that_was_passed_on(changes: dict[str, Any]) -> None:
    """A traceback tells of the machine; a page elsewhere may have its own name lead here (DNS rebinding)."""
    for path in ("/", QUESTION):
        assert ask(broken(), **{**NAVIGATION, **changes, "PATH_INFO": path})[2] == b"the last good code"


def test_a_listener_that_others_reach_shows_none() -> None:
    assert ask(broken(local=False), **NAVIGATION)[2] == b"the last good code"


def test_only_listeners_on_loopback_are_this_machines_alone() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as own,
        socket.create_server(("0.0.0.0", 0)) as every,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        assert all_loopback([own])
        assert not all_loopback([own, every])
        assert not all_loopback([own, unix]), "a proxy stands in front of it"


def test_code_that_loads_shows_nothing() -> None:
    page = broken(failure=None)
    assert ask(page, **NAVIGATION)[2] == b"the last good code"
    assert ask(page, PATH_INFO=QUESTION)[2] == b"1."


def test_the_page_learns_that_the_failure_has_changed() -> None:
    page = broken()
    shown = re.search(rb'data-state="(1\.[0-9a-f]+)"', ask(page, **NAVIGATION)[2])
    assert shown is not None
    assert ask(page, PATH_INFO=QUESTION)[2] == shown[1]
    page.failure = FAILURE._replace(traceback="another")
    assert ask(page, PATH_INFO=QUESTION)[2] != shown[1]


def test_text_of_the_application_is_no_markup_and_no_place_of_the_page() -> None:
    body = ask(broken(), **NAVIGATION)[2].decode()
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; {digest} &lt;/pre&gt;" in body
    assert "it is &lt;broken&gt;" in body
    assert body.count("<script>") == body.count("<style>") == 1


def test_the_policy_allows_the_pages_own_script_and_nothing_else() -> None:
    _, fields, body = ask(broken(), **NAVIGATION)
    script = body.split(b"<script>")[1].split(b"</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    policy = fields["Content-Security-Policy"]
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    for word in ("unsafe", "http:", "https:", "*"):
        assert word not in policy
    assert fields["Cache-Control"] == "no-store"
    assert fields["X-Content-Type-Options"] == "nosniff"


def test_a_traceback_that_no_encoding_holds_is_shown() -> None:
    assert is_page(ask(broken(failure=FAILURE._replace(traceback="\udc80")), **NAVIGATION))


def test_where_no_code_loads_a_program_gets_the_traceback_as_text() -> None:
    page = broken(failure=FAILURE._replace(loaded=False))
    for method in ("GET", "POST"):
        status, fields, body = ask(page, REQUEST_METHOD=method, HTTP_ACCEPT="application/json")
        assert (status[:3], fields["Content-Type"]) == ("503", "text/plain; charset=utf-8")
        assert fields["X-Content-Type-Options"] == "nosniff"
        assert fields["Retry-After"] == "1"
        assert FAILURE.traceback.encode() in body
    assert ask(page, HTTP_HOST="example.org")[2] == b"the last good code"


def test_the_page_says_whether_other_code_serves() -> None:
    assert error_page.NOTHING.encode() in ask(broken(failure=FAILURE._replace(loaded=False)), **NAVIGATION)[2]
    assert error_page.MEANWHILE.encode() in ask(broken(), **NAVIGATION)[2]


def failing(answers: bool) -> Any:
    def fails(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if answers:
            start_response("200 OK", [("Content-Type", "application/json")])
        raise ZeroDivisionError("<of the view>")

    return fails


@pytest.mark.parametrize("answers", [False, True])
def test_what_the_application_raises_is_shown_to_a_browser_and_told(answers: bool) -> None:
    told: list[tuple[str, str]] = []
    page = ErrorPage(failing(answers), True, 3, lambda message, error: told.append((message, str(error))))
    status, fields, body = ask(page, **NAVIGATION, PATH_INFO="/view")
    assert status.startswith("500")
    assert fields["Content-Type"].startswith("text/html")
    text = body.decode()
    assert error_page.RAISED in text
    assert "ZeroDivisionError: &lt;of the view&gt;" in text
    assert "in _navigate" not in text, "the traceback begins in the application"
    assert told == [("GET /view: the application raised", "<of the view>")]
    assert f'data-state="{page.state}"' in text, "it reloads when other code serves, not before"


def test_what_the_application_raises_for_anything_else_is_the_servers_to_answer() -> None:
    page = ErrorPage(failing(False), True, 3, lambda message, error: None)
    for fields in ({}, {**NAVIGATION, "HTTP_HOST": "example.org"}, {**NAVIGATION, "HTTP_VIA": "1.1 a"}):
        with pytest.raises(ZeroDivisionError):
            ask(page, **fields)
