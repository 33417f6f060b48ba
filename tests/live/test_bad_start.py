"""A start that cannot succeed: one line with the value, the reason and the way out, and a truthful exit status."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from forkserver.errors import PACKAGE
from harness.program import APPS, LaunchProgram, StartProgram, own_address

USER, SYSTEM, APPLICATION = 2, 1, 3
RAW = ("--pythonpath", str(APPS))
# What is asked for, whose fault it is, and what the one line must hold.
REFUSED = {
    "a module that is not there": (["no_such_module:app"], USER, ["no_such_module"]),
    "an attribute that is not there": ([*RAW, "raw:ap"], USER, ["raw", "ap", "app"]),
    "a factory not called": ([*RAW, "raw:create"], USER, ["create_app()"]),
    "not callable": ([*RAW, "raw:not_callable"], USER, ["not_callable", "callable"]),
    "no application": ([], USER, ["MODULE:APP"]),
    "an unknown flag": (["--no-such-flag", "raw:app"], USER, ["--no-such-flag"]),
    "a flag with a typo": (["--wrokers", "2", "raw:app"], USER, ["--wrokers", "--workers"]),
    "a value out of range": (["-w", "0", "raw:app"], USER, ["workers", "0"]),
    "a value of another kind": (["--timeout", "soon", "raw:app"], USER, ["timeout", "soon"]),
    "an address that is none": (["-b", "localhost:http:1", "raw:app"], USER, ["localhost:http:1"]),
    "a port out of range": (["-b", "127.0.0.1:70000", "raw:app"], USER, ["70000"]),
    "a worker class we have not": (["-k", "gevent", "raw:app"], USER, ["gevent"]),
    "a user that is not there": (["--user", "no-such-user", "raw:app"], USER, ["no-such-user"]),
    "a configuration file that is not there": (["-c", "nowhere.toml", "raw:app"], USER, ["nowhere.toml"]),
    "a folder that is not there": (["--chdir", "/nowhere/at/all", "raw:app"], USER, ["/nowhere/at/all"]),
    "a class that is no handler": ([*RAW, "--handler-class", "raw:Site", "raw:app"], USER, ["raw:Site"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_mistake_is_one_line_and_status_2(launch: LaunchProgram, what: str) -> None:
    arguments, status, words = REFUSED[what]
    refused(launch(*_with_bind(arguments)), status, words)


def _with_bind(arguments: list[str]) -> list[str]:
    if "-b" in arguments:
        return arguments
    host, port = own_address()
    return ["-b", f"{host}:{port}", *arguments]


def refused(server, status: int, words: list[str]) -> None:
    assert server.wait() == status, server.log.text()
    server.log.until(lambda: server.log.ended, "the end of the log")
    said = [entry.text for entry in server.log.entries]
    message = [line for line in said if line.startswith("forkserver: ")]
    assert len(message) == 1, said
    assert said[-1] == message[0], said
    assert "Traceback" not in server.log.text()
    for word in words:
        assert word in message[0]


def test_a_typo_in_a_toml_key_suggests_the_nearest(launch: LaunchProgram, tmp_path: Path) -> None:
    (tmp_path / "forkserver.toml").write_text("wrokers = 4\n")
    refused(launch(*RAW, "raw:app"), USER, ["wrokers", "workers", "forkserver.toml"])


def test_toml_that_is_none_names_the_line(launch: LaunchProgram, tmp_path: Path) -> None:
    (tmp_path / "forkserver.toml").write_text("workers = 4\nthreads = = 2\n")
    refused(launch(*RAW, "raw:app"), USER, ["forkserver.toml", "line 2"])


def test_a_port_in_use_is_the_systems_fault(launch: LaunchProgram) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(launch(*RAW, "-b", f"127.0.0.1:{port}", "raw:app"), SYSTEM, [f"127.0.0.1:{port}", "in use"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('no database')\n", "RuntimeError: no database"),
        ("def app(:\n", "SyntaxError"),
        ("import not_installed_anywhere\n", "not_installed_anywhere"),
        ("import sys\nsys.exit('bye')\n", "bye"),
    ],
    ids=["an exception", "a syntax error", "a missing dependency", "sys.exit"],
)
def test_a_broken_application_shows_its_own_traceback_and_status_3(
    launch: LaunchProgram, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "broken.py").write_text(text)
    host, port = own_address()
    server = launch("-b", f"{host}:{port}", "broken:app")
    assert server.wait() == APPLICATION, server.log.text()
    server.log.until(lambda: server.log.ended, "the end of the log")
    assert said in server.log.text()
    assert "broken.py" in server.log.text()
    assert f'File "{PACKAGE}' not in server.log.text(), "no frame of ours"


# Of the imports in all processes those fail whose numbers are named; the later ones wait for the database, a FIFO.
FAILS = """
import os
with open("imports", "ab", buffering=0) as file:
    file.write(b".")
    number = file.tell()  # after our own dot, also where another process has written one since
if number {fails}:
    raise RuntimeError("no database")
if number > 3:
    open("database").close()
from raw import app
"""


def test_a_start_is_ready_when_each_worker_is_or_has_failed_once(program: StartProgram, tmp_path: Path) -> None:
    """Two of three serve better than none; the status says which one does not, and why."""
    os.mkfifo(database := tmp_path / "database")
    (tmp_path / "mysite.py").write_text(FAILS.format(fails="== 2"))
    server = program("mysite:app", "-w", "3", "--preload", "off")
    server.said.wait("STATUS=generation 1 serves: 2 of 3 workers; worker [123]: .*RuntimeError: no database")
    writing = os.open(database, os.O_RDWR)  # which waits for no reader: fifo(7)
    server.said.wait(r"(?m)^STATUS=generation 1 serves: 3 workers$")
    os.close(writing)
    assert server.stop() == 0


def test_a_start_in_which_no_worker_serves_ends_with_one_traceback_and_status_3(
    launch: LaunchProgram, tmp_path: Path
) -> None:
    (tmp_path / "mysite.py").write_text(FAILS.format(fails="> 0"))
    host, port = own_address()
    server = launch(*RAW, "-b", f"{host}:{port}", "-w", "3", "--preload", "off", "mysite:app")
    assert server.wait() == APPLICATION, server.log.text()
    server.log.until(lambda: server.log.ended, "the end of the log")
    assert server.log.text().count("Traceback") == 1, server.log.text()
    assert (tmp_path / "imports").stat().st_size >= 3, "each has been tried"


def test_check_config_says_ok_or_why_not(launch: LaunchProgram, tmp_path: Path) -> None:
    fine = launch(*RAW, "--check-config", "raw:app")
    assert fine.wait() == 0, fine.log.text()
    wrong = launch(*RAW, "--check-config", "raw:ap")
    assert wrong.wait() == USER
    (tmp_path / "broken.py").write_text("1 / 0\n")
    broken = launch("--check-config", "broken:app")
    assert broken.wait() == APPLICATION


def test_print_config_says_where_each_value_comes_from(launch: LaunchProgram) -> None:
    server = launch("--print-config", "-w", "3", "raw:app", environ={"FORKSERVER_THREADS": "2"})
    assert server.wait() == 0
    server.output.until(lambda: server.output.ended, "the end of the output")
    text = server.output.text()
    assert "workers = 3" in text
    assert "--workers" in text
    assert "FORKSERVER_THREADS" in text


def test_version_and_help_are_output_and_not_a_log(launch: LaunchProgram) -> None:
    for flag, word in (("--version", "forkserver"), ("--help", "--workers")):
        server = launch(flag)
        assert server.wait() == 0
        server.output.until(lambda ran=server: ran.output.ended, "the end of the output")
        assert word in server.output.text()
        assert server.log.text() == ""
