"""An upgrade that is refused: what serves is not touched, and log and status have the reason."""

from __future__ import annotations

import os
import signal
import sys
import venv
from collections import Counter
from pathlib import Path

import pytest

from harness.clients import get
from harness.load import Load
from harness.program import APPS, LaunchProgram, StartProgram, listener
from harness.upgrading import APP, UPGRADED, PackageCopy, kinds_of_descriptors, refused, signature, upgrade


def test_a_broken_program_is_refused_and_mended(program: StartProgram, site: PackageCopy) -> None:
    """A half-written installation: nothing that serves is touched, and the reason is in log and status."""
    server = program("raw:app", "-w", "2", environ=site.environ)
    before = [member.pid for member in server.family()]
    opened = kinds_of_descriptors(server.pid)
    site.change("master/reporting/reporter.py", "class Reporter:", "class Reporter")
    with Load(server.address, clients=8) as load:
        load.more(100)
        assert "SyntaxError" in refused(server)
        server.log.wait("reporter.py")
        load.more(100)
    assert load.lost == []
    assert [member.pid for member in server.family()] == before
    assert not Counter(kinds_of_descriptors(server.pid)) - Counter(
        opened
    )  # a word to the manager may have been on its way
    site.change("master/reporting/reporter.py", "class Reporter", "class Reporter:")
    site.mark("mended")
    upgrade(server)
    assert signature(server).startswith("mended-")
    assert server.stop() == 0


def test_a_fault_in_what_only_workers_need_is_found_before(program: StartProgram, site: PackageCopy) -> None:
    server = program("raw:app", environ=site.environ)
    site.change("server/loop/event_loop.py", "from __future__ import annotations", "import no_such_module")
    assert "fails: No module named 'no_such_module'" in refused(server)
    assert get(server.address).status == 200


@pytest.mark.parametrize(
    ("file", "before", "name"),
    [
        ("master/upgrade/snapshot.py", "LAYOUT: Final = ", "state"),
        ("ipc/messages.py", "PROTOCOL: Final = ", "messages"),
        ("ipc/scoreboard.py", "LAYOUT: Final = ", "scoreboard"),
    ],
)
def test_a_program_of_another_layout_refuses_by_itself(
    program: StartProgram, site: PackageCopy, file: str, before: str, name: str
) -> None:
    """Its master could not talk to the workers that live: the way out is a restart."""
    server = program("raw:app", environ=site.environ)
    site.change(file, before, f"{before}90 + ")
    said = refused(server)
    assert f"the layout of {name} is number" in said
    assert "restart instead" in said
    assert get(server.address).status == 200


def test_an_interpreter_that_is_gone_is_refused(launch: LaunchProgram, tmp_path: Path, site: PackageCopy) -> None:
    link = tmp_path / "python"
    venv.create(tmp_path / "env", symlinks=True)
    needed = [str(site.folder), *(path for path in sys.path if path.endswith("-packages"))]
    link.symlink_to(tmp_path / "env" / "bin" / "python")
    with listener() as made:
        server = launch(
            "raw:app", "--pythonpath", str(APPS), command=(str(link), "-m", "forkserver"),
            listeners=[made], environ={"PYTHONPATH": os.pathsep.join(needed)},
        )  # fmt: skip
        server.address = made.getsockname()
    server.wait_ready()
    link.unlink()
    assert f"cannot run {link}: No such file or directory" in refused(server)
    assert get(server.address).status == 200
    assert server.stop() == 0


def test_settings_that_are_wrong_are_refused(program: StartProgram, tmp_path: Path, site: PackageCopy) -> None:
    server = program("raw:app", environ=site.environ)
    (tmp_path / "forkserver.toml").write_text("workers = 'many'\n")
    assert "refuses: workers" in refused(server)
    assert get(server.address).status == 200


def test_new_code_that_does_not_load_leaves_the_old_workers(
    program: StartProgram, tmp_path: Path, site: PackageCopy
) -> None:
    """The master is the next program, the workers are those of before, and their template still replaces them."""
    (tmp_path / "app.py").write_text(APP.format(before="", version=1))
    server = program("app:app", "-w", "2", environ=site.environ)
    before = [member.pid for member in server.family()]
    (tmp_path / "app.py").write_text(APP.format(before="1 / 0", version=2))
    site.mark("second")
    since = server.log.mark()
    server.send(signal.SIGUSR2)
    server.log.wait(UPGRADED, since)
    server.log.wait("reload failed: .*ZeroDivisionError.*still serving generation 1", since)
    server.said.wait("READY=1\nSTATUS=reload failed: ")
    server.until(lambda: [member.pid for member in server.family()] == before, "only those of before")
    since = server.log.mark()
    os.kill(before[1], signal.SIGKILL)
    server.log.wait("worker=1 gen=1 pid=.* is ready", since)
    assert get(server.address).text == "1"
    assert signature(server) == "forkserver"
    (tmp_path / "app.py").write_text(APP.format(before="", version=2))
    server.reload()
    assert get(server.address).text == "2"
    assert signature(server).startswith("second-")
    assert server.stop() == 0
