"""Directory and environment are found by the paths that were typed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from forkserver.config import invocation
from forkserver.config.invocation import Environment
from harness import reach
from harness.intruder import give


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release with an environment, which this process is of, and a link to it."""
    bin_folder = tmp_path / "release" / "venv" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder.parent / "pyvenv.cfg").touch()
    for name in ("python", "forkserver"):
        (bin_folder / name).touch(0o755)
    (tmp_path / "current").symlink_to("release")
    monkeypatch.setattr(sys, "prefix", str(bin_folder.parent))
    monkeypatch.setattr(sys, "executable", str(bin_folder / "python"))
    return tmp_path


def test_the_directory_is_the_one_that_was_typed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    real, link = str(tmp_path / "real"), str(tmp_path / "link")
    assert invocation.directory({"PWD": link}, real) == link
    for pwd in ("", "link", str(tmp_path), "/no/such", "/a\0b"):  # none, or not of this directory
        assert invocation.directory({"PWD": pwd}, real) == real


def test_the_environment_is_the_one_whose_script_was_typed(top: Path) -> None:
    """The first line of the script names the interpreter by the path at which the environment was made."""
    made_at, typed = f"{top}/release/venv", f"{top}/current/venv"
    expected = Environment(typed, made_at, f"{typed}/bin/python")
    for script, folder in (
        (f"{typed}/bin/forkserver", "/"),
        ("venv/bin/forkserver", f"{top}/current"),
        ("./forkserver", f"{typed}/bin"),
    ):
        words = [f"{made_at}/bin/python", "-I", script, "a:b", "-w", "2"]
        assert invocation.environment(folder, words, words[2:]) == expected


def test_a_link_to_the_script_is_followed_and_links_on_the_way_stay(top: Path) -> None:
    (top / "bin").mkdir()
    (top / "bin" / "forkserver").symlink_to("../current/venv/bin/forkserver")
    words = [f"{top}/release/venv/bin/python", f"{top}/bin/forkserver"]
    assert invocation.environment("/", words, words[1:]).typed == f"{top}/current/venv"


def test_an_interpreter_that_was_typed_is_run_again_as_it_was(top: Path) -> None:
    typed = f"{top}/current/venv"
    for words in (
        [f"{typed}/bin/python", "-m", "forkserver", "a:b"],
        [f"{typed}/bin/python", f"{typed}/bin/forkserver"],
    ):
        assert invocation.environment("/", words, ["/x/forkserver/__main__.py", *words[3:]]).typed == typed
        assert invocation.environment("/", words, words[1:]).python == ""
    relative = ["venv/bin/python", "-m", "forkserver"]
    assert invocation.environment(f"{top}/current", relative, ["/x/__main__.py"]).typed == typed


@pytest.mark.parametrize(
    "words", [["python3", "app.pyz"], ["/usr/bin/python3", "/usr/bin/forkserver"], ["/usr/bin/python3", "/loop"], []]
)
def test_without_an_environment_it_is_the_prefix_of_the_interpreter(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zipapp, a system-wide installation, a script elsewhere."""
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert invocation.environment(str(tmp_path), words, words[1:]) == Environment("/usr", os.path.realpath("/usr"))


def test_a_script_of_another_environment_is_not_ours(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    words = ["/usr/bin/python3", f"{top}/current/venv/bin/forkserver"]
    assert invocation.environment("/", words, words[1:]).typed == "/usr"


def test_a_link_that_was_switched_has_moved_the_environment(top: Path) -> None:
    words = [f"{top}/current/venv/bin/python", "-m", "forkserver"]
    found = invocation.environment("/", words, ["__main__.py"])
    assert found.moved() == ""
    (top / "current").unlink()
    (top / "current").symlink_to("next")
    assert found.moved() == f"{top}/next/venv"


@pytest.mark.as_root
def test_an_environment_that_another_user_may_change_is_not_trusted_by_root() -> None:
    """A link or a folder of that user would choose what root executes."""
    with reach.public_folder() as public:
        packages = public / "release" / "lib" / "python3.11" / "site-packages"
        (packages / "forkserver").mkdir(parents=True)
        (packages / "forkserver" / "__init__.py").touch()
        (public / "release" / "bin").mkdir()
        (public / "release" / "bin" / "python").touch(0o755)
        (public / "release" / "pyvenv.cfg").touch()
        (public / "current").symlink_to("release")
        found = Environment(str(public / "current"), str(public / "before"))
        program = f"{found.typed}/bin/python"
        assert found.why_untrusted(program, str(public)) == ""
        for path in (public / "current", public / "release", packages, public / "release" / "bin"):
            give(path)
            assert found.why_untrusted(program) == f"nobody owns {path}"
            os.chown(path, 0, 0, follow_symlinks=False)
        give(public / "release" / "pyvenv.cfg")
        assert found.why_untrusted(program) == "nobody owns it"
        os.chown(public / "release" / "pyvenv.cfg", 0, 0)
        (public / "elsewhere").mkdir()
        paths = packages / "editable.pth"
        paths.write_text(f"import sys\n# none\n\n{public}/elsewhere\n")
        assert found.why_untrusted(program) == ""
        give(public / "elsewhere")
        assert found.why_untrusted(program) == f"nobody owns {public}/elsewhere"
        paths.write_bytes(f"{public}/elsewhere\0\n".encode() + bytes(64))
        assert found.why_untrusted(program) == f"nobody owns {public}/elsewhere", "some interpreters read it so"
        (public / "archive.egg").touch()
        paths.write_text(f"{public}/archive.egg\n")
        assert found.why_untrusted(program) == ""
        give(public / "archive.egg")
        assert found.why_untrusted(program) == "nobody owns it"
        give(paths)
        assert found.why_untrusted(program) == "nobody owns it"
        os.chown(paths, 0, 0)
        give(public)
        assert found.why_untrusted("/usr/bin/env", str(public)) == f"nobody owns {public}"
