"""Children that the master did not start: named while they live, and no others."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from forkserver.linux import process_info


@pytest.mark.process
def test_a_living_child_is_named_and_one_that_has_ended_is_not() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as living, subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        found = process_info.living()
        living.kill()
    assert living.pid in found
    assert ended.pid not in found, "it only waits to be reaped"


@pytest.mark.process
def test_a_fork_of_this_process_is_no_orphan() -> None:
    """It has the master's own command line, and is about to end (syscalls.close_in_child)."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        assert pid not in process_info.living()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def proc(folder: Path, **stats: str) -> str:
    """A /proc of ours alone and of the children with these lines of stat; that of pid 9 has ended since."""
    (folder / "self").mkdir()
    (folder / "self" / "cmdline").write_text("master")
    for pid, stat in {**stats, "p9": ""}.items():
        (folder / pid[1:]).mkdir()
        if stat:
            (folder / pid[1:] / "stat").write_text(stat)
            (folder / pid[1:] / "cmdline").write_text("other")
    return str(folder)


def test_a_name_with_brackets_and_blanks_does_not_hide_a_child(tmp_path: Path) -> None:
    us = os.getpid()
    found = proc(tmp_path, p7=f"7 (a) Z 1) S {us} 1", p8=f"8 (b) Z {us} 1", p10="10 (c) S 1 1")
    assert process_info.living(found) == [7]


def test_without_proc_no_child_is_known(tmp_path: Path) -> None:
    assert process_info.living(str(tmp_path / "none")) == []


def test_the_resident_set_and_the_share_are_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "statm").write_text("900 20 10 1 0 5 0\n")
    (tmp_path / "7" / "smaps_rollup").write_text(
        "5-7 ---p 00000000 00:00 0  [rollup]\nRss:  80 kB\nPss:  12 kB\nPss_Dirty:  9 kB\nSwapPss:  3 kB\n"
    )
    assert process_info.resident(7, str(tmp_path)) == 20 * mmap.PAGESIZE
    assert process_info.proportional(7, str(tmp_path)) == 12 * 1024


def test_the_share_of_this_process_is_a_part_of_its_resident_set() -> None:
    assert 0 < process_info.proportional(os.getpid()) <= process_info.resident(os.getpid()) * 1.2


def test_a_mapping_is_known_by_its_rights_and_its_path(tmp_path: Path) -> None:
    """A path may have blanks in it; memory without a file has none."""
    path = tmp_path / "a file"
    path.write_bytes(bytes(mmap.PAGESIZE))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0), mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE):
        found = process_info.memory_mappings()
    assert [each.rights for each in found if each.path == str(path)] == ["rw-s"]
    assert "" in {each.path for each in found}
    assert all("-" in each.range for each in found)


# What keeps a killed process from ending


def threads(folder: Path, *statuses: str, wchan: str = "0") -> str:
    """A /proc of process 7, whose threads have these lines of status, and of the debugger 9."""
    for number, status in enumerate(statuses, 7):
        thread = folder / "7" / "task" / str(number)
        thread.mkdir(parents=True)
        (thread / "status").write_text(f"Name:\tx\n{status}\n")
        (thread / "wchan").write_text(wchan)
    (folder / "9").mkdir()
    (folder / "9" / "comm").write_text("gdb\n")
    return str(folder)


def test_a_tracer_that_holds_a_killed_process_is_named(tmp_path: Path) -> None:
    found = threads(tmp_path, "State:\tZ (zombie)\nTracerPid:\t9")
    assert process_info.why_unended(7, found) == "process 9 (gdb) traces it, as a debugger does; end that process"


@pytest.mark.parametrize(("wchan", "named"), [("nfs_wait_on_request", " (nfs_wait_on_request)"), ("0", "")])
def test_a_thread_that_no_signal_reaches_is_told_with_its_place(tmp_path: Path, wchan: str, named: str) -> None:
    """The first thread has ended already."""
    sleeping = "State:\tD (disk sleep)\nTracerPid:\t0"
    found = threads(tmp_path, "State:\tZ (zombie)\nTracerPid:\t0", sleeping, wchan=wchan)
    told = process_info.why_unended(7, found)
    assert told.startswith(f"it waits in the kernel{named} where no signal reaches it; mostly a disk or a network file")


def test_any_other_state_is_told_as_the_kernel_names_it(tmp_path: Path) -> None:
    assert process_info.why_unended(7, threads(tmp_path, "State:\tR (running)")) == "its state is R (running)"
    assert process_info.why_unended(8, str(tmp_path)) == "its state cannot be read"


# What listens at an address

LISTEN = (
    "import socket, sys; s = socket.socket(socket.AF_INET if sys.argv[1:] == ['tcp'] else socket.AF_UNIX); "
    "s.bind(('127.0.0.1', 0) if sys.argv[1:] == ['tcp'] else sys.argv[1]); s.listen(); "
    "print(s.getsockname(), flush=True); input()"
)


@pytest.mark.process
def test_what_listens_is_named_with_its_command_line(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    for argument in ("tcp", str(tmp_path / "a socket")):
        with subprocess.Popen([sys.executable, "-c", LISTEN, argument], stdin=pipe, stdout=pipe, text=True) as holder:
            assert holder.stdout is not None
            name = holder.stdout.readline()
            if argument == "tcp":
                port = int(name.rstrip().rstrip(")").split(",")[1])
                found = process_info.listening_at_port("127.0.0.1", port)
                assert process_info.listening_at_port("0.0.0.0", port) == found, "every address meets it"
                assert process_info.listening_at_port("::", port) == found
                assert process_info.listening_at_port("127.0.0.9", port) == "", "another address does not"
            else:
                found = process_info.listening_at_path(argument)
            holder.communicate("\n")
        assert found.startswith(f"pid {holder.pid} ({sys.executable} -c import socket")


def test_a_listener_of_this_process_is_not_named() -> None:
    """What is known of it, the caller knows."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert process_info.listening_at_port("127.0.0.1", listening.getsockname()[1]) == ""


HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROW = "   0: {}:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4711 1 0 100 0\n"


def test_a_listener_of_another_user_is_told_by_that_user(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(HEADING + ROW.format("0100007F"))
    assert process_info.listening_at_port("127.0.0.1", 8000, str(tmp_path)) == "a process of user id 33"
    assert process_info.listening_at_port("127.0.0.1", 8001, str(tmp_path)) == ""


def test_the_command_line_of_another_users_process_is_not_read(tmp_path: Path) -> None:
    """It is that process's memory: a page that it never delivers keeps the reader waiting."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(HEADING + ROW.format("00000000"))
    (tmp_path / "12/fd").mkdir(parents=True)
    os.symlink("socket:[4711]", tmp_path / "12/fd/3")
    (tmp_path / "12/status").write_text(f"Uid:\t{os.geteuid() + 1}\t0\t0\t0\n")
    (tmp_path / "12/stat").write_text("12 (a) name) S 1 1 1\n")
    (tmp_path / "12/comm").write_text("nginx\x1b[2J\n")
    os.mkfifo(tmp_path / "12/cmdline")
    assert process_info.listening_at_port("127.0.0.1", 8000, str(tmp_path)) == "pid 12 (nginx\\x1b[2J)"


@pytest.mark.parametrize(
    ("state", "threads", "how"),
    [
        ("S", 2, ""),
        ("t", 1, process_info.STOPPED),
        ("T", 1, process_info.STOPPED),
        ("Z", 2, process_info.ENDING),
        ("Z", 1, ""),
    ],
)
def test_a_process_whose_main_thread_stands_is_known(state: str, threads: int, how: str, tmp_path: Path) -> None:
    """One that has ended and waits to be reaped has its main thread alone."""
    for number in range(threads):
        (tmp_path / f"7/task/{7 + number}").mkdir(parents=True)
    (tmp_path / "7/stat").write_text(f"7 (a) t) {state} 1 1 1\n")
    assert process_info.standing(7, str(tmp_path)) == how
    assert process_info.standing(8, str(tmp_path)) == ""
