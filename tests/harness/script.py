"""A script of a user's own, run as a program: it says on which port it listens, and what it sees, line by line."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

from harness.processes import wait_gone
from harness.program import clean_environment

OPENING = """
import sys
from {module} import make_server, WSGIServer, WSGIRequestHandler, demo_app
from wsgiref.validate import validator
def say(*words):
    print(*words, flush=True)
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


class Script:
    def __init__(self, module: str, text: str) -> None:
        whole = OPENING.format(module=module) + textwrap.dedent(text)
        self.process = subprocess.Popen(
            [sys.executable, "-c", whole],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.address = ("127.0.0.1", int(line))

    def finish(self) -> tuple[str, str]:
        """Wait for the script's own end; what it said after its port, and its stderr."""
        assert wait_gone(self.process.pid), "the script does not end"
        assert self.process.stdout
        assert self.process.stderr
        # Not communicate(): it would miss what came together with the port and stands in the buffer.
        said, errors = self.process.stdout.read(), self.process.stderr.read()
        assert self.process.wait() == 0, errors
        return said, errors

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
