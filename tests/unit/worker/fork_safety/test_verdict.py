"""What an import leaves behind is found and named with its line; what processes may share is let pass."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from forkserver.worker.fork_safety import process_snapshot, verdict
from forkserver.worker.fork_safety.finding import Finding
from harness import needs, processes
from harness.worker import wait_until

Left = Callable[[str], list[str]]


def findings_of(source: str, directory: Path) -> list[str]:
    """Import ``source`` as the module ``leaves`` under watch; the findings, each in words."""
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    sys.dont_write_bytecode = True
    (directory / "leaves.py").write_text(source)
    imported = verdict.Import()
    gc.disable()
    with imported.watched():
        __import__("leaves")
    # Popen returns a moment before the kernel shows what it executes.
    wait_until(lambda: all(map(processes.title, process_snapshot._children())))
    found = list(map(str, imported.findings()))
    imported.give_up()
    if tracker := sys.modules.get("multiprocessing.resource_tracker"):
        tracker._resource_tracker._stop()  # or it would end a little later than this process
    with suppress(ChildProcessError):
        while True:
            os.wait()  # what was given up has been told to end
    return found


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """What a module leaves, imported in a child of this process, which an audit hook would stay in."""

    def left(source: str) -> list[str]:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                report = findings_of(source, tmp_path)
            except BaseException:
                report = [traceback.format_exc()]
            os.write(writing, json.dumps(report).encode() + b"\n")
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            said = pipe.readline()  # not to its end: what the module has started may hold the other side
        os.waitpid(pid, 0)
        found: list[str] = json.loads(said)
        return found

    return left


# Modules, and what is said of each. The last line is the one that leaves something.
WAYS = {
    "a thread": ("from threading import *\nThread(target=Event().wait, name='x', daemon=True).start()", "thread x"),
    "a timer": ("import threading\nt = threading.Timer(99, print)\nt.daemon = True\nt.start()", "thread Thread-"),
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(); p.submit(int).result()",
        "thread ThreadPoolExecutor-",
    ),
    "a listener of log records": (
        "import logging.handlers, queue\nl = logging.handlers.QueueListener(queue.Queue())\nl.start()",
        "(_monitor)",
    ),
    "a listening socket": ("import socket\ns = socket.create_server(('127.0.0.1', 0))", "stream socket at 127.0.0.1:"),
    "a connection": (
        "import socket\ns = socket.create_server(('127.0.0.1', 0))\nc = socket.create_connection(s.getsockname())",
        "stream socket connected to 127.0.0.1:",
    ),
    "a socket for datagrams": ("import socket\ns = socket.socket(type=socket.SOCK_DGRAM)", "datagram socket"),
    "a socket by its path": ("import socket\ns = socket.socket(1); s.bind('db'); s.listen()", "stream socket at db"),
    "a pair of sockets": ("import socket\na, b = socket.socketpair()", "stream socket"),
    "a file that is written": ("\nf = open('out', 'w')", "/out, open for writing"),
    "a file that is appended to": ("\nf = open('out', 'a')", "/out, open for writing"),
    "a file that is read": ("\nf = open('leaves.py')", "/leaves.py, open for reading"),
    "a file by its number": ("import os\nf = os.open('out', os.O_CREAT | os.O_WRONLY)", "/out, open for writing"),
    "a locked file": ("import fcntl\nf = open('leaves.py'); fcntl.flock(f, fcntl.LOCK_EX)", "locked file "),
    "a named pipe": ("import os\nos.mkfifo('p'); f = os.open('p', os.O_RDWR)", "named pipe "),
    "an SQLite database": ("import sqlite3\ndb = sqlite3.connect('rows.db')", "/rows.db, open for writing"),
    "a temporary file": ("import tempfile\nf = tempfile.NamedTemporaryFile()", "temporary file "),
    "a temporary file's path": ("import tempfile, os\nf, p = tempfile.mkstemp(); os.close(f)", "temporary file "),
    "a temporary directory": (
        "import tempfile\nd = tempfile.TemporaryDirectory()",
        "finalizer tempfile.TemporaryDirectory._cleanup of /",
    ),
    "a temporary directory's path": ("import tempfile\nd = tempfile.mkdtemp(dir='.')", "temporary directory "),
    "an exit callback": ("import atexit\natexit.register(print)", "exit callback builtins.print"),
    "an exit callback, by name": ("from atexit import register\nregister(print)", "exit callback builtins.print"),
    "a finalizer": (
        "import weakref\nclass C: pass\nc = C(); weakref.finalize(c, print, 'x')",
        "finalizer builtins.print of x",
    ),
    "a random generator": ("import random\nr = random.Random()", "random generator random.Random"),
    "a seeded random generator": ("import random\nr = random.Random(1)", "random generator random.Random"),
    "a seed": ("import random\nrandom.seed(1)", "changed state of the module random"),
    "a process id": ("import os\npid = os.getpid()", "value of os.getpid()"),
    "a process id, by name": ("from os import getpid\npid = getpid()", "value of os.getpid()"),
    "a node's id": ("import uuid\nnode = uuid.uuid1()", "value of uuid.uuid1()"),
    "a random id": ("from uuid import uuid4\nnode = uuid4()", "value of uuid.uuid4()"),
    "a random id, in generated code": (
        "import dataclasses as d, uuid\nx = d.make_dataclass('C', [('i', str, d.field(default_factory=uuid.uuid4))])()",
        "value of uuid.uuid4()",
    ),
    "a secret": ("import secrets\nkey = secrets.token_hex(4)", "value of secrets.token_hex()"),
    "a secret of letters": ("import secrets\nkey = secrets.choice('abc')", "value of secrets.choice()"),
    "a child": (
        "from subprocess import DEVNULL as no, Popen\np = Popen(['sleep', '99'], stdin=no, stdout=no, stderr=no)",
        "(sleep 99)",
    ),
    "a fork": ("import signal, os\npid = os.fork() or signal.pause()", "(a fork of this one)"),
    "a log file that is rotated": (
        "import logging.handlers\nh = logging.handlers.RotatingFileHandler('log')",
        "/log, open for writing",
    ),
    "a log file that is begun anew": ("import logging\nh = logging.FileHandler('log', 'w')", "/log, open for writing"),
}
# What C code makes, or no event tells of, is named without its line.
WITHOUT_A_LINE = {
    "a pipe": ("import os; p = os.pipe()", "pipe, descriptor "),
    "a terminal": ("import os; p = os.openpty()", "terminal /dev/p"),
    "an eventfd": ("import os; e = os.eventfd(0)", "eventfd, descriptor "),
    "an epoll": ("import select; e = select.epoll()", "epoll instance, descriptor "),
    "an event loop": ("import asyncio; loop = asyncio.new_event_loop()", "epoll instance, descriptor "),
    "a memfd": ("import os; m = os.memfd_create('m')", "memfd m"),
    "shared memory": ("import mmap; m = mmap.mmap(-1, 4096)", "writable shared memory"),
    "a thread without an object": (
        "import _thread, time; l = _thread.allocate_lock(); l.acquire(); _thread.start_new_thread(l.acquire, ())",
        "native thread",
    ),
    "a finalizer of multiprocessing": (
        "from multiprocessing import util; f = util.Finalize(None, print, exitpriority=1)",
        "finalizer print of multiprocessing",
    ),
    "an interval timer": ("import signal; signal.setitimer(signal.ITIMER_REAL, 3600)", "interval timer ITIMER_REAL"),
    "an alarm": ("import signal; signal.alarm(3600)", "interval timer ITIMER_REAL"),
    "an exit callback that does not say its name": (
        "import atexit\nclass P:\n    def __getattr__(s, _): raise OSError\n    __call__ = int\natexit.register(P())",
        "exit callback leaves.P",
    ),
    "random numbers taken": ("import random; jitter = random.random()", "changed state of the module random"),
}
HARMLESS = {
    "nothing": "",
    "a file that is closed": "with open('out', 'w') as f: f.write('x')",
    "a thread that has ended": "import threading; t = threading.Thread(target=int); t.start(); t.join()",
    "a child that was waited for": "import subprocess; subprocess.run(['true'])",
    "a temporary directory that is gone": "import tempfile\nwith tempfile.TemporaryDirectory() as d: pass",
    "an exit callback that was taken back": "import atexit; atexit.register(print); atexit.unregister(print)",
    "a finalizer whose object has died": "import weakref\nclass C: pass\nweakref.finalize(C(), int)",
    "garbage that holds a file": "class C: pass\nc = C(); c.f = open('out', 'w'); c.c = c; del c",
    "garbage that holds a random generator": "import random\nc = [random.Random()]; c.append(c); del c",
    "a random generator of the system": "import random; r = random.SystemRandom()",
    "the generator by which more_itertools knows primes": (
        "import random, sys, types\nm = types.ModuleType('more_itertools.recipes')\n"
        "m._private_randrange = random.Random().randrange\nsys.modules[m.__name__] = m"
    ),
    "a file that a thread opens which begins in C code": (
        "import _thread, os, queue\nq = queue.SimpleQueue()\n"
        "_thread.start_new_thread(map(q.put, map(os.open, ['leaves.py'], [0])).__next__, ())\n"
        "os.close(q.get(timeout=60))\n"
        "while len(os.listdir('/proc/self/task')) > 1: os.sched_yield()"
    ),
    "the null device": "import os; f = open(os.devnull, 'w')",
    "a directory": "import os; d = os.open('.', os.O_RDONLY)",
    "a mapped file": (
        "import mmap\nwith open('leaves.py') as f: m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)"
    ),
    "a database in memory": "import sqlite3; db = sqlite3.connect(':memory:')",
    "functions that are not called": "import os, uuid, secrets; make = (os.getpid, uuid.uuid4, secrets.token_hex)",
    "hooks at a fork": "import os; os.register_at_fork(after_in_child=int)",
    "locks": "import threading, multiprocessing; a, b = threading.Lock(), multiprocessing.Lock()",
    "the resource tracker": "from multiprocessing import resource_tracker; resource_tracker.ensure_running()",
    "log records": "import logging; logging.basicConfig(); logging.getLogger().warning('x')",
    "a log file that is appended to": "import logging; h = logging.FileHandler('log')",
    "a log file that is watched": "import logging.handlers; h = logging.handlers.WatchedFileHandler('log')",
    "a syslog": "import logging.handlers; h = logging.handlers.SysLogHandler(('127.0.0.1', 9))",
    "log records as datagrams": (
        "import logging.handlers; h = logging.handlers.DatagramHandler('127.0.0.1', 9); h.send(b'x')"
    ),
    "the standard library": (
        "import asyncio, concurrent.futures, ctypes, dbm, email.mime.text, ensurepip, http.client, http.cookiejar\n"
        "import imaplib, json, logging.config, lzma, multiprocessing.pool, multiprocessing.managers, platform, pydoc\n"
        "import multiprocessing.shared_memory, pickle, queue, sched, shelve, smtplib, sqlite3, ssl, statistics\n"
        "import subprocess, tempfile, unittest.mock, urllib.request, uuid, venv, xmlrpc.client, zipfile, zoneinfo\n"
        "tempfile.gettempdir(), platform.platform(), uuid.getnode()"
    ),
}


@pytest.mark.process
@pytest.mark.parametrize("way", WAYS)
def test_what_is_left_is_named_with_its_line(left: Left, way: str) -> None:
    source, named = WAYS[way]
    line = source.count("\n") + 1
    found = left(source)
    assert [each for each in found if named in each and each.endswith(f"(leaves:{line})")], found


@pytest.mark.parametrize("way", WITHOUT_A_LINE)
def test_what_no_event_tells_of_is_named_too(left: Left, way: str) -> None:
    source, named = WITHOUT_A_LINE[way]
    found = left(source)
    assert any(named in each for each in found), found


TELLS = """import ctypes, numpy
from forkserver.worker.fork_safety import exemptions
paths = exemptions._mapped_libraries("openblas")
for path in paths:
    ctypes.c_int.in_dll(ctypes.CDLL(path), "blas_server_avail")
"""


def test_a_native_thread_is_not_taken_for_one_that_openblas_has_ended_at_a_fork(left: Left) -> None:
    """Its number of threads says nothing of how many there are, once the import has forked."""
    needs.module("numpy")
    if subprocess.run([sys.executable, "-c", TELLS], stdin=subprocess.DEVNULL).returncode:
        pytest.skip("this build of OpenBLAS does not tell whether it has threads")
    found = left(
        "import numpy, os, _thread\nif (pid := os.fork()) == 0: os._exit(0)\nos.waitpid(pid, 0)\n"
        "l = _thread.allocate_lock(); l.acquire(); _thread.start_new_thread(l.acquire, ())"
    )
    assert any("native thread" in each for each in found), found


@pytest.mark.parametrize("way", HARMLESS)
def test_what_processes_may_share_is_no_finding(left: Left, way: str) -> None:
    assert left(HARMLESS[way]) == []


def test_a_place_names_the_library_and_the_line_that_led_to_it(left: Left, tmp_path: Path) -> None:
    """The line to change is the application's; the one to understand is the library's."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "library.py").write_text("def start():\n    global f\n    f = open('out', 'w')\n")
    found = left("import sys; sys.path.append('site-packages')\nimport library\nlibrary.start()")
    assert found == [f"file {tmp_path}/out, open for writing (library:3, by leaves:3)"]


def test_many_findings_fit_in_a_line() -> None:
    """A message to the master is bounded, and so is a line of the log."""
    said = verdict.words([Finding("x" * 10_000, f"m:{number}") for number in range(1000)])
    assert said.endswith("; and 992 more")
    assert len(said) < 3000


def test_what_cannot_be_shared_is_ended_and_removed_with_an_import_that_is_given_up(left: Left, tmp_path: Path) -> None:
    """Every start would leave another directory and another process behind."""
    found = left(
        "import subprocess, tempfile\nd = tempfile.TemporaryDirectory(dir='.')\np = subprocess.Popen(['sleep', '99'])"
    )
    assert len([each for each in found if "(sleep 99)" in each]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["leaves.py"]
