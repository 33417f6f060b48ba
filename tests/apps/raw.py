"""Plain WSGI applications for the tests, each wrapped in the stdlib's validator: a breach of PEP 3333 is a 500."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from wsgiref.simple_server import demo_app
from wsgiref.validate import validator

BLOCK = 64 * 1024
PLAIN = [("Content-Type", "text/plain; charset=utf-8")]
imported_by = int(os.readlink("/proc/self"))  # os.getpid() would speak against sharing this import


def _hello(environ, start_response):
    body = f"hello from {os.getpid()}".encode()
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def _pid(environ, start_response):
    start_response("200 OK", PLAIN)
    return [str(os.getpid()).encode()]


def _environ(environ, start_response):
    """The request as the application sees it, and who answers."""
    seen = {key: value for key, value in environ.items() if isinstance(value, str)}
    seen |= {"pid": os.getpid(), "imported_by": imported_by, "uid": os.getuid(), "gid": os.getgid()}
    seen |= {"groups": os.getgroups(), "process": sorted(os.environ)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]


def _blocks(stream):
    while block := stream.read(BLOCK):
        yield block


def _digest(environ, start_response):
    """SHA-256 and size of what was uploaded."""
    digest, size = hashlib.sha256(), 0
    for block in _blocks(environ["wsgi.input"]):
        digest.update(block)
        size += len(block)
    start_response("200 OK", PLAIN)
    return [f"{size} {digest.hexdigest()}".encode()]


def _echo(environ, start_response):
    body = b"".join(_blocks(environ["wsgi.input"]))
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def _large(environ, start_response):
    """/large/N: N bytes with a Content-Length, made as they go."""
    size = int(environ["PATH_INFO"].rpartition("/")[2])
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))])
    block = bytes(BLOCK)
    return (block[: min(BLOCK, size - at)] for at in range(0, size, BLOCK))


def _chunks(environ, start_response):
    """Three blocks without a Content-Length."""
    start_response("200 OK", PLAIN)
    return iter([b"one ", b"two ", b"three"])


def stand_at_gate():
    """Say that the call, or the import, has arrived, and wait until the test lets it pass."""
    with open(os.environ["GATE_ARRIVALS"], "wb", buffering=0) as arrivals:
        arrivals.write(b".")
    with open(os.environ["GATE_PASSES"], "rb", buffering=0) as passes:
        passes.read(1)


def _gate(environ, start_response):
    stand_at_gate()
    return _hello(environ, start_response)


def _print(environ, start_response):
    print("printed by the application")
    return _hello(environ, start_response)


def _fail(environ, start_response):
    raise RuntimeError("the application fails on purpose")


def _errors(environ, start_response):
    environ["wsgi.errors"].write("said to wsgi.errors\n")
    environ["wsgi.errors"].flush()
    return _hello(environ, start_response)


def _unended(environ, start_response):
    environ["wsgi.errors"].write("unended")
    return _hello(environ, start_response)


def _exit(environ, start_response):
    sys.exit("the application leaves")


def _hints(environ, start_response):
    """An interim answer before the answer, where the client understands it."""
    if "wsgi.early_hints" in environ:
        environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload"), ("Link", "</code.js>; rel=preload")])
    return _hello(environ, start_response)


def _file(environ, start_response):
    """The file that FILE names, as the server's wrapper sends it."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](open(os.environ["FILE"], "rb"))


def _half(environ, start_response):
    """An answer of HTTP/1.0 that breaks off."""
    start_response("200 OK", PLAIN)
    yield b"half"
    raise RuntimeError("the application fails on purpose")


ROUTES = {
    "hints": _hints,
    "file": _file,
    "half": _half,
    "pid": _pid,
    "environ": _environ,
    "digest": _digest,
    "echo": _echo,
    "large": _large,
    "chunks": _chunks,
    "gate": _gate,
    "print": _print,
    "fail": _fail,
    "errors": _errors,
    "unended": _unended,
    "exit": _exit,
}


def _route(environ, start_response):
    first = environ["PATH_INFO"].split("/")[1] if "/" in environ["PATH_INFO"] else ""
    return ROUTES.get(first, _hello)(environ, start_response)


app = validator(_route)
printing = validator(_print)  # whoever calls it is heard
unchecked = _route  # for what the validator cannot see through: the environ's file_wrapper
demo = validator(demo_app)
not_callable = 7


def create_app():
    return app


class Site:
    """An attribute of an object is an application too: raw:site.app."""

    app = staticmethod(app)


site = Site()
