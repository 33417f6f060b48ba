"""Which rights a path is opened with, and what is refused there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkserver.linux.files import trusted_paths
from forkserver.linux.files.trusted_paths import UntrustedPathError, find
from harness.intruder import INTRUDER, give
from harness.log_files import appended

as_root = pytest.mark.as_root


def refusal(path: Path) -> str:
    with pytest.raises(UntrustedPathError) as caught:
        appended(path)
    return str(caught.value)


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
    appended(Path("current/../log"))
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


def test_what_lies_in_a_folder_of_proc_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel alone follows /proc/self/cwd."""
    monkeypatch.chdir(tmp_path)
    appended(Path("/proc/self/cwd/log"))
    assert (tmp_path / "log").read_text() == "line\n"


def test_nothing_is_left_open_where_a_folder_is_missing(tmp_path: Path) -> None:
    """The rule about descriptors in conftest sees it."""
    with pytest.raises(FileNotFoundError):
        find(str(tmp_path / "missing" / "log"))


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
def test_a_fifo_that_a_user_put_there_is_refused_and_does_not_wait(foreign: Path, reader: bool) -> None:
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
    """Root's own, of a start before: it may be another file than root made."""
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
    """The user that may change the link chooses the file."""
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
    """No other user can rename what root has in /tmp."""
    public.chmod(0o1777)
    (public / "own").mkdir()
    with find(str(public / "own" / "log")) as place:
        assert not place.guarded
    public.chmod(0o777)
    with find(str(public / "own" / "log")) as place:
        assert (place.guarded, place.replaceable, place.actor) == (True, True, None)


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
