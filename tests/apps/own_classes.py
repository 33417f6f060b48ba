"""Server and handler classes as users write them, and applications that show what became of them."""

from __future__ import annotations

import json
import threading
from socketserver import ThreadingMixIn
from wsgiref.validate import validator

from forkserver import WSGIRequestHandler, WSGIServer

PLAIN = [("Content-Type", "text/plain")]
meeting = threading.Barrier(2)


class Mounted(WSGIRequestHandler):
    """A hook of the event-driven way."""

    def get_environ(self):
        environ = super().get_environ()
        environ["SCRIPT_NAME"] = "/mounted"
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/mounted")
        return environ


class Logging(WSGIRequestHandler):
    def log_message(self, format, *args):
        self.server.told.append(format % args)
        super().log_message(format, *args)


class Worded(WSGIRequestHandler):
    """Errors in words of its own, and a log of its own."""

    error_message_format = "%(code)d, in own words: %(explain)s"
    server_version = "worded"

    def log_message(self, format, *args):
        super().log_message("worded: " + format, *args)


class Blocking(WSGIRequestHandler):
    def setup(self):
        super().setup()
        self.is_mine = True

    def get_environ(self):
        return super().get_environ() | {"test.blocking": str(self.is_mine)}


class Failing(WSGIRequestHandler):
    def get_environ(self):
        if self.path == "/fail":
            raise LookupError("in a hook")
        return super().get_environ()


class Server(WSGIServer):
    """Every step of a request, noted."""

    def __init__(self, *arguments, **options):
        self.told = []
        super().__init__(*arguments, **options)

    def server_bind(self):
        raise AssertionError("the master has bound")

    def setup_environ(self):
        super().setup_environ()
        self.base_environ["test.told"] = self

    def get_request(self):
        self.told.append("get_request")
        return super().get_request()

    def verify_request(self, request, client_address):
        self.told.append("verify_request")
        return super().verify_request(request, client_address)

    def process_request(self, request, client_address):
        self.told.append("process_request")
        super().process_request(request, client_address)


class Noting(WSGIServer):
    def setup_environ(self):
        super().setup_environ()
        self.told = []
        self.base_environ["test.told"] = self


class Threads(ThreadingMixIn, WSGIServer):
    """A thread for each request."""


def _shown(environ, start_response):
    shown = {key: value for key, value in environ.items() if isinstance(value, str)}
    shown["told"] = getattr(environ.get("test.told"), "told", [])
    shown["multithread"] = environ["wsgi.multithread"]
    environ["wsgi.errors"].write("said by the application\n")
    if environ["PATH_INFO"] == "/raise":
        raise LookupError("raised by the application")
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode()]


def _met(environ, start_response):
    meeting.wait(20)
    start_response("200 OK", [*PLAIN])
    return [b"met"]


shown = validator(_shown)
met = validator(_met)
