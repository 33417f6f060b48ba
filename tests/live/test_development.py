"""Development: code that changes is loaded again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.clients import get
from harness.processes import wait_gone
from harness.program import LaunchProgram, Program, own_address

SITE = """
import helper
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/late":
        import late
        return [late.TEXT.encode()]
    return [helper.TEXT.encode()]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "mysite.py").write_text(SITE)
    (folder / "helper.py").write_text("TEXT = 'first'\n")
    (folder / "late.py").write_text("TEXT = 'late'\n")
    return folder


def start(launch: LaunchProgram, site: Path, *arguments: str) -> Program:
    host, port = own_address()
    flags = arguments or ("--dev",)
    return launch(*flags, "-b", f"{host}:{port}", "mysite:app", cwd=site, address=(host, port))


def changed(server: Program, path: Path, text: str, then: str = r"generation \d+ serves") -> None:
    """Write ``text`` as an editor does, and wait for what follows."""
    since = server.log.mark()
    (path.parent / "~").write_text(text)
    (path.parent / "~").rename(path)
    server.log.wait(then, since)


def test_a_module_that_changes_is_loaded_again(launch: LaunchProgram, site: Path) -> None:
    server = start(launch, site).wait_ready()
    assert get(server.address).text == "first"
    changed(server, site / "helper.py", "TEXT = 'second'\n")
    assert get(server.address).text == "second"
    assert "helper.py changed" in server.log.text()
    assert server.stop() == 0


def test_a_module_that_a_request_has_imported_is_watched_too(launch: LaunchProgram, site: Path) -> None:
    server = start(launch, site).wait_ready()
    assert get(server.address, "/late").text == "late"
    changed(server, site / "late.py", "TEXT = 'later'\n")
    assert get(server.address, "/late").text == "later"
    assert server.stop() == 0


@pytest.mark.parametrize("preload", ["off", "on"])
def test_broken_code_is_loaded_again_when_a_file_that_it_has_read_is_fixed(
    launch: LaunchProgram, site: Path, preload: str
) -> None:
    """Meanwhile the code of before serves."""
    server = start(launch, site, "--dev", "--preload", preload).wait_ready()
    changed(server, site / "helper.py", "import missing_module\nTEXT = missing_module.TEXT\n", "reload failed")
    assert get(server.address).text == "first"
    changed(server, site / "missing_module.py", "TEXT = 'third'\n")
    assert get(server.address).text == "third"
    assert server.stop() == 0


def test_a_file_that_was_named_counts_without_the_development_mode(launch: LaunchProgram, site: Path) -> None:
    (site / "templates").mkdir()
    server = start(launch, site, "--reload", "--reload-extra-file", "templates", "-w", "2").wait_ready()
    changed(server, site / "templates" / "page.html", "new")
    assert server.stop() == 0


def test_a_watcher_that_is_killed_is_replaced_and_watches_the_same(launch: LaunchProgram, site: Path) -> None:
    server = start(launch, site).wait_ready()
    (watcher,) = (member for member in server.family() if member.role == "file watcher")
    since = server.log.mark()
    os.kill(watcher.pid, 9)
    assert wait_gone(watcher.pid)
    server.log.wait(r"generation \d+ serves", since)
    changed(server, site / "helper.py", "TEXT = 'second'\n")
    assert get(server.address).text == "second"
    assert server.stop() == 0
