"""By whose rights a path is opened, and what is refused there."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from forkserver.errors import ForkserverError
from forkserver.linux.files import trusted_paths
from forkserver.linux.files.file_permissions import actor_of
from forkserver.linux.files.trusted_files import open_for_append, open_trusted, readable
from forkserver.linux.files.trusted_paths import UntrustedPathError, find
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import unix_socket
from forkserver.logs.error_log import ErrorLog
from forkserver.master.resources.pidfile import PidFile
from harness import BOUND, reach
from harness.intruder import INTRUDER, give, swapping

as_root = pytest.mark.as_root
ATTEMPTS = 60  # with root's rights one in six went wrong


@pytest.fixture
def public() -> Iterator[Path]:
    with reach.public_folder() as made:
        yield made


@pytest.fixture
def foreign(public: Path) -> Path:
    """A folder of another user's."""
    folder = public / "foreign"
    folder.mkdir()
    give(folder)
    return folder


def appended(path: Path, service: int = -1) -> os.stat_result:
    """What a log at ``path`` is written to."""
    number = open_for_append(str(path), 0o640, service)
    try:
        os.write(number, b"line\n")
        return os.fstat(number)
    finally:
        os.close(number)


def refusal(path: Path) -> str:
    with pytest.raises(UntrustedPathError) as caught:
        appended(path)
    return str(caught.value)


# Folders that only root may write: what is there was meant


def test_a_new_log_is_ours_and_has_its_mode(tmp_path: Path) -> None:
    found = appended(tmp_path / "log")
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o640)


def test_links_are_followed_to_the_file(tmp_path: Path) -> None:
    """/var/run, a folder named current, a log that is kept elsewhere."""
    (tmp_path / "real").mkdir()
    (tmp_path / "current").symlink_to("real")
    (tmp_path / "real" / "log").symlink_to("../elsewhere")
    appended(tmp_path / "current" / "log")
    assert (tmp_path / "elsewhere").read_text() == "line\n"


def test_the_folder_above_is_that_of_the_links_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel has it, and the shell's `cd` not."""
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/1")
    monkeypatch.chdir(tmp_path)
    number = open_for_append("current/../log", 0o640)
    os.close(number)
    assert sorted(os.listdir("releases")) == ["1", "log"]


def test_a_circle_of_links_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        appended(tmp_path / "a")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        appended(tmp_path / "file" / "log")


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


def test_what_lies_in_a_folder_of_proc_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel alone follows /proc/self/cwd."""
    monkeypatch.chdir(tmp_path)
    appended(Path("/proc/self/cwd/log"))
    assert (tmp_path / "log").read_text() == "line\n"


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


def test_nothing_is_left_open_where_a_folder_is_missing(tmp_path: Path) -> None:
    """The rule about descriptors in conftest sees it."""
    with pytest.raises(FileNotFoundError):
        find(str(tmp_path / "missing" / "log"))


# Folders of another user's: that user's rights, and regular files with one name


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
@pytest.mark.parametrize("target", ["file", "missing"])
def test_a_link_that_a_user_put_there_is_refused(foreign: Path, public: Path, target: str) -> None:
    (public / "file").write_text("root's")
    (foreign / "log").symlink_to(public / target)
    give(foreign / "log")
    assert refusal(foreign / "log") == (
        f"a symbolic link, and nobody owns {foreign}; name one in a folder that only root may write"
    )
    assert os.listdir(public) == ["file", "foreign"] or sorted(os.listdir(public)) == ["file", "foreign"]
    assert (public / "file").read_text() == "root's"


@as_root
def test_a_hard_link_that_a_user_put_there_is_refused(foreign: Path) -> None:
    (foreign / "precious").write_text("")
    give(foreign / "precious")
    os.link(foreign / "precious", foreign / "log")
    assert refusal(foreign / "log").startswith(f"a file with 2 names, and nobody owns {foreign}; name one in")


@as_root
@pytest.mark.parametrize("reader", [False, True])
def test_a_fifo_that_a_user_put_there_is_refused_and_waits_for_nobody(foreign: Path, reader: bool) -> None:
    os.mkfifo(foreign / "log")
    give(foreign / "log")
    number = os.open(foreign / "log", os.O_RDONLY | os.O_NONBLOCK) if reader else -1
    try:
        assert refusal(foreign / "log").startswith(f"not a regular file, and nobody owns {foreign}; name one in")
    finally:
        if reader:
            os.close(number)


@as_root
def test_a_file_that_the_user_may_not_write_is_refused_with_the_way_out(foreign: Path) -> None:
    """Root's own, of a start before: whether it is still the file that root made, nobody knows."""
    (foreign / "log").write_text("root's")
    (foreign / "log").chmod(0o640)
    assert refusal(foreign / "log") == (
        f"permission denied for nobody (nobody owns {foreign}, so it is opened with the rights of that user); give the "
        "file to nobody, or name one in a folder that only root may write"
    )


@as_root
def test_a_users_link_in_the_middle_is_followed_with_that_users_rights(foreign: Path, public: Path) -> None:
    """A deploy account's `current` goes on working, and leads to nothing that the user may not write."""
    (public / "root").mkdir(mode=0o755)
    (foreign / "release").mkdir()
    (foreign / "current").symlink_to("release")
    (foreign / "trap").symlink_to(public / "root")
    give(foreign / "release", foreign / "current", foreign / "trap")
    assert appended(foreign / "current" / "log").st_uid == INTRUDER.pw_uid
    assert "permission denied for nobody" in refusal(foreign / "trap" / "log")
    assert os.listdir(public / "root") == []


@as_root
def test_a_link_of_a_users_in_a_trusted_folder_has_that_users_rights(public: Path) -> None:
    """Who may change the link chooses the file."""
    (public / "link").symlink_to(public / "log")
    give(public / "link")
    with pytest.raises(UntrustedPathError, match=rf"permission denied for nobody \(nobody owns {public}/link"):
        appended(public / "link")


@as_root
def test_rights_pass_to_the_services_user_alone(foreign: Path, public: Path) -> None:
    """/srv/app is a deploy account's, /srv/app/run the application's; no other user's folder is in the game."""
    service = 12345
    (foreign / "run").mkdir()
    os.chown(foreign / "run", service, service)
    assert appended(foreign / "run" / "log", service).st_uid == service
    with pytest.raises(UntrustedPathError, match="permission denied for nobody"):
        appended(foreign / "run" / "other", service + 1)


@as_root
def test_a_shared_folder_of_roots_keeps_its_logs(public: Path) -> None:
    """Ubuntu's /var/log is group syslog's to write."""
    public.chmod(0o775)
    assert appended(public / "log").st_uid == 0
    assert appended(public / "log").st_uid == 0
    give(public / "log")
    assert appended(public / "log", service=INTRUDER.pw_uid).st_uid == INTRUDER.pw_uid
    assert refusal(public / "log") == (
        f"it belongs to nobody, and others than root may write {public}; name one in a folder that only root may write"
    )
    (public / "link").symlink_to("log")
    assert refusal(public / "link").startswith(f"a symbolic link, and others than root may write {public}; ")


@as_root
def test_roots_own_folder_in_a_sticky_one_is_trusted_and_in_a_shared_one_is_not(public: Path) -> None:
    """Nobody else can rename what root has in /tmp."""
    public.chmod(0o1777)
    (public / "own").mkdir()
    with find(str(public / "own" / "log")) as place:
        assert not place.guarded
    public.chmod(0o777)
    with find(str(public / "own" / "log")) as place:
        assert (place.guarded, place.replaceable, place.actor) == (True, True, None)


@as_root
def test_a_file_is_read_with_the_rights_of_who_may_change_it(foreign: Path, public: Path) -> None:
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
        assert name == str(public / "key")


@as_root
def test_a_users_file_that_is_larger_than_any_key_is_refused_before_it_is_in_memory(foreign: Path) -> None:
    """It costs its owner nothing (truncate -s), and the reading master all that the machine has."""
    (foreign / "key").touch()
    give(foreign / "key")
    os.truncate(foreign / "key", 1 << 40)
    refused = pytest.raises(UntrustedPathError, match=f"^a file of 16 MiB or more, and nobody owns {foreign}; ")
    with refused, readable(str(foreign / "key")):
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
def test_another_thread_keeps_roots_rights(foreign: Path) -> None:
    """The identity is the thread's: signals, control clients and psutil go on as root."""
    acting, seen = threading.Event(), threading.Event()

    def look() -> None:
        assert acting.wait(BOUND)
        os.close(os.open("/etc/shadow", os.O_RDONLY))
        seen.set()

    thread = threading.Thread(target=look)
    thread.start()
    with find(str(foreign / "x")) as place, place.credentials():
        assert place.actor == actor_of(INTRUDER.pw_uid)
        with pytest.raises(PermissionError):
            os.open("/etc/shadow", os.O_RDONLY)
        acting.set()
        thread.join()
    assert seen.is_set()


# Files that root reads although nobody named them


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


# While the user renames: root's files stay root's


def facts(folder: Path) -> dict[str, tuple[int, ...]]:
    """All about each file but when it was read, which every user may do."""
    found = {name: os.lstat(folder / name) for name in os.listdir(folder)}
    return {name: (*each[:7], each.st_mtime_ns, each.st_ctime_ns) for name, each in found.items()}


def _bind(run: Path) -> None:
    made = unix_socket.bind_unix(str(run / "name"), 16, 0o660, Credentials(INTRUDER.pw_uid, INTRUDER.pw_gid))
    made.unlink()
    made.close()


def _write_pid(run: Path) -> None:
    PidFile(str(run / "name"), service=INTRUDER.pw_uid).remove()


def _log(run: Path) -> None:
    os.close(ErrorLog(str(run / "name"), "info", service=INTRUDER.pw_uid).fileno())


@as_root
@pytest.mark.process
@pytest.mark.parametrize("make", [_bind, _write_pid, _log])
@pytest.mark.parametrize("place", ["name", "run"])
def test_a_rename_loop_wins_nothing_of_roots(
    public: Path, foreign: Path, make: Callable[[Path], None], place: str
) -> None:
    """The folder, or the name in it, is a link to root's in one moment and the user's own in the next."""
    precious = public / "root"
    precious.mkdir()
    for name in ("name", "name.1"):
        (precious / name).write_text("root's")
    before = facts(precious)
    (foreign / "run").mkdir()
    (foreign / "link").symlink_to(precious)
    (foreign / "run" / "link").symlink_to(precious / "name")
    (foreign / "run" / "name").touch()
    give(*(foreign / each for each in ("run", "link", "run/link", "run/name")))
    names = (foreign, "run", "link") if place == "run" else (foreign / "run", "name", "link")
    with swapping(*names):
        for _ in range(ATTEMPTS):
            with suppress(ForkserverError):  # told, as often as the user is in the way
                make(foreign / "run")
    assert facts(precious) == before
    assert {(precious / name).read_text() for name in before} == {"root's"}


def test_an_ordinary_user_is_guarded_and_acts_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root there is no other identity to take; a link in a folder that all may write is refused yet."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(trusted_paths, "our_uids", lambda: (0, os.getuid()))
    tmp_path.chmod(0o775)
    with find(str(tmp_path / "log")) as place:
        assert (place.guarded, place.actor) == (False, None)
    tmp_path.chmod(0o777)
    (tmp_path / "log").symlink_to("elsewhere")
    with find(str(tmp_path / "log")) as place:
        assert (place.guarded, place.actor) == (True, None)
        with pytest.raises(UntrustedPathError, match="a symbolic link"):
            place.open(os.O_WRONLY | os.O_CREAT)
