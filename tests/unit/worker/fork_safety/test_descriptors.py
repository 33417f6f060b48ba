"""Descriptors that two processes cannot share, and those that have no state."""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from forkserver.logs.log_file import LogFile
from forkserver.worker.fork_safety.descriptors import descriptors, new_descriptors
from forkserver.worker.fork_safety.finding import Finding
from forkserver.worker.fork_safety.import_watch import ImportWatch

Opens = Callable[[ExitStack, Path], object]


def number_of(made: ExitStack, number: int) -> int:
    made.callback(os.close, number)
    return number


def opened(made: ExitStack, path: Path | str, mode: str = "rb") -> IO[bytes]:
    file: IO[bytes] = made.enter_context(open(path, mode))
    return file


@pytest.fixture
def made() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def found_after(made: ExitStack, folder: Path, opens: Opens, watch: ImportWatch | None = None) -> list[Finding]:
    before = descriptors()
    made.callback(lambda *_: None, opens(made, folder))  # keeps what was opened alive
    return list(new_descriptors(before, watch or ImportWatch()))


@pytest.mark.parametrize(
    ("opens", "named"),
    [
        (lambda made, _: [number_of(made, number) for number in os.pipe()], ["pipe, descriptor "] * 2),
        (lambda made, _: number_of(made, os.eventfd(0)), ["eventfd, descriptor "]),
        (lambda made, _: made.enter_context(select.epoll()), ["epoll instance, descriptor "]),
        (lambda made, _: number_of(made, os.pidfd_open(os.getpid())), ["pidfd, descriptor "]),
        (lambda made, _: number_of(made, os.memfd_create("rows")), ["memfd rows"]),
        (lambda made, folder: opened(made, folder / "file", "wb"), ["file {}/file, open for writing"]),
        (lambda made, folder: opened(made, folder / "there"), ["file {}/there, open for reading"]),
        (lambda made, _: number_of(made, os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)), ["terminal /dev/p"]),
        (lambda made, _: made.enter_context(socket.socket()), ["stream socket"]),
        (
            lambda made, _: made.enter_context(socket.create_server(("127.0.0.1", 0))),
            ["stream socket at 127.0.0.1:"],
        ),
    ],
    ids=["pipe", "eventfd", "epoll", "pidfd", "memfd", "written", "read", "terminal", "socket", "listener"],
)
def test_what_has_a_state_is_named(made: ExitStack, tmp_path: Path, opens: Opens, named: list[str]) -> None:
    (tmp_path / "there").touch()
    found = found_after(made, tmp_path, opens)
    assert len(found) == len(named)
    assert all(str(each).startswith(words.format(tmp_path)) for each, words in zip(found, named, strict=True)), found


@pytest.mark.parametrize(
    "opens",
    [
        lambda made, _: opened(made, os.devnull, "wb"),
        lambda made, _: opened(made, "/dev/urandom"),
        lambda made, folder: number_of(made, os.open(folder, os.O_RDONLY)),
        lambda made, folder: (
            file := opened(made, folder / "there"),
            made.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)),
        ),
    ],
    ids=["null", "random", "directory", "mapped file"],
)
def test_what_has_no_state_is_no_finding(made: ExitStack, tmp_path: Path, opens: Opens) -> None:
    """A mapped file is read without a position."""
    (tmp_path / "there").write_text("rows")
    assert found_after(made, tmp_path, opens) == []


def test_a_locked_file_is_named_as_such(made: ExitStack, tmp_path: Path) -> None:
    """It would be unlocked by the first process that closes it."""

    def lock(made: ExitStack, folder: Path) -> None:
        fcntl.flock(opened(made, folder / "lock", "wb"), fcntl.LOCK_EX)

    assert found_after(made, tmp_path, lock) == [Finding(f"locked file {tmp_path}/lock")]


def test_a_named_pipe_is_no_file(made: ExitStack, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    found = found_after(made, tmp_path, lambda made, folder: number_of(made, os.open(folder / "fifo", os.O_RDWR)))
    assert found == [Finding(f"named pipe {tmp_path}/fifo")]


def test_a_connection_is_named_by_its_peer_and_its_line(made: ExitStack, tmp_path: Path) -> None:
    server = made.enter_context(socket.create_server(("127.0.0.1", 0)))
    watch = ImportWatch()

    def connect(made: ExitStack, _: Path) -> None:
        client = made.enter_context(socket.create_connection(server.getsockname()))
        watch.sockets.add(client, "mysite.db:7")

    found = found_after(made, tmp_path, connect, watch)
    assert found == [Finding(f"stream socket connected to 127.0.0.1:{server.getsockname()[1]}", "mysite.db:7")]


def test_a_file_has_the_line_that_opened_its_name(made: ExitStack, tmp_path: Path) -> None:
    """Also where that was the name of a link to it."""
    (tmp_path / "link").symlink_to("file")
    watch = ImportWatch()
    watch.opened[str(tmp_path / "link")] = "mysite.db:7"
    found = found_after(made, tmp_path, lambda made, folder: opened(made, folder / "link", "wb"), watch)
    assert found == [Finding(f"file {tmp_path}/file, open for writing", "mysite.db:7")]


def test_a_number_that_leads_elsewhere_by_now_is_new(made: ExitStack, tmp_path: Path) -> None:
    number = number_of(made, os.open(os.devnull, os.O_RDONLY))
    before = descriptors()
    assert before[number].target == os.devnull
    with open(tmp_path / "file", "wb") as file:
        os.dup2(file.fileno(), number)
    assert list(new_descriptors(before, ImportWatch())) == [Finding(f"file {tmp_path}/file, open for writing")]


@pytest.mark.parametrize("change", [lambda path: path.rename(f"{path}.1"), Path.unlink], ids=["renamed", "deleted"])
def test_a_file_that_is_renamed_or_deleted_meanwhile_is_not_new(
    made: ExitStack, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """Such as a log that is rotated during the import."""
    opened(made, tmp_path / "file", "wb")
    assert found_after(made, tmp_path, lambda _, folder: change(folder / "file")) == []


def test_a_number_that_is_open_for_writing_by_now_is_new(made: ExitStack, tmp_path: Path) -> None:
    """Also where it leads to the same file."""
    (tmp_path / "file").touch()
    number = opened(made, tmp_path / "file").fileno()
    before = descriptors()
    with open(tmp_path / "file", "wb") as file:
        os.dup2(file.fileno(), number)
    assert list(new_descriptors(before, ImportWatch())) == [Finding(f"file {tmp_path}/file, open for writing")]


def test_an_anonymous_inode_of_another_kind_is_new(made: ExitStack, tmp_path: Path) -> None:
    """All of them may have one inode."""
    number = number_of(made, os.eventfd(0))

    def replace(made: ExitStack, _: Path) -> None:
        with select.epoll() as epoll:
            os.dup2(epoll.fileno(), number)

    assert found_after(made, tmp_path, replace) == [Finding(f"epoll instance, descriptor {number}")]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogFile]:
    log = LogFile(str(tmp_path / "log"), "error_log", 2)
    yield log
    log.close()


def test_a_log_of_ours_that_is_opened_again_meanwhile_is_not_the_applications(
    made: ExitStack, tmp_path: Path, log: LogFile
) -> None:
    def rotate(_: ExitStack, folder: Path) -> None:
        (folder / "log").rename(folder / "log.1")
        log.reopen()

    assert found_after(made, tmp_path, rotate) == []


def test_the_number_of_a_log_that_was_closed_is_the_applications(made: ExitStack, tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        log = LogFile(str(tmp_path / "log"), "error_log", 2)
        number = log.fileno()
        log.close()

        def take(made: ExitStack, _: Path) -> None:
            number_of(made, os.dup2(file.fileno(), number))

        found = found_after(made, tmp_path, take)

    assert found == [Finding(f"file {tmp_path}/file, open for writing")]
