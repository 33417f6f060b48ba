"""The two logs, as an operator reads them."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import PIPE_BUF

import pytest

from forkserver.cli import control_client
from harness import BOUND
from harness.clients import get
from harness.gate import Gate
from harness.program import APPS, MODULE, LaunchProgram, StartProgram, listener

EVENT = re.compile(
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d (debug|info|warning|error|critical) "
    r"(master|template gen=\d+|worker=\d+ gen=\d+) pid=\d+ \S.*$"
)
COMBINED = re.compile(
    r"^127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    r'"GET /pid HTTP/1\.1" 200 \d+ "-" "probe \\x22a\\x22"$'
)


def test_each_event_is_a_line_that_names_its_process(program: StartProgram) -> None:
    server = program("raw:app", "-w", "2")
    assert server.stop() == 0
    assert server.log.entries
    for entry in server.log.entries:
        assert EVENT.match(entry.text), entry.text


def test_the_banner_says_what_is_served_where_and_how_to_reload_and_stop(program: StartProgram) -> None:
    server = program("raw:app", "-w", "2")
    host, port = server.address
    server.log.wait("kill -HUP")  # systemd hears of it first
    text = server.log.text()
    for word in ("raw:app", f"{host}:{port}", "2 workers", "MiB", "HUP", "TERM"):
        assert word in text


def test_the_access_log_is_off_by_default_and_combined_where_asked_for(program: StartProgram) -> None:
    silent = program("raw:app")
    get(silent.address, "/pid")
    assert silent.stop() == 0
    assert silent.output.text() == ""
    server = program("raw:app", "--access-log", "-")
    with server.connect() as wire:
        wire.get("/pid", headers='User-Agent: probe "a"\r\n')
    assert COMBINED.match(server.output.wait("GET /pid").text), server.output.text()


def test_every_line_of_many_workers_is_whole(program: StartProgram) -> None:
    """Workers share one pipe; a write longer than PIPE_BUF would mix their lines (pipe(7))."""
    server = program("raw:app", "-w", "4", "--access-log", "-")
    for _ in range(25):
        with server.connect() as wire:
            for _ in range(20):
                wire.get("/pid", headers='User-Agent: probe "a"\r\n')
    assert server.stop() == 0
    server.output.until(lambda: server.output.ended, "the end of the output")
    lines = [entry.text for entry in server.output.entries]
    assert len(lines) == 500
    assert all(COMBINED.match(line) for line in lines)


def test_what_the_application_prints_is_not_held_back(program: StartProgram) -> None:
    """stdout is a pipe here, as under systemd, and a block buffer would keep it for hours."""
    server = program("raw:app")
    get(server.address, "/print")
    server.output.wait("printed by the application")


@pytest.mark.parametrize("threads", ["1", "4"])
def test_wsgi_errors_is_passed_on_to_the_error_log_as_it_is(program: StartProgram, threads: str) -> None:
    """With no label, at every level, and what has no line feed with the end of its request."""
    server = program("raw:app", "--log-level", "critical", "--threads", threads)
    get(server.address, "/errors")
    server.log.wait("(?m)^said to wsgi.errors$")
    get(server.address, "/unended")
    server.log.wait("(?m)^unended$")


def test_wsgi_errors_goes_to_the_file_that_the_error_log_is(program: StartProgram, tmp_path: Path) -> None:
    server = program("raw:app", "--error-log", str(tmp_path / "log"))
    get(server.address, "/errors")
    assert "\nsaid to wsgi.errors\n" in (tmp_path / "log").read_text()


def test_a_blocking_handler_ends_the_lines_of_its_request_too(program: StartProgram) -> None:
    server = program("raw:app", "--handler-class", "own_classes:Blocking")
    get(server.address, "/unended")
    server.log.wait("(?m)^unended$")


@pytest.mark.parametrize("flag", ["--error-log", "--access-log"])
def test_usr1_opens_a_rotated_log_again(program: StartProgram, tmp_path: Path, flag: str) -> None:
    """logrotate renames the file first; all processes must write to the new one afterwards."""
    path, rotated = tmp_path / "the.log", tmp_path / "the.log.1"
    server = program("raw:app", "-w", "2", flag, str(path))
    get(server.address, "/fail")
    path.rename(rotated)
    told = server.said.mark()
    server.send(signal.SIGUSR1)
    server.said.wait("STATUS=.*log", told)
    since = rotated.stat().st_size
    for _ in range(8):
        get(server.address, "/fail")
    assert server.stop() == 0
    assert rotated.stat().st_size == since
    assert path.stat().st_size > 0


WAITS_AND_FAILS = """
import os
with open(os.environ["GATE_ARRIVALS"], "wb", 0) as arrivals, open(os.environ["GATE_PASSES"], "rb", 0) as passes:
    arrivals.write(b".")
    passes.read(1)
raise RuntimeError("no database")
"""


def test_a_rotation_during_a_reload_to_other_logs_that_fails_reaches_what_serves(
    program: StartProgram, tmp_path: Path, gate: Gate
) -> None:
    """The workers of before would go on in the log of the refused reload, and the master in the renamed file."""

    def configure(name: str) -> None:
        (tmp_path / "forkserver.toml").write_text(f'access_log = "{name}"\n')

    configure("first.log")
    (tmp_path / "mysite.py").write_text("from raw import app\n")
    server = program("mysite:app", "-w", "2", environ=gate.environ)
    configure("next.log")
    (tmp_path / "mysite.py").write_text(WAITS_AND_FAILS)
    since = server.log.mark()
    server.send(signal.SIGHUP)
    gate.wait_for(1)
    (tmp_path / "first.log").rename(tmp_path / "first.log.1")
    server.send(signal.SIGUSR1)
    server.log.wait("log files are opened again", since)
    gate.open()
    server.log.wait("reload failed.*no database", since)
    get(server.address, "/hello")
    assert server.stop() == 0
    assert "/hello" in (tmp_path / "first.log").read_text()
    assert (tmp_path / "next.log").read_text() == ""


def test_the_log_of_what_serves_shows_why_a_reload_to_another_log_fails(program: StartProgram, tmp_path: Path) -> None:
    """Also where a worker has stated it already, in the log of the settings that are refused."""

    def configure(name: str) -> None:
        (tmp_path / "forkserver.toml").write_text(f'error_log = "{name}"\n')

    configure("first.log")
    (tmp_path / "mysite.py").write_text("from raw import app\n")
    server = program("mysite:app", "--preload", "off")
    configure("next.log")
    (tmp_path / "mysite.py").write_text('raise RuntimeError("no database")\n')
    told = server.said.mark()
    server.send(signal.SIGHUP)
    server.said.wait("STATUS=reload failed", told)
    assert server.stop() == 0
    assert "\n  RuntimeError: no database\n" in (tmp_path / "first.log").read_text()
    assert "RuntimeError: no database" in (tmp_path / "next.log").read_text()


def test_usr2_to_a_worker_writes_every_threads_stack(program: StartProgram, gate: Gate) -> None:
    server = program("raw:app", environ=gate.environ)
    (worker,) = server.workers()
    with server.connect() as wire:
        wire.ask("/gate")
        gate.wait_for()
        os.kill(worker.pid, signal.SIGUSR2)
        server.log.wait(r"raw\.py.* in _gate")
        gate.open()
        assert wire.answer().status == 200


def test_a_call_past_its_timeout_is_named_and_its_worker_replaced(program: StartProgram, gate: Gate) -> None:
    """Who, which request, how old, where it stands, and who killed it: without it the operator guesses."""
    server = program("raw:app", "--timeout", "1", environ=gate.environ)
    (worker,) = server.workers()
    with server.connect() as wire:
        wire.ask("/gate?secret=1")
        gate.wait_for()
        server.log.wait(r"GET /gate\b")
        server.log.wait(r"raw\.py.* in _gate")
        assert wire.answer().status == 504
    server.until(lambda: worker not in server.workers() and server.workers(), "another worker")
    assert "secret" not in server.log.text()


@contextmanager
def stuck_reader(path: Path) -> Iterator[None]:
    """A FIFO that is full, and open for reading in a process that does not read."""
    os.mkfifo(path)
    reading, writing = os.open(path, os.O_RDONLY | os.O_NONBLOCK), os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * PIPE_BUF)
    os.close(writing)
    try:
        yield
    finally:
        os.close(reading)


def test_a_reader_of_the_logs_that_is_stuck_holds_up_neither_answers_nor_reload_nor_stop(
    launch: LaunchProgram, tmp_path: Path
) -> None:
    """Standard output and standard error are pipes that everyone inherits, and their flags stay as they were."""
    redirected = ("sh", "-c", 'exec "$@" >out 2>err', "sh", *MODULE)
    with stuck_reader(tmp_path / "out"), stuck_reader(tmp_path / "err"), listener() as held:
        address = held.getsockname()
        control = str(tmp_path / "control")
        arguments = ("raw:app", "--chdir", str(APPS), "--access-log", "-", "--log-level", "debug", "-w", "2")
        arguments += ("--control-socket", control)
        server = launch(*arguments, listeners=[held], command=redirected, address=address)
        for _ in range(20):
            assert get(address, "/errors").status == 200
        server.send(signal.SIGHUP)
        server.until(lambda: len(server.workers(2)) == 2, "the workers of the next generation")
        lost = control_client.ask(control, {"command": "status"}, BOUND)["lost_log_lines"]
        assert lost >= 20, "lines of workers that have ended, too"
        assert get(address, "/errors").status == 200
        server.send(signal.SIGUSR2)
        server.until(lambda: len(server.workers(3)) == 2, "the workers of the next program")
        assert control_client.ask(control, {"command": "status"}, BOUND)["lost_log_lines"] >= lost
        assert get(address, "/errors").status == 200
        assert server.stop() == 0


def test_fifos_without_a_reader_as_logs_hold_up_neither_start_nor_stop(program: StartProgram, tmp_path: Path) -> None:
    """Whose reader comes later reads what they hold."""
    for name in ("access", "error"):
        os.mkfifo(tmp_path / name)
    server = program("raw:app", "--access-log", str(tmp_path / "access"), "--error-log", str(tmp_path / "error"))
    assert get(server.address, "/errors").status == 200
    reading = os.open(tmp_path / "error", os.O_RDONLY | os.O_NONBLOCK)
    server.send(signal.SIGUSR1)
    server.said.wait("STATUS=.*log")
    assert get(server.address, "/errors").status == 200
    assert server.stop() == 0
    log = os.read(reading, 1 << 20).decode()
    os.close(reading)
    assert re.search(r"info master pid=\d+ serving raw:app at ", log)
    assert "\nsaid to wsgi.errors\n" in log


def test_a_reload_changes_the_form_of_both_logs(program: StartProgram, tmp_path: Path) -> None:
    """And a format that cannot be meant changes nothing."""
    settings, access = tmp_path / "settings.toml", tmp_path / "access"
    settings.write_text("")
    server = program("raw:app", "--config", str(settings), "--access-log", str(access))
    get(server.address, "/pid")
    settings.write_text("log_format = 'json'\naccess_log_format = 'json'\n")
    server.send(signal.SIGHUP)
    server.log.wait("generation 2 serves")
    get(server.address, "/pid?after")
    settings.write_text("access_log_format = '%(h)s %(nothing)s'\n")
    server.send(signal.SIGHUP)
    server.log.wait(r"column 7: there is no %\(nothing\)s")
    get(server.address, "/pid?refused")
    assert server.stop() == 0
    first, *others = access.read_text().splitlines()
    assert '"GET /pid HTTP/1.1" 200' in first
    assert [json.loads(each)["request"] for each in others] == ["GET /pid?after HTTP/1.1", "GET /pid?refused HTTP/1.1"]
    assert {json.loads(each)["generation"] for each in others} == {2}
    found = [json.loads(each) for each in server.log.text().splitlines() if each.startswith("{")]
    said = "\n".join(each["message"] for each in found)
    assert "generation 2 serves" in said
    assert "stopping" in said
    assert {each["source"] for each in found} == {"forkserver"}
