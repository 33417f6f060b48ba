"""Classes that a script may have, named to the program: what holds in a script holds in its workers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.clients import get, request
from harness.program import APPS, LaunchProgram, StartProgram, listener


def classes(server: str = "", handler: str = "") -> list[str]:
    named = (("--server-class", server), ("--handler-class", handler))
    return [word for flag, name in named if name for word in (flag, f"own_classes:{name}")]


def test_what_get_environ_returns_is_what_the_application_gets(program: StartProgram) -> None:
    server = program("own_classes:shown", *classes(handler="Mounted"))
    seen = json.loads(get(server.address, "/mounted/here").text)
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/mounted", "/here")


def test_the_steps_of_a_request_are_called_and_server_bind_is_not(program: StartProgram) -> None:
    """The master has bound; a start says that the override means nothing here."""
    server = program("own_classes:shown", *classes(server="Server"))
    server.log.wait("own_classes:Server.server_bind is not called here")
    seen = json.loads(get(server.address).text)
    assert seen["told"] == ["get_request", "verify_request", "process_request"]
    assert seen["SERVER_PORT"] == str(server.address[1])


def test_get_request_is_asked_of_the_listener_that_has_a_client(launch: LaunchProgram, tmp_path: Path) -> None:
    """With several addresses httpd.socket is the one that get_request is to accept from."""
    path = str(tmp_path / "socket")
    arguments = ("--pythonpath", str(APPS), "own_classes:shown", *classes(server="Server"))
    with listener() as first, listener(path) as second:
        launch(*arguments, listeners=[first, second]).wait_ready()
        address = first.getsockname()
    over_unix, over_tcp = json.loads(get(path).text), json.loads(get(address).text)
    assert over_unix["told"][0] == over_tcp["told"][0] == "get_request"
    assert (over_unix["REMOTE_ADDR"], over_tcp["REMOTE_ADDR"]) == ("", "127.0.0.1")
    assert over_tcp["SERVER_PORT"] == str(address[1])


def test_threads_answer_at_once_in_one_worker(program: StartProgram) -> None:
    """Each call waits for the other."""
    server = program("own_classes:met", "-w", "1", *classes(server="Threads"))
    with server.connect() as first, server.connect() as second:
        first.ask()
        second.ask()
        assert [wire.answer().text for wire in (first, second)] == ["met", "met"]
    assert server.stop() == 0


@pytest.mark.parametrize("handler", ["", "Mounted", "Blocking"])
def test_the_access_log_has_each_answer_once(program: StartProgram, handler: str) -> None:
    """Whatever way it was served; and nothing goes to the error log that was not asked for."""
    server = program("own_classes:shown", "--access-log", "-", *classes(handler=handler))
    assert get(server.address, "/a?b").status == 200
    with server.connect() as wire:
        wire.send(request(headers="X-One: more\r\n" * 200))
        assert wire.answer().status == 431
    assert server.stop() == 0
    server.output.until(lambda: server.output.ended, "the end of the output")
    lines = [re.sub(r"\[.*\]", "[]", entry.text) for entry in server.output.entries]
    assert lines[0].startswith('127.0.0.1 - - [] "GET /a?b HTTP/1.1" 200 ')
    assert [line.split('" ')[1][:3] for line in lines] == ["200", "431"]
    assert not server.log.find("GET /a")


def test_log_message_of_a_subclass_is_called_and_goes_to_the_error_log(program: StartProgram) -> None:
    """The page on http.server: it logs to stderr; a worker's stderr is its error log."""
    server = program("own_classes:shown", *classes(server="Noting", handler="Logging"))
    get(server.address, "/first")
    assert json.loads(get(server.address).text)["told"][0].startswith('"GET /first HTTP/1.1" 200 ')
    assert server.log.wait(r'info worker=1 gen=1 .*127\.0\.0\.1 "GET /first HTTP/1.1" 200')


@pytest.mark.parametrize("handler", ["", "Mounted", "Blocking"])
def test_faults_are_events_of_the_error_log(program: StartProgram, handler: str) -> None:
    """The traceback is one event with the request line, and wsgi.errors is passed on, whatever way it was served."""
    server = program("own_classes:shown", *classes(handler=handler))
    assert get(server.address, "/raise").status == 500
    server.log.wait("(?m)^said by the application$")
    server.log.wait("error worker=1 gen=1 .*GET /raise.*: the application raised")
    server.log.wait("^  LookupError: raised by the application")
    assert get(server.address).status == 200


def test_an_exception_in_a_hook_is_an_event_of_the_error_log(program: StartProgram) -> None:
    server = program("own_classes:shown", *classes(handler="Failing"))
    with server.connect() as wire:
        wire.ask("/fail")
        assert wire.ended()
    server.log.wait("error worker=1 gen=1 .*exception while serving 127.0.0.1")
    server.log.wait("^  LookupError: in a hook")
    assert get(server.address).status == 200


def test_threads_of_a_worker_run_blocking_handlers_too(program: StartProgram) -> None:
    """--threads is the program's word for ThreadingMixIn; both calls wait for each other."""
    server = program("own_classes:met", "--threads", "2", *classes(handler="Blocking"))
    for _ in range(10):
        with server.connect() as first, server.connect() as second:
            first.ask()
            second.ask()
            assert [wire.answer().text for wire in (first, second)] == ["met", "met"]
