"""Folders for control sockets: only what this user alone can change is used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkserver.config import runtime_folders

UID = os.geteuid()


def test_the_first_place_is_the_one_that_the_session_names() -> None:
    found = runtime_folders.folders({"XDG_RUNTIME_DIR": "/run/user/1000/"}, 1000)
    assert found == ["/run/user/1000/forkserver", "/tmp/forkserver-1000"]
    assert runtime_folders.folders({"XDG_RUNTIME_DIR": "/a"}, 7)[0] == "/a/forkserver"
    assert runtime_folders.folders({"XDG_RUNTIME_DIR": "a"}, 7)[0] == "/run/user/7/forkserver"
    assert runtime_folders.folders({}, 0) == ["/run/user/0/forkserver", "/run/forkserver-0", "/tmp/forkserver-0"]


def test_a_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    folder = str(tmp_path / "made")
    assert not runtime_folders.trusted(folder, UID)
    assert runtime_folders.make(folder, UID)
    assert runtime_folders.make(folder, UID)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert runtime_folders.trusted(folder, UID)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o1777])
def test_a_folder_that_others_may_enter_is_not_trusted(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    assert not runtime_folders.make(str(tmp_path / "open"), UID)


def test_a_link_in_its_place_is_not_trusted(tmp_path: Path) -> None:
    """It could lead to a folder of this user's that holds something else."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("elsewhere")
    assert not runtime_folders.make(str(tmp_path / "link"), UID)
    (tmp_path / "file").touch(mode=0o600)
    assert not runtime_folders.make(str(tmp_path / "file"), UID)


def test_a_folder_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    folder = str(tmp_path / "made")
    assert runtime_folders.make(folder, UID)
    assert not runtime_folders.trusted(folder, UID + 1)


@pytest.mark.parametrize(("mode", "good"), [(0o777, False), (0o775, False), (0o1777, True), (0o755, True)])
def test_nothing_is_made_where_others_could_replace_it(tmp_path: Path, mode: int, good: bool) -> None:
    """In a folder like /tmp the sticky bit keeps them from it."""
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(mode)
    assert runtime_folders.make(str(above / "made"), UID) is good
    assert (above / "made").exists() is good


@pytest.mark.as_root
def test_nothing_is_made_in_a_folder_of_another_user(tmp_path: Path) -> None:
    """As root with the XDG_RUNTIME_DIR of the person who called sudo."""
    above = tmp_path / "above"
    above.mkdir()
    os.chown(above, 12345, 12345)
    assert not runtime_folders.make(str(above / "made"), 0)
    assert not (above / "made").exists()


def test_what_cannot_be_made_is_not_there(tmp_path: Path) -> None:
    assert not runtime_folders.make(str(tmp_path / "none" / "made"), UID)
    assert not runtime_folders.make("/proc/made", UID)
    assert runtime_folders.sockets(str(tmp_path / "none")) == []


def test_sockets_are_found_by_their_names_and_a_crowd_of_files_is_bounded(tmp_path: Path) -> None:
    for name in ("12.sock", "9.sock", "x.sock", "9.socket", "-1.sock", "12345678901.sock"):
        (tmp_path / name).touch()
    folder = str(tmp_path)
    assert runtime_folders.sockets(folder) == [(9, f"{folder}/9.sock"), (12, f"{folder}/12.sock")]
    assert runtime_folders.socket_of(folder, 9) == f"{folder}/9.sock"
    for number in range(10_000, 10_000 + 2 * runtime_folders.MOST_SOCKETS):
        (tmp_path / f"{number}.sock").touch()
    assert len(runtime_folders.sockets(folder)) <= runtime_folders.MOST_SOCKETS
