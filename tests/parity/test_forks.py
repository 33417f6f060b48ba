"""Scripts that fork: a process for each request, and a few that share a listener."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from harness.asking import FORKSERVER
from harness.clients import get
from harness.script import Script


@pytest.fixture
def script(library: ModuleType) -> Iterator[Callable[[str], Script]]:
    started: list[Script] = []

    def start(text: str) -> Script:
        started.append(Script(library.__name__, text))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_forking_mixin_answers_from_a_process_of_its_own(script: Callable[[str], Script]) -> None:
    run = script("""
        import os
        from socketserver import ForkingMixIn
        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(os.getpid()).encode()]
        class Server(ForkingMixIn, WSGIServer):
            pass
        with make_server("127.0.0.1", 0, validator(app), server_class=Server) as httpd:
            say(httpd.server_port)
            for _ in range(3):
                httpd.handle_request()
        say(os.getpid())
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            say("no child left")
    """)
    answered = {get(run.address).text for _ in range(3)}
    own, last = run.finish()[0].split("\n", 1)
    assert len(answered) == 3
    assert own not in answered
    assert last == "no child left\n"


@pytest.mark.parametrize("library", [FORKSERVER])
def test_forked_processes_share_the_listener(script: Callable[[str], Script]) -> None:
    """The pre-fork server of many a recipe: bind, fork, serve_forever in each child.

    wsgiref is not asked: there a child that loses the race for a connection blocks in accept(2), and never ends.
    """
    run = script("""
        import os, signal, threading
        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"ok"]
        httpd = make_server("127.0.0.1", 0, app)
        children = []
        hear, tell = os.pipe()
        for _ in range(3):
            pid = os.fork()
            if not pid:
                signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=httpd.shutdown).start())
                os.write(tell, b"+")
                httpd.serve_forever(0.01)
                httpd.server_close()
                os._exit(7)
            children.append(pid)
            os.read(hear, 1)  # it hears SIGTERM
        say(httpd.server_port)
        with make_server("127.0.0.1", 0, app) as stop:
            say(stop.server_port)
            stop.handle_request()
        for pid in children:
            os.kill(pid, signal.SIGTERM)
            say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """)
    assert {get(run.address).text for _ in range(20)} == {"ok"}
    assert run.process.stdout
    get(("127.0.0.1", int(run.process.stdout.readline())))
    assert run.finish()[0] == "7\n7\n7\n"
