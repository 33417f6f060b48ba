"""The application's logging by a file."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.errors import ConfigError
from forkserver.worker.loading import log_config
from harness.log_files import opened_log

INI = """
[loggers]
keys=root
[handlers]
keys=file
[formatters]
keys=plain
[logger_root]
level=INFO
handlers=file
[handler_file]
class=FileHandler
args=({path!r}, "a")
formatter=plain
[formatter_plain]
format=ini %(message)s
"""
TOML = """
root = {{level = "INFO", handlers = ["file"]}}
formatters.plain.format = "toml %(message)s"
[handlers.file]
class = "{kind}"
filename = "{path}"
formatter = "plain"
"""


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The root logger of before, and none of the handlers that a test has made."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in log_config._handlers:
        root.removeHandler(handler)
        handler.close()
    log_config._handlers.clear()
    root.handlers[:], root.level = handlers, level


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def configured(tmp_path: Path, kind: str = "logging.FileHandler") -> Path:
    """Logging to a file, by TOML."""
    log_config.apply(write(tmp_path / "log.toml", TOML.format(kind=kind, path=tmp_path / "out")))
    return tmp_path / "out"


def test_a_toml_file_is_dict_configs_table(tmp_path: Path) -> None:
    out = configured(tmp_path)
    logging.getLogger("app").info("told")
    assert out.read_text() == "toml told\n"


def test_a_json_file_is_too(tmp_path: Path) -> None:
    table = {
        "version": 1,
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(tmp_path / "out")}},
        "root": {"handlers": ["file"], "level": "INFO"},
    }
    log_config.apply(write(tmp_path / "log.json", json.dumps(table)))
    logging.info("told")
    assert (tmp_path / "out").read_text() == "told\n"


def test_any_other_file_is_ini(tmp_path: Path) -> None:
    log_config.apply(write(tmp_path / "logging.conf", INI.format(path=str(tmp_path / "out"))))
    logging.info("told")
    assert (tmp_path / "out").read_text() == "ini told\n"


def test_loggers_that_exist_go_on(tmp_path: Path) -> None:
    """Modules that were imported before have made theirs."""
    before = logging.getLogger("made.before")
    configured(tmp_path)
    assert not before.disabled


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("no.toml", None, "no such file or directory"),
        ("no.ini", None, "no such file or directory"),
        ("a.toml", "a = ", "Invalid value"),
        ("a.json", "[]", "not a table of settings"),
        ("a.json", "{", "Expecting property name"),
        ("a.toml", "version = 2", "Unsupported version: 2"),
        ("a.toml", 'root.handlers = ["x"]', "Unable to add handler 'x'"),
        ("a.toml", 'handlers.x.class = "no.such.Class"', "Unable to configure handler 'x': "),
        (
            "a.toml",
            'handlers.x = {class = "logging.FileHandler", filename = "/no/such/f"}',
            "no such file or directory",
        ),
        ("a.ini", "nothing", "File contains no section headers"),
        ("a.ini", "[loggers]\nkeys=root\n", "formatters"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(
    tmp_path: Path, name: str, text: str | None, complaint: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        log_config.apply(str(tmp_path / name))
    assert str(caught.value).startswith(f"log_config {str(tmp_path / name)!r}: ")
    assert complaint in str(caught.value)
    assert str(caught.value).endswith("; correct the file")


@pytest.mark.parametrize("kind", ["logging.FileHandler", "logging.handlers.RotatingFileHandler"])
def test_a_worker_opens_files_again(tmp_path: Path, kind: str) -> None:
    """What it has inherited is one open file description for all of them: a lock of one would be every one's."""
    out = configured(tmp_path, kind)
    logging.info("before")
    (handler,) = log_config._handlers
    stream = handler.stream  # type: ignore[attr-defined]
    assert log_config.descriptors() == {stream.fileno()}
    with opened_log(tmp_path / "errors") as log:
        log_config.reopen(log)
    assert stream.closed
    logging.info("after")
    assert out.read_text() == "toml before\ntoml after\n"


def test_a_file_that_cannot_be_opened_again_is_told_of(tmp_path: Path) -> None:
    configured(tmp_path)
    (handler,) = log_config._handlers
    handler.baseFilename = str(tmp_path / "no" / "such")  # type: ignore[attr-defined]
    with opened_log(tmp_path / "errors") as log:
        log_config.reopen(log)
    assert "cannot be opened again: no such file or directory" in (tmp_path / "errors").read_text()
    handler.baseFilename = os.devnull  # type: ignore[attr-defined]


def test_a_worker_makes_a_connection_of_its_own(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        text = f"""
        root = {{level = "INFO", handlers = ["net"]}}
        handlers.net = {{class = "logging.handlers.SocketHandler", host = "127.0.0.1", port = {port}}}
        """
        log_config.apply(write(tmp_path / "log.toml", text))
        logging.info("before")
        first, _ = listening.accept()
        with first, opened_log(tmp_path / "errors") as log:
            log_config.reopen(log)
            logging.info("after")
            second, _ = listening.accept()
            with second:
                assert second.recv(4) != b""
