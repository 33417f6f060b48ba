"""SIGHUP: the next code serves, and nobody who asks meanwhile loses a request."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness import BOUND
from harness.gate import Gate
from harness.load import Load
from harness.processes import wait_gone
from harness.program import StartProgram

SOURCE = """
import os
{before}
BODY = b"{version}"

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
"""


def release(folder: Path, version: int, before: str = "") -> None:
    """Put release ``version`` in place at once, as a deploy does."""
    fresh = folder / "release.py.new"
    fresh.write_text(SOURCE.format(version=version, before=before))
    fresh.rename(folder / "release.py")


def versions(answers) -> set[int]:
    return {int(answer.body) for answer in answers}


def test_reloads_in_a_row_under_load_lose_nothing(program: StartProgram, tmp_path: Path, record_property) -> None:
    """And once the log says that generation N serves, no answer comes from N-1, on no connection."""
    release(tmp_path, 1)
    server = program("release:app", "-w", "4")
    with Load(server.address, clients=16) as load:
        load.more(1000)
        for version in range(2, 12):
            since = server.log.mark()
            release(tmp_path, version)
            server.send(signal.SIGHUP)
            serves = server.log.wait(rf"generation {version} serves", since)
            load.more(200)
            assert versions(load.after(serves.at)) == {version}
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}
    assert versions(load.answers) == set(range(1, 12))
    assert len(server.workers()) == 4
    record_property("longest wait, ms", round(load.longest() * 1000, 1))
    print(f"10 reloads, {len(load.answers)} answers, none lost, longest wait {load.longest() * 1000:.1f} ms")
    assert server.stop() == 0


@pytest.fixture
def slow_import(tmp_path: Path):
    """An import that says that it began and ends when the test says so."""
    for name in ("began", "go_on"):
        os.mkfifo(tmp_path / name)
    ends = {name: os.open(tmp_path / name, os.O_RDWR) for name in ("began", "go_on")}
    yield ends, f"open({str(tmp_path / 'began')!r}, 'w').write('.'); open({str(tmp_path / 'go_on')!r}).read(1)"
    for end in ends.values():
        os.close(end)


def test_nobody_waits_for_an_import(program: StartProgram, tmp_path: Path, slow_import) -> None:
    """The old generation serves until the new one is ready, however long that takes."""
    ends, before = slow_import
    release(tmp_path, 1)
    server = program("release:app", "-w", "4")
    with Load(server.address, clients=16) as load:
        load.more(100)
        release(tmp_path, 2, before)
        since = server.log.mark()
        server.send(signal.SIGHUP)
        os.read(ends["began"], 1)
        load.more(5000)
        assert versions(load.answers) == {1}
        os.write(ends["go_on"], b".")
        serves = server.log.wait("generation 2 serves", since)
        load.more(200)
    assert load.lost == []
    assert versions(load.after(serves.at)) == {2}


def test_a_hup_during_a_reload_is_remembered(program: StartProgram, tmp_path: Path, slow_import) -> None:
    """The files changed again while the first reload read them; the last HUP must win."""
    ends, before = slow_import
    release(tmp_path, 1)
    server = program("release:app", "-w", "2")
    release(tmp_path, 2, before)
    server.send(signal.SIGHUP)
    os.read(ends["began"], 1)
    server.send(signal.SIGHUP)
    release(tmp_path, 3)
    os.write(ends["go_on"], b".")
    server.log.wait("generation 3 serves")
    with server.connect() as wire:
        assert wire.get().text == "3"


def test_a_symlink_switched_to_a_new_release_is_followed(program: StartProgram, tmp_path: Path) -> None:
    """Deploys switch `current`; a process that stays in the old folder would load the old code for ever."""
    for version in (1, 2):
        (tmp_path / f"r{version}").mkdir()
        release(tmp_path / f"r{version}", version)
    current = tmp_path / "current"
    current.symlink_to("r1")
    server = program("release:app", "-w", "2", "--chdir", str(current))
    with server.connect() as wire:
        assert wire.get().text == "1"
    fresh = tmp_path / "current.new"
    fresh.symlink_to("r2")
    fresh.rename(current)
    server.reload()
    with server.connect() as wire:
        assert wire.get().text == "2"


def test_modules_of_a_relative_pythonpath_come_from_the_release_that_the_directory_leads_to(
    program: StartProgram, tmp_path: Path
) -> None:
    """The interpreter made the entry absolute at the start; new code would meet the modules of the old release."""
    for version in (1, 2):
        (tmp_path / f"r{version}" / "src").mkdir(parents=True)
        (tmp_path / f"r{version}" / "src" / "part.py").write_text(f"VERSION = {version}\n")
        release(tmp_path / f"r{version}", version, f"from part import VERSION\nassert VERSION == {version}")
    current = tmp_path / "current"
    current.symlink_to("r1")
    server = program("release:app", cwd=current, environ={"PYTHONPATH": "src", "PWD": str(current)})
    current.unlink()
    current.symlink_to("r2")
    server.reload()
    with server.connect() as wire:
        assert wire.get().text == "2"


def test_the_old_processes_are_gone_when_the_new_ones_serve(program: StartProgram, tmp_path: Path) -> None:
    release(tmp_path, 1)
    server = program("release:app", "-w", "2")
    old = [member.pid for member in server.family()]
    server.reload()
    for pid in old:
        assert wait_gone(pid, BOUND)
    assert {member.generation for member in server.family()} == {2}


def test_the_request_in_flight_is_answered_by_the_code_that_began_it(program: StartProgram, gate: Gate) -> None:
    """A retiring worker finishes what it holds; the roll does not cut it off."""
    server = program("raw:app", "-w", "1", environ=gate.environ)
    (old,) = server.workers()
    with server.connect() as wire:
        wire.ask("/gate")
        gate.wait_for(1)
        since = server.log.mark()
        server.send(signal.SIGHUP)
        server.until(lambda: server.workers(generation=2), "a worker of generation 2")
        gate.open()
        answer = wire.answer()
        assert answer.text == f"hello from {old.pid}"
    server.log.wait("generation 2 serves", since)


def test_a_reload_reads_the_settings_again(program: StartProgram, tmp_path: Path) -> None:
    (tmp_path / "forkserver.toml").write_text("workers = 1\n")
    release(tmp_path, 1)
    server = program("release:app")
    assert len(server.workers()) == 1
    (tmp_path / "forkserver.toml").write_text("workers = 3\n")
    server.reload()
    server.until(lambda: len(server.workers(generation=2)) == 3, "three workers")


def test_systemd_is_told_of_a_reload_in_one_datagram(program: StartProgram, tmp_path: Path) -> None:
    """RELOADING=1 and its time in two datagrams, or in wall time, hang `systemctl reload` (sd_notify(3))."""
    release(tmp_path, 1)
    server = program("release:app")
    since = server.said.mark()
    server.reload()
    reloading = server.said.wait("RELOADING=1", since).text.splitlines()
    (stamp,) = [line for line in reloading if line.startswith("MONOTONIC_USEC=")]
    assert int(stamp.partition("=")[2]) > 0
    server.said.wait(r"(?m)^READY=1$", since)


def test_a_generation_is_the_kernels_first_choice_until_it_serves(program: StartProgram, tmp_path: Path) -> None:
    """oom_score_adj, proc(5): where memory runs out during a reload, what serves is spared."""
    reads = "open('at-import', 'a').write(open('/proc/self/oom_score_adj').read())"
    release(tmp_path, 1, before=reads)
    server = program("release:app", "-w", "2", "--preload", "on")
    own = int(Path(f"/proc/{server.pid}/oom_score_adj").read_text())
    server.send(signal.SIGHUP)
    server.log.wait("generation 2 serves")
    assert (tmp_path / "at-import").read_text().split() == [str(own + 100), "1000"]
    server.reload()  # what follows from the news of before has been done by then
    found = {Path(f"/proc/{each.pid}/oom_score_adj").read_text() for each in server.workers(generation=3)}
    assert found == {f"{own + 100}\n"}
