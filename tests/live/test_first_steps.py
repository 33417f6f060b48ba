"""The pages for the first five minutes (docs/start) do what they say: their files, their commands, in their order."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness import documents
from harness.clients import get
from harness.program import LaunchProgram, clean_environment, own_address

PAGES = ("flask", "django", "wsgi")
HOME = "http://localhost/"  # Django answers a host of its own alone


def _blocks(page: str) -> list[documents.Block]:
    return list(documents.blocks(f"docs/start/{page}.md"))


def _commands(page: str, program: str) -> list[list[str]]:
    shell = [block for block in _blocks(page) if block.language == "sh"]
    return [words[1:] for block in shell for words in documents.commands(block.text) if words[0] == program]


def _write_files(page: str, folder: Path) -> None:
    """What a reader of the page types: whole files, and projects that Django's own command makes."""
    for words in _commands(page, "django-admin"):
        made = [sys.executable, "-m", "django", *words]
        subprocess.run(made, cwd=folder, check=True, env=clean_environment(), capture_output=True)
    for block in _blocks(page):
        if (name := block.file()) and not (folder / name).exists():
            (folder / name).write_text(block.text)


@pytest.mark.parametrize("page", PAGES)
def test_the_command_of_the_page_serves_its_application(page: str, launch: LaunchProgram, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    _write_files(page, folder)
    (folder / "forkserver.toml").unlink()  # a later step
    [arguments] = _commands(page, "forkserver")
    control = str(tmp_path / "control.sock")
    host, port = own_address()
    own = ("-b", f"{host}:{port}", "--control-socket", control)
    server = launch(*arguments, *own, cwd=folder, address=(host, port)).wait_ready()
    answer = get(server.address, HOME)
    assert answer.status == 200
    assert page == "django" or answer.text.startswith("Hello from")
    for words in _commands(page, "forkserverctl"):
        asked = [sys.executable, "-m", "forkserver.cli.control", "--socket", control, *words]
        subprocess.run(asked, check=True, env=clean_environment(), capture_output=True)
    assert server.stop() == 0


@pytest.mark.parametrize("page", PAGES)
def test_the_settings_file_of_the_page_is_all_that_a_start_needs(
    page: str, launch: LaunchProgram, tmp_path: Path
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    _write_files(page, folder)
    host, port = own_address()
    named = ("--config", str(folder / "forkserver.toml"))
    server = launch(*named, "-b", f"{host}:{port}", cwd=folder, address=(host, port)).wait_ready()
    assert get(server.address, HOME).status == 200
    assert len(server.workers()) == tomllib.loads((folder / "forkserver.toml").read_text())["workers"]
    assert server.stop() == 0
