"""Development: code that changes is loaded again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from forkserver.worker.development.error_page import QUESTION
from harness import BOUND
from harness.browser import Browser
from harness.clients import Answer, Wire, get
from harness.processes import wait_gone
from harness.program import LaunchProgram, Program, listener, own_address

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


def start(launch: LaunchProgram, site: Path, *arguments: str, more: tuple[str, ...] = ()) -> Program:
    host, port = own_address()
    flags = (*(arguments or ("--dev",)), "-b", f"{host}:{port}", *more)
    return launch(*flags, "mysite:app", cwd=site, address=(host, port))


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


def test_code_that_does_not_load_is_told_once(launch: LaunchProgram, site: Path) -> None:
    server = start(launch, site).wait_ready()
    since = server.log.mark()
    changed(server, site / "helper.py", "TEXT = 1 / 0\n", "reload failed: .*ZeroDivisionError")
    changed(server, site / "helper.py", "TEXT = 'second'\n")
    said = server.log.text()[since:]
    assert said.count("Traceback") == 1
    assert "did not start" not in said
    assert server.stop() == 0


def test_a_file_that_was_named_counts_without_the_development_mode(launch: LaunchProgram, site: Path) -> None:
    (site / "templates").mkdir()
    server = start(launch, site, "--reload", "--reload-extra-file", "templates", "-w", "2").wait_ready()
    changed(server, site / "templates" / "page.html", "new")
    assert server.stop() == 0


def test_a_file_of_variables_counts(launch: LaunchProgram, site: Path) -> None:
    (site / ".env").write_text("TEXT=first\n")
    (site / "helper.py").write_text("import os\nTEXT = os.environ['TEXT']\n")
    server = start(launch, site, "--dev", "--env-file", ".env").wait_ready()
    assert get(server.address).text == "first"
    changed(server, site / ".env", "TEXT=second\n")
    assert get(server.address).text == "second"
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


def ask(server: Program, path: str, *fields: str) -> Answer:
    host = () if any(each.startswith("Host:") for each in fields) else ("Host: localhost",)
    lines = [f"GET {path} HTTP/1.1", *host, *fields, "Connection: close", "", ""]
    with Wire(server.address) as wire:
        wire.send("\r\n".join(lines).encode())
        return wire.answer()


def navigate(server: Program, path: str = "/", *fields: str) -> Answer:
    """Ask as a browser in which a person opens the address."""
    return ask(server, path, "Sec-Fetch-Mode: navigate", "Accept: text/html", *fields)


def failure(server: Program) -> str:
    """Ask as the page does whether it is still what is to be shown: the generation, and what is wrong with a newer."""
    return ask(server, QUESTION, "Sec-Fetch-Mode: cors").text


def broken(server: Program, path: Path, text: str, then: str = "reload failed") -> None:
    """As ``changed``, to code that does not load; the worker that shows it hears of it a moment later."""
    before = failure(server)
    changed(server, path, text, then)
    wait_shown(server, before)


def wait_shown(server: Program, before: str) -> None:
    """Wait until the worker shows another failure than ``before``."""
    until = time.monotonic() + BOUND
    while failure(server) == before:
        assert time.monotonic() < until


@pytest.mark.parametrize("preload", ["off", "on"])
def test_a_browser_is_shown_what_is_wrong_until_it_is_fixed(launch: LaunchProgram, site: Path, preload: str) -> None:
    """And everything else is answered by the code that did load."""
    server = start(launch, site, "--dev", "--preload", preload).wait_ready()
    broken(server, site / "helper.py", "TEXT = <broken>\n")
    shown = navigate(server)
    assert shown.status == 500
    assert "SyntaxError" in shown.text
    assert "TEXT = &lt;broken&gt;" in shown.text
    assert get(server.address).text == "first"
    assert "SyntaxError" in server.log.text()
    assert failure(server) in shown.text
    changed(server, site / "helper.py", "TEXT = 'second'\n")
    assert navigate(server).text == "second"
    assert failure(server) == "3."
    assert QUESTION not in server.output.text(), "the access log shows what persons ask"
    assert server.stop() == 0


def test_a_browser_is_shown_what_is_wrong_with_the_settings(launch: LaunchProgram, site: Path) -> None:
    (site / "forkserver.toml").write_text("threads = 2\n")
    server = start(launch, site, "--dev").wait_ready()
    changed(server, site / "forkserver.toml", "threads = <two>\n", then="reload failed")
    wait_shown(server, "1.")
    shown = navigate(server)
    assert shown.status == 500
    assert "forkserver.toml" in shown.text
    assert get(server.address).text == "first"
    changed(server, site / "forkserver.toml", "threads = 3\n")
    assert navigate(server).text == "first"
    assert server.stop() == 0


def test_the_end_of_the_last_worker_leaves_an_answer_while_the_code_is_broken(
    launch: LaunchProgram, site: Path
) -> None:
    """A new worker could only load the broken files: what asks is told why it is not answered, and does not wait."""
    server = start(launch, site).wait_ready()
    broken(server, site / "helper.py", "TEXT = <broken>\n")
    before = failure(server)
    (worker,) = server.workers()
    since = server.log.mark()
    os.kill(worker.pid, 9)
    server.log.wait("not loaded: .*SyntaxError.*; waiting until a file of it changes", since)
    server.log.wait("no code that loads is left: every request is answered 503 until a file changes", since)
    wait_shown(server, before)
    said = ask(server, "/")
    assert said.status == 503
    assert "TEXT = <broken>" in said.text
    assert "TEXT = &lt;broken&gt;" in navigate(server).text
    broken(server, site / "helper.py", "import gone\n")
    assert "No module named 'gone'" in ask(server, "/").text
    changed(server, site / "helper.py", "TEXT = 'fixed'\n")
    assert navigate(server).text == get(server.address).text == "fixed"
    assert server.stop() == 0


@pytest.mark.parametrize("preload", ["off", "on"])
def test_a_first_start_that_is_broken_waits_until_it_is_fixed(launch: LaunchProgram, site: Path, preload: str) -> None:
    (site / "helper.py").write_text("import gone\n")
    server = start(launch, site, "--dev", "--preload", preload).wait_ready()
    wait_shown(server, "2.")
    assert get(server.address).status == 503
    assert "No module named 'gone'" in ask(server, "/").text
    assert "No module named &#x27;gone&#x27;" in navigate(server).text
    broken(server, site / "helper.py", "import gone_too\n", "waiting until a file of it changes")
    assert "No module named &#x27;gone_too&#x27;" in navigate(server).text
    broken(server, site / "gone_too.py", "raise OSError('no database')\n", "waiting until a file of it changes")
    assert "no database" in navigate(server).text
    changed(server, site / "helper.py", "TEXT = 'first'\n")
    assert navigate(server).text == "first"
    assert server.stop() == 0


@pytest.mark.parametrize(
    "field",
    [
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: localhost",
        "X-Forwarded-Proto: http",
        "Forwarded: for=127.0.0.1",
        "Via: 1.1 tunnel",
        "Host: example.org",
    ],
)
@pytest.mark.parametrize("believed", ["127.0.0.0/8", "192.0.2.1"])
def test_what_was_passed_on_is_shown_nothing(launch: LaunchProgram, site: Path, field: str, believed: str) -> None:
    """By a tunnel to another machine, say, or from a page that has its own name lead here."""
    server = start(launch, site, "--dev", "--forwarded-allow-ips", believed).wait_ready()
    broken(server, site / "helper.py", "TEXT = <broken>\n")
    assert navigate(server).status == 500
    assert navigate(server, "/", field).text == "first"
    assert navigate(server, "http://localhost/", field).text == "first", "that URI stands for the field Host"
    assert server.stop() == 0


def test_a_listener_that_other_machines_reach_shows_nothing(launch: LaunchProgram, site: Path) -> None:
    server = start(launch, site, more=("-b", "0.0.0.0:0")).wait_ready()
    changed(server, site / "helper.py", "TEXT = <broken>\n", "reload failed")
    assert navigate(server).text == "first"
    assert server.stop() == 0


def test_a_port_that_is_taken_gives_way_to_the_next_and_that_is_said(launch: LaunchProgram, site: Path) -> None:
    host = own_address()[0]
    with listener((host, 0)) as taken:
        port = taken.getsockname()[1]
        server = launch("--dev", "-b", f"{host}:{port}", "mysite:app", cwd=site).wait_ready()
        said = server.log.wait(rf"another process has {host}:{port}; serving at http://{host}:(\d+)/").text
        server.address = host, int(said.rpartition(":")[2].rstrip("/"))
        assert get(server.address).text == "first"
        server.reload()
        assert get(server.address).text == "first"
        assert server.stop() == 0


def test_what_is_printed_comes_at_once(launch: LaunchProgram, site: Path) -> None:
    """Also the beginning of a line."""
    (site / "mysite.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n"
        "    print('begun', end='')\n"
        "    os.write(1, b' and more\\n')\n"
        "    start_response('200 OK', [])\n"
        "    return []\n"
    )
    server = start(launch, site).wait_ready()
    get(server.address)
    server.output.wait("begun and more")
    assert server.stop() == 0


def test_the_page_reloads_itself_in_a_browser_and_breaks_no_policy_of_its_own(
    launch: LaunchProgram, site: Path
) -> None:
    server = start(launch, site).wait_ready()
    host, port = server.address
    broken(server, site / "helper.py", "TEXT = <broken>\n")
    chromium = Browser()
    try:
        chromium.open(f"http://{host}:{port}/")
        assert "TEXT = <broken>" in chromium.text()
        before = chromium.loads
        changed(server, site / "helper.py", "TEXT = 'third'\n")
        chromium.await_load(before)
        assert chromium.text() == "third"
        assert not [each for each in chromium.complaints if "policy" in each.lower()]
    finally:
        chromium.close()
    assert server.stop() == 0


def test_what_a_view_raises_is_shown_and_fixed_by_its_file(launch: LaunchProgram, site: Path) -> None:
    """As Django imports its views with the first request: a module that fails there is in no table of modules."""
    (site / "late.py").write_text("TEXT = <broken>\n")
    server = start(launch, site).wait_ready()
    shown = navigate(server, "/late")
    assert shown.status == 500
    assert "TEXT = &lt;broken&gt;" in shown.text
    server.log.wait("GET /late: the application raised")
    assert get(server.address, "/late").text != shown.text
    changed(server, site / "late.py", "TEXT = 'late'\n")
    assert navigate(server, "/late").text == "late"
    assert server.stop() == 0
