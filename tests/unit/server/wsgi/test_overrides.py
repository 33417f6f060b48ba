"""Which overrides of documented hooks are seen, and which of them need a blocking socket."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import ForkingMixIn, ThreadingMixIn
from typing import Any
from wsgiref import simple_server

import pytest

from forkserver import WSGIRequestHandler, WSGIServer
from forkserver.server.wsgi.overrides import Overrides, is_threading, overrides_of, serves_apart


def other(*_arguments: Any) -> None:
    """In place of a documented method."""


def found(names: dict[str, Any], server: type = WSGIServer, handler: Any = WSGIRequestHandler) -> dict[str, Any]:
    """What is seen of a handler class that has ``names`` besides."""
    return vars(Overrides(server, type("Handler", (handler,), names)))


NOTHING = found({})


def test_a_class_that_overrides_nothing_costs_nothing() -> None:
    assert not any(NOTHING.values())
    assert not any(vars(Overrides(WSGIServer, WSGIRequestHandler)).values())


def same_protocol() -> str:
    return "".join(("HTTP/", "1.1"))  # equal, and another object


@pytest.mark.parametrize(
    "names", [{"own": 1}, {"own_method": other}, {"__doc__": "own"}, {"__module__": "own"}, {"__slots__": ()},
              {"protocol_version": same_protocol()}, {"get_environ": WSGIRequestHandler.get_environ}]
)  # fmt: skip
def test_names_of_its_own_and_values_as_they_were_override_nothing(names: dict[str, Any]) -> None:
    """protocol_version = "HTTP/1.1" is often written for keep-alive, and must not take keep-alive away."""
    assert found(names) == NOTHING


@pytest.mark.parametrize(
    ("name", "seen"),
    [("get_environ", "environ"), ("address_string", "environ"), ("log_request", "log"), ("log_message", "log"),
     ("version_string", "version"), ("send_error", "blocking"), ("log_error", "error"), ("date_time_string", "error"),
     ("get_stderr", "stderr"), ("handle", "blocking"), ("setup", "blocking"), ("finish", "blocking"),
     ("__init__", "blocking"), ("parse_request", "blocking"), ("log_date_time_string", None)],
)  # fmt: skip
def test_a_method_of_a_handler_is_seen_as_what_it_is_called_for(name: str, seen: str | None) -> None:
    expected = {key for key in ("any", seen) if key}
    assert {key for key, value in found({name: other}).items() if value} == expected


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [("server_version", "mine/1", "version"), ("sys_version", "mine/1", "version"),
     ("error_content_type", "text/plain", "error"), ("protocol_version", "HTTP/1.0", "blocking"),
     ("timeout", 5, "blocking"), ("rbufsize", 0, "blocking")],
)  # fmt: skip
def test_an_attribute_of_a_handler_is_seen_where_it_differs(name: str, value: object, seen: str) -> None:
    assert {key for key, value in found({name: value}).items() if value} == {"any", seen}


def test_an_override_of_a_base_class_is_seen() -> None:
    class Base(WSGIRequestHandler):
        def get_environ(self) -> dict[str, Any]:
            return {}

    assert found({}, handler=Base)["environ"]


def test_an_override_of_a_mixin_is_seen() -> None:
    mixin = type("Mixin", (), {"handle": other})
    assert found({}, handler=type("Mixed", (mixin, WSGIRequestHandler), {}))["blocking"]


@pytest.mark.parametrize(
    "handler",
    [simple_server.WSGIRequestHandler, BaseHTTPRequestHandler, other],
    ids=["wsgiref", "http.server", "function"],
)
def test_any_other_handler_needs_a_blocking_socket(handler: Callable[..., Any]) -> None:
    overrides = Overrides(WSGIServer, handler)
    assert overrides.blocking
    assert not overrides.any


@pytest.mark.parametrize(
    ("name", "seen"),
    [("verify_request", {"verify_request"}), ("service_actions", {"service_actions"}), ("get_app", {"get_app"}),
     ("get_request", {"get_request", "blocking"}), ("process_request", {"blocking"}), ("finish_request", {"blocking"}),
     ("shutdown_request", {"blocking"}), ("close_request", {"blocking"}), ("handle_error", set())],
)  # fmt: skip
def test_a_method_of_a_server_is_seen_as_what_it_is_called_for(name: str, seen: set[str]) -> None:
    """Those that take the connection out of the worker's hands need a blocking socket."""
    server = type("Server", (WSGIServer,), {name: other})
    assert {key for key, value in found({}, server).items() if value} == seen


@pytest.mark.parametrize(
    ("mixin", "threading", "apart"), [(ThreadingMixIn, True, True), (ForkingMixIn, False, True), (object, False, False)]
)
def test_mixins_of_socketserver_serve_apart(mixin: type, threading: bool, apart: bool) -> None:
    server = type("Server", (WSGIServer,) if mixin is object else (mixin, WSGIServer), {})
    assert (is_threading(server), serves_apart(server)) == (threading, apart)
    assert found({}, server)["blocking"] is apart


def test_a_pair_of_classes_is_looked_at_once() -> None:
    """Workers share what their template has found."""
    found = overrides_of(WSGIServer, WSGIRequestHandler)
    assert isinstance(found, Overrides)
    assert overrides_of(WSGIServer, WSGIRequestHandler) is found
