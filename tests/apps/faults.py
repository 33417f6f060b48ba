"""An application that fails in the ways supervision must get over. It tells the gate of each call before it fails."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import threading

PLAIN = [("Content-Type", "text/plain; charset=utf-8")]
grown: list[bytearray] = []


def _arrived() -> None:
    with open(os.environ["GATE_ARRIVALS"], "wb", buffering=0) as arrivals:
        arrivals.write(b".")


def _spin() -> str:
    """Python code that never ends."""
    _arrived()
    while True:
        continue


def _lock() -> str:
    """A wait that nobody ends."""
    lock = threading.Lock()
    lock.acquire()
    _arrived()
    lock.acquire()
    return "never"


def _keep_interpreter() -> str:
    """C code that does not release the interpreter: no other thread runs, and no Python handler of a signal either.

    No signal ends a wait for a mutex, as one would end a sleep (signal(7)).
    """
    mutex = ctypes.create_string_buffer(64)  # zeros are an initialised pthread_mutex_t
    lock = ctypes.PyDLL(None).pthread_mutex_lock
    lock(mutex)
    _arrived()
    lock(mutex)
    return "never"


def _gate() -> str:
    _arrived()
    with open(os.environ["GATE_PASSES"], "rb", buffering=0) as passes:
        passes.read(1)
    return "passed"


def _crash() -> str:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


def _grow() -> str:
    grown.append(bytearray(os.urandom(1)) * (64 << 20))
    return str(len(grown))


def _leave_behind() -> str:
    """Start a process that outlives us; it ends when nobody writes to its standard input any more."""
    reading = os.open(os.environ["GATE_PASSES"], os.O_RDONLY | os.O_CLOEXEC)
    child = subprocess.Popen(["cat"], stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(reading)
    child.returncode = 0  # it is not waited for, and nobody is to warn of that
    return str(child.pid)


CALLS = {
    "/spin": _spin,
    "/lock": _lock,
    "/c": _keep_interpreter,
    "/gate": _gate,
    "/crash": _crash,
    "/grow": _grow,
    "/leave": _leave_behind,
    "/pid": lambda: str(os.getpid()),
}


def app(environ, start_response):
    body = CALLS[environ["PATH_INFO"]]().encode()
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return [body]
