"""What the application makes while it is imported is not torn apart by a fork: where needed, each worker imports."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.clients import Answer, get
from harness.gate import Gate
from harness.load import Load
from harness.program import LaunchProgram, StartProgram

# A process that coverage measures has files of its own open.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
NOT_SHARED = r"each worker imports for itself \(preload=auto\), because the import left what processes cannot share: .*"
ANSWER = """
def answer(start_response, text):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(text).encode()]
"""
ROWS = 24
DATABASE = f"""
import os, sqlite3
db = sqlite3.connect("rows.db", isolation_level=None, check_same_thread=False)
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE IF NOT EXISTS rows (number)")

def app(environ, start_response):
    for number in range({ROWS}):
        if number == {ROWS // 3}:
            open(os.environ["GATE_ARRIVALS"], "wb", buffering=0).write(b".")
            open(os.environ["GATE_PASSES"], "rb", buffering=0).read(1)
        db.execute("INSERT INTO rows VALUES (?)", (number,))
    return answer(start_response, "committed")
"""
HELPER = """
import subprocess, sys
ECHO = "import sys\\nfor line in sys.stdin: sys.stdout.write(line)"
helper = subprocess.Popen([sys.executable, "-uc", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

def app(environ, start_response):
    helper.stdin.write(environ["PATH_INFO"].encode() + b"\\n")
    helper.stdin.flush()
    return answer(start_response, helper.stdout.readline().decode().strip())
"""
DIRECTORY = """
import os, tempfile
work = tempfile.TemporaryDirectory(dir=".")

def app(environ, start_response):
    with open(os.path.join(work.name, "made"), "w") as file:
        file.write("x")
    return answer(start_response, "written")
"""
NUMBERS = """
import random
numbers = random.Random()

def app(environ, start_response):
    return answer(start_response, first)

first = ""

def post_fork(worker):
    global first
    first = numbers.random()
"""

SUBREAPER = """
import ctypes
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER

def app(environ, start_response):
    return answer(start_response, "here")
"""


def write(folder: Path, source: str) -> None:
    (folder / "mysite.py").write_text(ANSWER + source)


def test_rows_that_were_answered_for_are_in_the_database(program: StartProgram, tmp_path: Path, gate: Gate) -> None:
    """Of a connection that a fork has copied, SQLite's locks are gone: another process takes the log of rows away.

    TERM goes to the whole process group, as a terminal or a container's runtime sends it.
    """
    write(tmp_path, DATABASE)
    server = program("mysite:app", "-w", "2", environ=gate.environ | UNMEASURED)
    server.log.wait(NOT_SHARED + r"rows\.db.*\(mysite:7\)")
    answers: list[Answer] = []
    client = threading.Thread(target=lambda: answers.append(get(server.address)))
    client.start()
    gate.wait_for()
    for pid in (server.pid, *(member.pid for member in server.family())):
        os.kill(pid, signal.SIGTERM)
    server.log.wait("stopping: SIGTERM")
    reading = "import sqlite3; db = sqlite3.connect('rows.db'); db.execute('SELECT * FROM rows').fetchall(); db.close()"
    subprocess.run([sys.executable, "-c", reading], cwd=tmp_path, check=True)
    gate.open()
    client.join()
    assert server.wait() == 0
    assert [(answer.status, answer.text) for answer in answers] == [(200, "committed")]
    database = sqlite3.connect(tmp_path / "rows.db")
    assert database.execute("SELECT count(*) FROM rows").fetchone() == (ROWS,)
    database.close()


def test_a_helper_process_answers_the_worker_that_asked(program: StartProgram, tmp_path: Path) -> None:
    """Workers that write to one pipe and read from one other take each other's answers."""
    write(tmp_path, HELPER)
    server = program("mysite:app", "-w", "4", environ=UNMEASURED)
    server.log.wait(NOT_SHARED + r"child process \d+ \(.*\) \(mysite:8\); pipe, descriptor")
    wrong: list[str] = []

    def ask(client: int) -> None:
        for number in range(50):
            path = f"/{client}-{number}"
            if (said := get(server.address, path).text) != path:
                wrong.append(said)

    clients = [threading.Thread(target=ask, args=(client,)) for client in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert wrong == []
    assert server.stop() == 0


def test_a_temporary_directory_outlives_other_workers(program: StartProgram, tmp_path: Path) -> None:
    """The first worker that leaves removes its own, and the template's import, which no process uses, leaves none."""
    write(tmp_path, DIRECTORY)
    server = program("mysite:app", "-w", "2", "--max-requests", "5", environ=UNMEASURED)
    server.log.wait(NOT_SHARED + r"TemporaryDirectory.*\(mysite:7\)")
    first = set(tmp_path.glob("tmp*"))
    assert len(first) == 2, "one for each worker"
    with Load(server.address, clients=2) as load:
        load.more(40)
        server.log.wait(r"is recycled: it has served \d+ requests")
        server.log.wait("has left: ")
        load.more(40)
    assert {answer.status for answer in load.answers} == {200}
    assert first - set(tmp_path.glob("tmp*")), "the worker that has left removed its own"
    assert server.stop() == 0


def test_an_import_that_adopts_orphans_does_not_keep_workers_from_the_master(
    program: StartProgram, tmp_path: Path
) -> None:
    """They were the template's children then, and the master, which takes none but its own, had no service."""
    write(tmp_path, SUBREAPER)
    server = program("mysite:app", "--preload", "on")
    assert get(server.address).text == "here"
    assert server.stop() == 0


@pytest.mark.parametrize(("preload", "different"), [("auto", 3), ("on", 1)])
def test_random_numbers_differ_between_workers(
    program: StartProgram, tmp_path: Path, preload: str, different: int
) -> None:
    """With preload=on the operator has chosen, and is told what workers have in common."""
    write(tmp_path, NUMBERS)
    (tmp_path / "hooks.py").write_text(
        "import mysite\ndef post_fork(worker):\n    mysite.post_fork(worker)\n"
        "    open(f'number-{worker.number}', 'w').write(mysite.first.hex())\n"
    )
    server = program("mysite:app", "-w", "3", "--preload", preload, "--hooks", "hooks", environ=UNMEASURED)
    told = NOT_SHARED if preload == "auto" else r"the import is shared \(preload=on\) although it left .*"
    server.log.wait("warning .*" + told + r"random generator random\.Random \(mysite:7\)")
    assert len({path.read_text() for path in tmp_path.glob("number-*")}) == different
    assert server.stop() == 0


def test_what_left_nothing_is_shared(program: StartProgram, tmp_path: Path) -> None:
    write(tmp_path, "import os\ndef app(environ, start_response): return answer(start_response, os.getppid())")
    server = program("mysite:app", "-w", "2", environ=UNMEASURED)
    server.log.wait(r"2 workers.*\(one import, shared\)")
    assert server.stop() == 0


# What `monkey.patch_all()` does to a process, as far as a worker meets it, and what gevent says of it.
PATCHES = """
import os, select, threading
saved = {}

def patch_all():
    saved.update(os={"fork": os.fork}, select={"poll": select.poll}, threading={"Thread": threading.Thread})
    select.poll = lambda: (_ for _ in iter(threading.Lock().acquire, None))
"""


@pytest.mark.parametrize("preload", ["on", "off"])
def test_variables_of_env_are_there_before_the_standard_library_reads_them(
    program: StartProgram, tmp_path: Path, preload: str
) -> None:
    """Some modules are loaded before the application, and read theirs once."""
    (tmp_path / "mysite.py").write_text(
        "import zoneinfo\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [' '.join(zoneinfo.TZPATH).encode()]\n"
    )
    server = program("mysite:app", "--preload", preload, "--env", "PYTHONTZPATH=/srv/zones")
    assert get(server.address).text == "/srv/zones"
    assert server.stop() == 0


@pytest.mark.parametrize("preload", ["auto", "off"])
def test_monkey_patches_are_refused_at_once(launch: LaunchProgram, tmp_path: Path, preload: str) -> None:
    """A worker whose poll waits for a hub would be silent for boot_timeout, again and again."""
    (tmp_path / "gevent").mkdir()
    (tmp_path / "gevent/__init__.py").touch()
    (tmp_path / "gevent/monkey.py").write_text(PATCHES)
    write(tmp_path, "from gevent import monkey; monkey.patch_all()\ndef app(environ, start_response): ...")
    server = launch("mysite:app", "-b", f"unix:{tmp_path}/socket", "--preload", preload)
    assert server.wait() == 3
    server.log.wait(r"application 'mysite:app': gevent's monkey.patch_all\(\) has replaced os, select, threading")


LOGGING = """
import logging, os
logging.basicConfig(filename="site.log", format="%(process)d %(message)s", level=logging.INFO)
log = logging.getLogger()

def app(environ, start_response):
    log.info("x" * 500)
    return answer(start_response, os.getpid())
"""


def test_a_log_that_was_set_up_at_import_is_whole(program: StartProgram, tmp_path: Path) -> None:
    """Workers share the open file, and no record is lost, torn, or of another process's pid."""
    write(tmp_path, LOGGING)
    server = program("mysite:app", "-w", "3", environ=UNMEASURED)
    server.log.wait(r"3 workers.*\(one import, shared\)")
    with Load(server.address, clients=6) as load:
        load.more(300)
    assert server.stop() == 0
    lines = (tmp_path / "site.log").read_text().splitlines()
    assert len(lines) >= len(load.answers)
    assert {line.partition(" ")[2] for line in lines} == {"x" * 500}
    assert {line.partition(" ")[0] for line in lines} >= {answer.body for answer in load.answers}
