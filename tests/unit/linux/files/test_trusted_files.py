"""Logs, keys and settings are opened by paths that another user may change."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from pathlib import Path

import pytest

from forkserver.linux.files.trusted_files import open_for_append, open_regular, open_trusted, readable
from forkserver.linux.files.trusted_paths import UntrustedPathError
from harness.intruder import INTRUDER, give
from harness.log_files import appended

as_root = pytest.mark.as_root


def test_a_new_log_is_ours_and_has_its_mode(tmp_path: Path) -> None:
    found = appended(tmp_path / "log")
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o640)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/1"])
def test_standard_streams_and_devices_are_opened(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    """As containers name their logs."""
    appended(Path(path))
    assert capfd.readouterr().out == ("" if path == "/dev/null" else "line\n")


def test_a_pipe_as_standard_output_is_opened_by_its_name() -> None:
    reading, writing = os.pipe()
    try:
        appended(Path(f"/proc/self/fd/{writing}"))
        assert os.read(reading, 100) == b"line\n"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_fifo_without_a_reader_is_opened_at_once_and_keeps_what_is_written(tmp_path: Path) -> None:
    """A start must not wait for the reader."""
    os.mkfifo(tmp_path / "fifo")
    number = open_for_append(str(tmp_path / "fifo"), 0o640)
    try:
        assert not os.get_blocking(number)
        os.write(number, b"line\n")
        reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert os.read(reader, 100) == b"line\n"
        finally:
            os.close(reader)
    finally:
        os.close(number)


def test_a_file_is_opened_blocking(tmp_path: Path) -> None:
    number = open_for_append(str(tmp_path / "log"), 0o640)
    try:
        assert os.get_blocking(number)
    finally:
        os.close(number)


@as_root
def test_a_log_in_a_users_folder_is_that_users(foreign: Path) -> None:
    """Also when it is opened again after logrotate's `su` and `create`."""
    before = os.getresuid(), os.getresgid(), os.getgroups()
    first = appended(foreign / "log")
    assert (first.st_uid, first.st_gid) == (INTRUDER.pw_uid, INTRUDER.pw_gid)
    (foreign / "log").rename(foreign / "log.1")
    (foreign / "log").touch(0o640)
    give(foreign / "log")
    assert appended(foreign / "log").st_ino != first.st_ino
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    os.close(os.open("/etc/shadow", os.O_RDONLY))  # root's rights are there again


@as_root
def test_a_file_is_read_with_the_rights_of_the_user_who_may_change_it(foreign: Path, public: Path) -> None:
    """A link to a key that root alone may read would bring it into the workers' memory."""
    (public / "key").write_text("root's")
    (public / "key").chmod(0o600)
    (foreign / "key").symlink_to(public / "key")
    (foreign / "own").write_text("the user's")
    (foreign / "link").symlink_to("own")
    give(foreign / "key", foreign / "own", foreign / "link")
    with pytest.raises(UntrustedPathError, match="permission denied for nobody"), readable(str(foreign / "key")):
        pass
    with readable(str(foreign / "link")) as name:
        assert name.startswith("/proc/self/fd/")
        assert [Path(name).read_text() for _ in range(2)] == ["the user's"] * 2
    with readable(str(public / "key")) as name:
        assert name.startswith("/proc/self/fd/")


@as_root
def test_a_users_file_that_is_larger_than_any_key_is_refused_before_it_is_in_memory(foreign: Path) -> None:
    """It costs its owner nothing (truncate -s), and the reading master all that the machine has."""
    (foreign / "key").touch()
    give(foreign / "key")
    os.truncate(foreign / "key", 1 << 40)
    refused = pytest.raises(UntrustedPathError, match=f"^a file of 16 MiB or more, and nobody owns {foreign}; ")
    with refused, readable(str(foreign / "key")):
        pass


def test_a_file_on_which_its_owner_has_a_lease_is_not_waited_for(
    tmp_path: Path,
) -> None:
    """The kernel would hold whatever opens it for 45 s (fs.lease-break-time), and a master that waits hears nothing."""
    (tmp_path / "key").touch()
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # tells the holder of the other
    holder = os.open(tmp_path / "key", os.O_RDWR)
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(BlockingIOError), readable(str(tmp_path / "key")):
            pass
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, before)


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"), readable(str(tmp_path / "fifo")):
        pass


@as_root
def test_what_a_user_writes_into_a_file_that_is_read_comes_too_late(foreign: Path) -> None:
    """Certificate and key are looked at before OpenSSL reads them."""
    (foreign / "key").write_text("before")
    give(foreign / "key")
    with readable(str(foreign / "key")) as name:
        (foreign / "key").write_text("after")
        assert Path(name).read_text() == "before"


@as_root
def test_only_a_file_of_roots_in_folders_of_roots_is_trusted(public: Path, foreign: Path) -> None:
    (public / "file").write_text("x")
    number = open_trusted(str(public / "file"))
    assert number is not None
    os.close(number)
    for place in (public / "link", foreign / "file"):
        (foreign / "file").touch()
        (public / "link").unlink(missing_ok=True)
        (public / "link").symlink_to(foreign / "file")
        with pytest.raises(UntrustedPathError, match=f"^nobody owns {foreign}; "):
            open_trusted(str(place))
    (public / "file").chmod(0o664)
    with pytest.raises(UntrustedPathError, match=r"^others than root may write it \(mode 0664\); "):
        open_trusted(str(public / "file"))
    give(public / "file")
    with pytest.raises(UntrustedPathError, match=r"^nobody owns it; "):
        open_trusted(str(public / "file"))
    public.chmod(0o777)
    with pytest.raises(UntrustedPathError, match=f"^others than root may write {public}; "):
        open_trusted(str(public / "file"))


def test_a_file_that_is_not_there_is_none_and_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("missing")
    assert open_trusted(str(tmp_path / "missing")) is None
    assert open_trusted(str(tmp_path / "link")) is None
    with pytest.raises(UntrustedPathError, match=r"^it is not a regular file; "):
        open_trusted(str(tmp_path))


def test_a_file_that_a_reload_reads_again_is_a_regular_one(tmp_path: Path) -> None:
    """A FIFO would give its text once, and hold the start until its writer comes."""
    (tmp_path / "file").write_text("text")
    with open(open_regular(str(tmp_path / "file")), encoding="utf-8") as file:
        assert file.read() == "text"
    os.mkfifo(tmp_path / "fifo")
    for refused in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(str(refused))
