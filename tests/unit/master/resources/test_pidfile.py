"""The pid file names a running master, or is replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from forkserver.errors import ConfigError, ForkserverError
from forkserver.master.resources import pidfile
from forkserver.master.resources.pidfile import PidFile
from harness import reach
from harness.intruder import INTRUDER, give


def test_it_holds_our_pid_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    made = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    made.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "no number", "0", "4194305", "1"])
def test_a_stale_one_is_replaced(tmp_path: Path, text: str) -> None:
    """Its pid is nobody's, or by now another program's: pids come again, in containers always."""
    path = tmp_path / "pid"
    path.write_text(text)
    PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_running_master_keeps_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pid"
    path.write_text("12345")
    monkeypatch.setattr(pidfile, "_is_forkserver", lambda pid: pid == 12345)
    with pytest.raises(ConfigError, match="runs already as pid 12345"):
        PidFile(str(path))
    assert path.read_text() == "12345"


TITLED = "import setproctitle, sys; setproctitle.setproctitle(sys.argv[1]); print(flush=True); sys.stdin.read()"


@pytest.mark.process
@pytest.mark.parametrize(
    ("title", "refused"),
    [
        ("forkserver: master [myapp:app]", True),
        ("forkserver: worker 1 gen 1 [other:app]", False),  # of another service, by a number that has come again
        ("tail -f /var/log/forkserver.log", False),
        ("sh -c forkserver myapp:app", False),
    ],
)
def test_only_a_master_has_the_file(tmp_path: Path, title: str, refused: bool) -> None:
    command = [sys.executable, "-c", TITLED, title]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "pid").write_text(str(process.pid))
        with pytest.raises(ConfigError, match="runs already") if refused else nullcontext():
            PidFile(str(tmp_path / "pid"))
        process.kill()


def test_a_successors_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    made = PidFile(str(path))
    path.write_text("12345\n")
    made.remove()
    assert path.exists()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ForkserverError, match="cannot be written: no such file or directory"):
        PidFile(str(tmp_path / "missing" / "pid"))


def test_a_folder_in_its_place_is_told_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "pid").mkdir()
    with pytest.raises(ForkserverError, match="cannot be written: is a directory"):
        PidFile(str(tmp_path / "pid"))
    assert os.listdir(tmp_path) == ["pid"]


@pytest.mark.as_root
def test_in_a_users_folder_it_is_written_and_removed_with_that_users_rights() -> None:
    """A link in the place of the file, or of what is written beside it, leads to no file of root's."""
    with reach.public_folder() as public:
        (public / "precious").write_text("root's")
        folder = public / "foreign"
        folder.mkdir()
        for name in ("pid", f"pid.{os.getpid()}"):
            (folder / name).symlink_to(public / "precious")
        give(folder)
        made = PidFile(str(folder / "pid"))
        assert (folder / "pid").lstat().st_uid == INTRUDER.pw_uid
        assert (made.is_ours, (public / "precious").read_text()) == (True, "root's")
        made.remove()
        assert os.listdir(folder) == []


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_file_names_no_process_and_delays_nobody(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pid"
    if kind == "fifo":
        os.mkfifo(path)
        PidFile(str(path)).remove()
        assert list(tmp_path.iterdir()) == []
    else:
        path.mkdir()
        with pytest.raises(ForkserverError, match="cannot be written: is a directory; fix that or name another file"):
            PidFile(str(path))


def test_a_file_that_was_removed_is_not_ours(tmp_path: Path) -> None:
    made = PidFile(str(tmp_path / "folder" / ".." / "pid"))
    assert made.is_ours
    (tmp_path / "pid").unlink()
    assert not made.is_ours
    tmp_path.rename(f"{tmp_path}-moved")
    assert not made.is_ours
    made.remove()
