"""A Python file, executed in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkserver.cli.moving import python_file
from forkserver.errors import ConfigError

pytestmark = pytest.mark.process


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_values_functions_and_objects_arrive_as_what_they_are(folder: Path) -> None:
    (folder / "conf.py").write_text(
        "import ssl, pathlib\n"
        "number, text, several, nothing, mode = 1.5, 'a', ('b', 2), None, ssl.CERT_REQUIRED\n"
        "path = pathlib.Path('/srv')\nthing = slice(1)\n_hidden = 1\n"
        "def hook(server): pass\nclass Logger: pass\n"
    )
    assert python_file.read("conf.py")[0] == {
        "number": 1.5, "text": "a", "several": ["b", 2], "nothing": None, "mode": 2, "path": "/srv",
        "thing": {"object": "slice(None, 1, None)"}, "hook": {"function": "hook"},
    }  # fmt: skip


def test_the_file_sees_itself_and_its_folder(folder: Path) -> None:
    """gunicorn.conf.py files import helpers that lie beside the application."""
    (folder / "helper.py").write_text("bind = ':1'\n")
    (folder / "conf.py").write_text(
        "from helper import bind\nimport os\nname = os.path.basename(__file__)\nme = __name__\n"
    )
    values, _ = python_file.read("conf.py")
    assert (values["bind"], values["name"], values["me"]) == (":1", "conf.py", "__config__")


def test_nothing_of_the_file_runs_in_this_process(folder: Path) -> None:
    (folder / "conf.py").write_text("import os\npid = os.getpid()\n")
    assert python_file.read("conf.py")[0]["pid"] != os.getpid()


def test_a_file_that_fails_is_told_with_its_traceback(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "conf.py").write_text("print('out')\nraise OSError('no database')\n")
    with pytest.raises(ConfigError, match=r"conf\.py cannot be read: it failed when it was executed \(above\)"):
        python_file.read("conf.py")
    out, err = capfd.readouterr()
    assert "no database" in err
    assert out == ""


def test_a_file_that_ends_the_process_is_told(folder: Path) -> None:
    (folder / "conf.py").write_text("import os\nos._exit(0)\n")
    with pytest.raises(ConfigError, match="failed when it was executed"):
        python_file.read("conf.py")


def test_a_missing_file_is_told(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read conf\.py: no such file"):
        python_file.read("conf.py")


@pytest.mark.as_root
@pytest.mark.parametrize(("owner", "mode"), [(65534, 0o644), (0, 0o666)])
def test_root_executes_no_file_that_another_user_may_write(folder: Path, owner: int, mode: int) -> None:
    """It would be that user's way to run anything as root."""
    (folder / "conf.py").write_text("open('proof', 'w')\n")
    (folder / "conf.py").chmod(mode)
    os.chown(folder / "conf.py", owner, -1)
    with pytest.raises(ConfigError, match=r"conf\.py: not executed by root, .*; run --from as its user"):
        python_file.read("conf.py")
    assert not (folder / "proof").exists()


@pytest.mark.as_root
def test_root_imports_nothing_from_a_folder_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = folder / "theirs"
    theirs.mkdir()
    (theirs / "helper.py").write_text("bind = 1\n")
    os.chown(theirs, 65534, -1)
    (folder / "conf.py").write_text("import helper\n")
    monkeypatch.chdir(theirs)
    with pytest.raises(ConfigError, match="failed when it was executed"):
        python_file.read(str(folder / "conf.py"))


def test_a_file_that_sets_too_much_is_told(folder: Path) -> None:
    (folder / "conf.py").write_text("table = 'x' * 5_000_000\n")
    with pytest.raises(ConfigError, match="what it sets is longer than 1 MiB"):
        python_file.read("conf.py")
