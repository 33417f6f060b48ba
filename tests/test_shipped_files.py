"""Man pages, completions and the schema, which the wheel installs: made from the table, and good for their readers."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness import needs, shipped_files
from harness.man_pages import EXAMPLE

TOP = Path(__file__).parents[1]
SHARE = shipped_files.FOLDER
ASK_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_$1 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("name", shipped_files.FILES)
def test_a_file_is_what_the_table_says(name: str) -> None:
    remake = "PYTHONPATH=tests python tests/harness/shipped_files.py"
    assert (SHARE / name).read_text() == shipped_files.FILES[name](), f"share/{name} is old: run {remake}"


def test_the_wheel_installs_each_where_it_is_looked_for() -> None:
    listed = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    named = {file for files in listed.values() for file in files}
    assert named == {f"share/{name}" for name in shipped_files.FILES}
    assert all(os.path.dirname(file) == folder for folder, files in listed.items() for file in files)
    assert {path for path in SHARE.rglob("*") if path.is_file()} == {SHARE / name for name in shipped_files.FILES}


@pytest.mark.process
@pytest.mark.parametrize("name", [name for name in shipped_files.FILES if name.startswith("man/")])
def test_a_man_page_is_shown_without_a_warning(name: str) -> None:
    command = [needs.program("groff"), "-man", "-Tutf8", "-ww", str(SHARE / name)]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
    assert ran.stderr == ""
    assert "Documentation" not in ran.stdout
    assert "https://" in ran.stdout


def test_the_example_of_the_man_page_can_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "forkserver.toml").write_text(EXAMPLE)
    command = [sys.executable, "-m", "forkserver", "--print-config"]
    subprocess.run(command, cwd=tmp_path, check=True, stdin=subprocess.DEVNULL, capture_output=True)


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["forkserver", "--log-level", "wa"], {"warning"}),
        (["forkserver", "--log-level", "=", "wa"], {"warning"}),
        (["forkserver", "--max-w"], {"--max-workers", "--max-worker-lifetime", "--max-worker-memory"}),
        (["forkserver", "--preload", "o"], {"on", "off"}),
        (["forkserver", "--preload", "--no-n"], {"--no-new-privs"}),
        (["forkserver", "--help", "max_w"], {"max_workers", "max_worker_lifetime", "max_worker_memory"}),
        (["forkserver", "-c", "LICEN"], {"LICENSE"}),
        (["forkserver", "--chdir", "tes"], {"tests"}),
        (["forkserver", "--workers", ""], {""}),
        (["forkserverctl", "ret"], {"retire"}),
        (["forkserverctl", "maintenance", ""], {"on", "off"}),
        (["forkserverctl", "reload", "--wa"], {"--wait"}),
    ],
)
def test_bash_completes(words: list[str], offered: set[str]) -> None:
    script = str(SHARE / "bash-completion" / "completions" / words[0])
    command = [needs.program("bash"), "-c", ASK_BASH, "bash", script, *words]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True, cwd=TOP)
    assert set(ran.stdout.removesuffix("\n").split("\n")) >= offered
    assert ran.stderr == ""


@pytest.mark.process
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("forkserver --log-level ", {"warning", "info"}),
        ("forkserver --max-w", {"--max-workers", "--max-worker-lifetime"}),
        ("forkserver --help max_worker", {"max_workers", "max_worker_lifetime"}),
        ("forkserverctl ret", {"retire"}),
        ("forkserverctl stop --", {"--now"}),
        ("forkserverctl maintenance o", {"on", "off"}),
    ],
)
def test_fish_completes(line: str, offered: set[str], tmp_path: Path) -> None:
    script = SHARE / "fish" / "vendor_completions.d" / f"{line.split(maxsplit=1)[0]}.fish"
    command = [needs.program("fish"), "--no-config", "-c", f"source {script}; complete -C '{line}'"]
    environ = os.environ | {"HOME": str(tmp_path)}
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True, env=environ)
    assert {row.split("\t")[0] for row in ran.stdout.splitlines()} >= offered
    assert ran.stderr == ""


@pytest.mark.process
@pytest.mark.parametrize("name", ["forkserver", "forkserverctl"])
def test_zsh_reads_a_specification_for_each_flag(name: str) -> None:
    script = SHARE / "zsh" / "site-functions" / f"_{name}"
    command = [needs.program("zsh"), "-f", "-c", f'_arguments() {{ print -rl -- "$@" }}; source {script}']
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
    flag = (
        "*--log-level=[Events below this level are left out of the error log]:LEVEL:(debug info warning error critical)"
    )
    expected = flag if name == "forkserver" else "--now[stop - at once]"
    assert expected in ran.stdout.splitlines()
    assert ran.stderr == ""
