"""--env-file in a whole program."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness import reach
from harness.clients import get
from harness.program import LaunchProgram, StartProgram

APP = """
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.environ.get('SECRET', 'none')} {os.environ.get('PLAIN', 'none')} {os.geteuid()}".encode()]
"""


@pytest.fixture(autouse=True)
def _site(tmp_path: Path) -> None:
    (tmp_path / "mysite.py").write_text(APP)
    (tmp_path / "secrets.env").write_text("SECRET=first\nPLAIN=of the file\n")


@pytest.mark.parametrize("preload", ["on", "off"])
def test_a_reload_reads_the_file_again(program: StartProgram, tmp_path: Path, preload: str) -> None:
    server = program("mysite:app", "--env-file", "secrets.env", "--env", "PLAIN=flag", "--preload", preload)
    assert get(server.address).text.startswith("first flag ")
    (tmp_path / "secrets.env").write_text("OTHER=1\n")
    server.reload()
    assert get(server.address).text.startswith("none flag ")


def test_a_file_that_cannot_be_read_refuses_the_reload(program: StartProgram, tmp_path: Path) -> None:
    server = program("mysite:app", "--env-file", "secrets.env")
    (tmp_path / "secrets.env").write_text("SECRET\n")
    mark = server.log.mark()
    server.send(signal.SIGHUP)
    server.log.wait("env_file 'secrets.env', line 1: not KEY=VALUE", mark)
    assert get(server.address).text.startswith("first ")


@pytest.mark.permission
@pytest.mark.as_root
def test_the_applications_user_need_not_be_able_to_read_it(launch: LaunchProgram) -> None:
    with reach.public_folder() as folder:
        (folder / "mysite.py").write_text(APP)
        (folder / "secrets.env").write_text("SECRET=first\nPLAIN=file\n")
        (folder / "secrets.env").chmod(0o600)
        address = f"{folder}/app.sock"
        server = launch(
            *("mysite:app", "--env-file", "secrets.env", "--user", "nobody", "-b", f"unix:{address}"),
            cwd=folder,
            command=reach.command(folder),
        ).wait_ready()
        assert get(address).text == "first file 65534"
        server.reload()
        assert get(address).text == "first file 65534"
