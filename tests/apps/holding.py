"""An application that has been taken over: a process of its own, which outlives it, holds the pipe of a log."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys


def _others(pipe):
    """Further descriptors of what ``pipe`` is."""
    found = os.fstat(pipe)
    numbers = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
    return [number for number in numbers if number not in (1, 2, pipe) and os.path.samestat(os.fstat(number), found)]


def _hold(pipe):
    """splice(2) from a socket with nothing to read: the kernel waits for that with the pipe's lock taken."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if others := _others(pipe):  # forkserver's own, which the master may have, too: it is to have the last of the other
        os.close(pipe)
        pipe = others[0]
    os.set_blocking(pipe, True)
    empty, _other_end = socket.socketpair()
    ctypes.CDLL(None).splice(empty.fileno(), None, pipe, None, ctypes.c_size_t(4096), 0)


def _escaped(pipe):
    """The pid of a process that holds ``pipe``."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.setsid()
        if not os.fork():
            os.write(writing, str(os.getpid()).encode())
            os.close(writing)
            _hold(pipe)
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, encoding="ascii") as file:
        return file.read()


if os.environ.get("HOLDS_AT_IMPORT"):
    with open(os.environ["HOLDS_AT_IMPORT"], "w", encoding="ascii") as file:
        file.write(_escaped(2))
    sys.exit("this application does not start")


def app(environ, start_response):
    pipe = {"/hold": 2, "/hold-output": 1}.get(environ["PATH_INFO"])
    text = _escaped(pipe) if pipe else "served"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text.encode()]
