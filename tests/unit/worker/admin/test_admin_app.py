"""What the admin process answers, and to which clients."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import pytest

from forkserver.ipc.status_channel import NoStatusError
from forkserver.worker.admin import page
from forkserver.worker.admin.admin_app import AdminApp
from forkserver.worker.admin.exposition import Exposition
from forkserver.worker.admin.status_cache import StatusCache


class Client:
    """Asks an application that has ``status``; an exception in its place is raised."""

    def __init__(self, status: Any, *hosts: str) -> None:
        self.status = status
        cache = StatusCache(self._ask, iter(range(1000)).__next__)
        self.app = AdminApp(cache, Exposition("not installed"), hosts, page.load())
        self.fields: dict[str, str] = {}

    def _ask(self, _seconds: float) -> dict[str, Any]:
        if isinstance(self.status, Exception):
            raise self.status
        found: dict[str, Any] = self.status
        return found

    def get(self, path: str, host: str | None = "localhost:9100", method: str = "GET") -> tuple[int, str]:
        told: list[Any] = []
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, **({} if host is None else {"HTTP_HOST": host})}
        (body,) = self.app(environ, lambda *answer: told.extend(answer))
        self.fields = dict(told[1])
        return int(told[0].split()[0]), body.decode()


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/nowhere"])
def test_every_answer_allows_a_browser_nothing(status: dict[str, Any], path: str) -> None:
    client = Client(status)
    client.get(path)
    assert client.fields["Content-Security-Policy"].startswith("default-src 'none'")
    assert client.fields["X-Content-Type-Options"] == "nosniff"
    assert client.fields["Cache-Control"] == "no-store"
    assert not [name for name in client.fields if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9100", "127.0.0.1:9100", "127.8.9.1", "[::1]:9100", "10.0.0.7", "Ops.Example.org."]
)
def test_it_is_called_by_its_own_names(status: dict[str, Any], host: str) -> None:
    assert Client(status, "ops.example.org").get("/healthz", host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[evil]", ":9100"]
)
def test_a_web_page_cannot_reach_it_by_a_name_of_its_own(status: dict[str, Any], host: str) -> None:
    code, said = Client(status, "").get("/status.json", host)
    assert code == 421
    assert "admin_hosts" in said


def test_an_old_health_check_that_names_no_host_is_answered(status: dict[str, Any]) -> None:
    """As HAProxy's ``option httpchk`` by HTTP/1.0; every browser names one."""
    assert Client(status).get("/healthz", None)[0] == 200


def test_only_reading_is_allowed(status: dict[str, Any]) -> None:
    client = Client(status)
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        assert client.get("/status.json", method=method)[0] == 405
        assert client.fields["Allow"] == "GET, HEAD"
    assert client.get("/status.json", method="HEAD")[0] == 200


def test_the_status_is_what_the_master_says(status: dict[str, Any]) -> None:
    client = Client(status)
    code, said = client.get("/status.json")
    beside = {"slow": status["slow"]}
    assert (code, json.loads(said) | beside) == (200, status)
    assert "slow" not in json.loads(said)
    assert client.fields["Content-Type"] == "application/json"


def test_slow_requests_are_what_the_master_says(status: dict[str, Any]) -> None:
    code, said = Client(status).get("/slow.json")
    assert (code, json.loads(said)) == (200, {"slow": [{"request": "GET /slow"}]})


def test_it_is_healthy_while_the_master_answers() -> None:
    client = Client(NoStatusError("the master has not answered within 2 s"))
    assert client.get("/healthz") == (503, "the master has not answered within 2 s\n")


@pytest.mark.parametrize(
    ("state", "serving", "code"),
    [
        ("serving", 1, 200),
        ("reloading", 2, 200),
        ("serving", 0, 503),
        ("starting", 0, 503),
        ("draining", 2, 503),
        ("stopping", 2, 503),
    ],
)
def test_it_is_ready_while_a_worker_serves_and_no_end_is_near(
    status: dict[str, Any], state: str, serving: int, code: int
) -> None:
    found, said = Client(status | {"state": state, "serving": serving}).get("/readyz")
    assert found == code
    assert said == f"{state}, {serving} of 2 workers serve\n"


def test_where_every_request_is_answered_503_for_want_of_code_it_says_so(status: dict[str, Any]) -> None:
    code, said = Client(status | {"state": "broken"}).get("/readyz")
    assert (code, said.partition("\n")[0]) == (503, "broken, every request is answered 503 until a file changes")


def test_without_the_library_metrics_say_what_is_missing(status: dict[str, Any]) -> None:
    assert Client(status).get("/metrics") == (501, "not installed\n")


def test_events_come_one_by_one_and_the_browser_asks_again(status: dict[str, Any]) -> None:
    """An answer that goes on would hold the one thread."""
    client = Client(status)
    code, said = client.get("/events")
    assert (code, client.fields["Content-Type"]) == (200, "text/event-stream")
    retry, data, *end = said.split("\n")
    assert (retry, end) == ("retry: 1000", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == status


def test_a_line_feed_in_a_request_line_ends_no_event(status: dict[str, Any]) -> None:
    status["workers"][0]["busy"][0]["request"] = "GET /\n\ndata: forged"
    said = Client(status).get("/events")[1]
    assert said.count("\n") == 3


def test_the_page_may_run_its_own_code_and_nothing_else(status: dict[str, Any]) -> None:
    client = Client(status)
    code, said = client.get("/")
    assert (code, client.fields["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = dict(each.strip().split(" ", 1) for each in client.fields["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        content = re.findall(rf"<{tag}>(.*?)</{tag}>", said, re.DOTALL)[0].encode()
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    for risk in ("innerHTML", "insertAdjacent", "document.write", "eval(", " style=", " onclick", "http://", "//cdn"):
        assert risk not in said.replace("http://www.w3.org/2000/svg", "")


def test_what_was_seen_is_there_for_a_page_that_is_opened_later(status: dict[str, Any]) -> None:
    client = Client(status)
    client.get("/events")
    client.status = status | {"seconds": 62.0, "ends": {"crash (SIGSEGV)": 2}}
    past = json.loads(client.get("/history.json")[1])
    assert [each["at"] for each in past["samples"]] == [60.0, 62.0]
    assert [(each["reason"], each["total"]) for each in past["ends"]] == [("crash (SIGSEGV)", 2)]
