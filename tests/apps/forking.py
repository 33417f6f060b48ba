"""An application whose processes fork in their turn, each with files of its own under the lowest free numbers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from socketserver import ForkingMixIn

from forkserver import WSGIServer

PLAIN = [("Content-Type", "text/plain; charset=utf-8")]
FORK = multiprocessing.get_context("fork")
BOUND = 20.0
MANY = 40  # files: more than a worker gives back to what it forks


def _square(number):
    return number * number


def _sum_of_squares(count):
    with ProcessPoolExecutor(2, mp_context=FORK) as pool:
        return sum(pool.map(_square, range(count)))


def _pools(_environ):
    with ProcessPoolExecutor(1, mp_context=FORK) as pool:
        return str(pool.submit(_sum_of_squares, 4).result(BOUND))


def _open_files():
    return [open(os.devnull, "rb", buffering=0) for _ in range(MANY)]


def _are_open(files):
    for file in files:
        os.fstat(file.fileno())


def _run_program(say):
    files = _open_files()
    done = subprocess.run(["true"], check=False, preexec_fn=lambda: _are_open(files))
    say(f"status {done.returncode}")


def _fork_and_look(say):
    files = _open_files()
    pid = os.fork()
    if not pid:
        try:
            _are_open(files)
            say("open")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _fork_in_a_thread(say):
    def fork():
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        say("forked")

    thread = threading.Thread(target=fork, daemon=True)
    thread.start()
    thread.join(BOUND)


def _own_handlers(say):
    signal.signal(signal.SIGTERM, _note)
    pid = os.fork()
    if not pid:
        try:
            say(str(signal.getsignal(signal.SIGTERM) is _note))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _note(_signum, _frame):
    """A handler of this application's own."""


def _dispositions(say):
    ours = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGURG)
    say(str({signal.getsignal(each) for each in ours} == {signal.SIG_DFL}))


def _in_a_process(target):
    """What ``target`` says in a process of multiprocessing's; nothing where that ends, or does not end, before."""

    def answer(_environ):
        ours, theirs = FORK.Pipe(duplex=False)
        process = FORK.Process(target=target, args=(theirs.send,))
        process.start()
        theirs.close()
        try:
            return ours.recv() if ours.poll(BOUND) else "nothing"
        except EOFError:
            return "nothing"
        finally:
            ours.close()
            process.kill()
            process.join()
            process.close()

    return answer


def _daemon(_environ):
    """A daemon as the recipe has it: fork, a session of its own, fork again; what it says when it is there."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.setsid()
        files = _open_files()
        if os.fork():
            os._exit(0)
        try:
            _are_open(files)
            os.write(writing, b"open")
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading, encoding="ascii") as file:
        return file.read()


def _come_back(environ):
    """A child that returns, raises or leaves from the application's call, while other requests wait for it."""
    with open(os.environ["GATE_ARRIVALS"], "wb", buffering=0) as arrivals:
        arrivals.write(b".")
    with open(os.environ["GATE_PASSES"], "rb", buffering=0) as passes:
        passes.read(1)
    pid = os.fork()
    if not pid:
        match environ["QUERY_STRING"]:
            case "raise":
                raise RuntimeError("the child fails on purpose")
            case "exit":
                sys.exit(3)
        return "this reaches nobody"
    return f"its status is {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"


def _write_down(environ):
    with open(os.environ["CALLS"], "a", encoding="ascii") as calls:
        calls.write(environ["QUERY_STRING"] + "\n")
    return "written down"


def _keep_files(_environ):
    """Files of this process, to be open until it ends; each with a name that the test can look at."""
    kept.extend(tempfile.NamedTemporaryFile(dir=os.environ["FOLDER"], delete=False) for _ in range(MANY))
    return str(os.getpid())


class _ForksAtItsEnd(list):
    """A body whose answer is out when the application forks; the child comes back from there."""

    def close(self):
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)


kept = []
CALLS = {
    "/pools": _pools,
    "/program": _in_a_process(_run_program),
    "/look": _in_a_process(_fork_and_look),
    "/thread": _in_a_process(_fork_in_a_thread),
    "/handlers": _in_a_process(_own_handlers),
    "/dispositions": _in_a_process(_dispositions),
    "/daemon": _daemon,
    "/back": _come_back,
    "/note": _write_down,
    "/files": _keep_files,
    "/end": lambda _environ: "all of it",
}


def app(environ, start_response):
    body = CALLS[environ["PATH_INFO"]](environ).encode()
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return _ForksAtItsEnd([body]) if environ["PATH_INFO"] == "/end" else [body]


class Forking(ForkingMixIn, WSGIServer):
    """A process for each request."""
