"""The application's own logging, and what it prints."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.clients import get
from harness.program import StartProgram

APP = """
import logging
import os
import sys

logging.getLogger("app").info("imported")


def app(environ, start_response):
    logging.getLogger("app").info("asked for %s", environ["PATH_INFO"])
    print("printed", environ["PATH_INFO"], flush=True)
    os.write(2, b"written\\n")
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""
CONFIG = """
root = {{level = "INFO", handlers = ["file"]}}
formatters.plain.format = "%(process)d %(message)s"
handlers.file = {{class = "{kind}", filename = "{path}", formatter = "plain"{more}}}
"""


@pytest.mark.parametrize(
    ("kind", "more", "preload"),
    [
        ("logging.FileHandler", "", "auto"),
        ("logging.handlers.RotatingFileHandler", ", maxBytes = 1000000", "auto"),
        ("logging.FileHandler", "", "off"),
    ],
)
def test_logging_is_configured_before_the_import_and_keeps_it_shared(
    program: StartProgram, tmp_path: Path, kind: str, more: str, preload: str
) -> None:
    (tmp_path / "logs_site.py").write_text(APP)
    config = tmp_path / "log.toml"
    config.write_text(CONFIG.format(kind=kind, path=tmp_path / "out", more=more))
    server = program(
        "logs_site:app", "--pythonpath", str(tmp_path), "--log-config", str(config), "-w", "2", "--preload", preload
    )
    for number in range(8):
        get(server.address, f"/{number}")
    workers = {str(each.pid) for each in server.workers()}
    assert server.stop() == 0
    lines = [line.split(" ", 1) for line in (tmp_path / "out").read_text().splitlines()]
    imports = [pid for pid, said in lines if said == "imported"]
    assert len(imports) == (1 if preload == "auto" else 2), server.log.text()
    assert {said for _, said in lines} == {"imported", *(f"asked for /{number}" for number in range(8))}
    assert {pid for pid, said in lines if said != "imported"} <= workers


def test_a_reload_with_a_broken_file_is_refused(program: StartProgram, tmp_path: Path) -> None:
    (tmp_path / "logs_site.py").write_text(APP)
    config = tmp_path / "log.toml"
    config.write_text(CONFIG.format(kind="logging.FileHandler", path=tmp_path / "out", more=""))
    server = program("logs_site:app", "--pythonpath", str(tmp_path), "--log-config", str(config))
    config.write_text("version = 2")
    server.send(signal.SIGHUP)
    server.log.wait(r"log_config .*Unsupported version: 2; correct the file")
    assert get(server.address, "/").status == 200


def test_what_the_application_prints_goes_to_the_error_log_and_follows_its_rotation(
    program: StartProgram, tmp_path: Path
) -> None:
    (tmp_path / "logs_site.py").write_text(APP)
    out = tmp_path / "errors"
    server = program("logs_site:app", "--pythonpath", str(tmp_path), "--capture-output", "--error-log", str(out))
    server.until(lambda: out.exists() and "stop: kill" in out.read_text(), "the banner")
    get(server.address, "/before")
    server.until(lambda: "printed /before" in out.read_text() and "written" in out.read_text(), "what is printed")
    out.rename(tmp_path / "rotated")
    server.send(signal.SIGUSR1)
    server.until(lambda: out.exists() and "opened again" in out.read_text(), "the reopening")
    get(server.address, "/after")
    server.until(lambda: "printed /after" in out.read_text(), "what is printed afterwards")
    assert "/after" not in (tmp_path / "rotated").read_text()
    assert server.output.text() == ""
    assert server.stop() == 0
