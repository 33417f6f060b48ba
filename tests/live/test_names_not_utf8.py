"""Folders, files and sockets whose names are bytes that are not UTF-8: the kernel takes them, so they occur."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from harness.clients import get
from harness.program import APPS, LaunchProgram, clean_environment


def test_a_service_in_such_a_folder_starts_reloads_upgrades_and_answers_its_control_socket(
    launch: LaunchProgram, tmp_path: Path
) -> None:
    """Such a name reaches JSON, sd_notify, the state that an upgrade hands on, both logs and all paths of settings."""
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    shutil.copy(APPS / "raw.py", folder)
    (folder / "forkserver.toml").write_text("workers = 1\n")
    names = {name: str(folder / name) for name in ("sock", "control", "pid", "errors", "access")}
    paths = ("--control-socket", names["control"], "--pidfile", names["pid"], "--error-log", names["errors"])
    more = ("--access-log", names["access"], "--chdir", str(folder), "--log-level", "debug")
    server = launch("raw:app", "-b", f"unix:{names['sock']}", *paths, *more, cwd=folder, environ={"PWD": str(folder)})
    server.wait_ready()
    assert get(names["sock"], "/pid").status == 200
    for number, generation in ((signal.SIGHUP, 2), (signal.SIGUSR2, 3)):
        server.send(number)
        server.said.wait(f"STATUS=generation {generation} serves")
        assert get(names["sock"], "/pid").status == 200
    server.send(signal.SIGUSR1)
    server.said.wait("STATUS=.*log")
    asked = [sys.executable, "-m", "forkserver.cli.control", "--socket", names["control"], "status"]
    environ = clean_environment(COLUMNS="1000")
    shown = subprocess.run(asked, capture_output=True, text=True, check=True, env=environ, timeout=60)
    assert f"unix:{tmp_path}/\\udcff/sock" in shown.stdout
    assert server.stop() == 0
    assert not os.path.exists(names["sock"])
    assert f"serving raw:app at unix:{tmp_path}/\\udcff/sock\n" in Path(names["errors"]).read_text()
    assert Path(names["access"]).read_text().count('"GET /pid HTTP/1.1" 200') == 3
