"""A handler with a documented hook overridden: the environ names the peer's port, so a test can count connections."""

from __future__ import annotations

from forkserver import WSGIRequestHandler


class Handler(WSGIRequestHandler):
    def get_environ(self):
        environ = super().get_environ()
        environ["test.peer"] = str(self.client_address[1])
        return environ
