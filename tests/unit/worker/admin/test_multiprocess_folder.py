"""The application's figures, from a folder in which it may have put anything."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from forkserver.logs.error_log import ErrorLog
from forkserver.worker.admin import multiprocess_folder
from forkserver.worker.admin.exposition import Exposition, exposition

READABLE = "forkserver_application_metrics_readable"


def file_of(*entries: tuple[Any, float]) -> bytes:
    """A file of the library's: ``(key, value)`` each, where a key is [metric, sample, labels, help]."""
    data = b""
    for key, value in entries:
        encoded = (key if isinstance(key, str) else json.dumps(key)).encode()
        padded = encoded + b" " * (8 - (len(encoded) + 4) % 8)
        data += struct.pack(f"=i{len(padded)}sdd", len(encoded), padded, value, 0.0)
    return struct.pack("=ii", 8 + len(data), 0) + data


GOOD = file_of((["orders", "orders_total", {}, "Orders."], 2.0))


@pytest.fixture
def shown(tmp_path: Path) -> Exposition:
    return exposition(str(tmp_path), ErrorLog("-", "info", "test"))


@pytest.fixture
def render(status: dict[str, Any], shown: Exposition) -> Callable[[], dict[str, float]]:
    """The samples of the exposition, by name."""

    def samples() -> dict[str, float]:
        text = shown.render(status, "")[0].decode()
        return {each.name: each.value for family in parse(text) for each in family.samples}

    return samples


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


STRANGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a FIFO, which would be waited for": ("counter_1.db", fifo),
    "a link": ("counter_1.db", lambda path: path.symlink_to("/dev/zero")),
    "a folder": ("counter_1.db", Path.mkdir),
    "a socket": ("counter_1.db", listening),
    "an empty file": ("counter_1.db", Path.touch),
    "another kind of file": ("counter_1.db", lambda path: path.write_bytes(b"SQLite format 3\0" * 9)),
    "a key beyond the end": ("counter_1.db", lambda path: path.write_bytes(struct.pack("=iii52x", 64, 0, 1000))),
    "a length below zero": ("counter_1.db", lambda path: path.write_bytes(struct.pack("=iii52x", 64, 0, -9))),
    "no list": ("counter_1.db", lambda path: path.write_bytes(file_of((7, 1.0)))),
    "no names": ("counter_1.db", lambda path: path.write_bytes(file_of(([1, 2, {}, 3], 1.0)))),
    "labels that are none": ("counter_1.db", lambda path: path.write_bytes(file_of((["a", "a", [], ""], 1.0)))),
    "a label that is no text": (
        "counter_1.db",
        lambda path: path.write_bytes(file_of((["a", "a", {"b": 1}, ""], 1.0))),
    ),
    "a help that is no text": ("counter_1.db", lambda path: path.write_bytes(file_of((["a", "a", {}, None], 1.0)))),
    "much in each other": ("counter_1.db", lambda path: path.write_bytes(file_of(("[" * 5000, 1.0)))),
    "no kind of metric": ("songs_1.db", lambda path: path.write_bytes(GOOD)),
    "no kind of gauge": ("gauge.db", lambda path: path.write_bytes(GOOD)),
    "a name that is two lines": (
        "counter_1.db",
        lambda path: path.write_bytes(file_of((["a", "a 1\nforkserver_request_body_bytes_total", {}, ""], 1.0))),
    ),
    "a label that is two lines": (
        "counter_1.db",
        lambda path: path.write_bytes(file_of((["a", "a", {'b="1"} 1\nforkserver_x{c': "2"}, ""], 1.0))),
    ),
}


@pytest.mark.parametrize(("name", "put"), STRANGE.values(), ids=STRANGE)
def test_what_is_no_file_of_the_librarys_is_left_out_with_one_warning(
    name: str,
    put: Callable[[Path], object],
    render: Callable[[], dict[str, float]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "counter_2.db").write_bytes(GOOD)
    put(tmp_path / name)
    for _ in range(3):
        found = render()
        assert (found["orders_total"], found["forkserver_request_body_bytes_total"], found[READABLE]) == (2, 20, 0)
        assert not [each for each in found if each.startswith("forkserver_x")]
    said = capfd.readouterr().err
    assert said.count(" warning ") == 1
    assert f"{name}: " in said
    (tmp_path / name).rmdir() if name == "counter_1.db" and (tmp_path / name).is_dir() else (tmp_path / name).unlink()
    assert render()[READABLE] == 1


def test_no_figure_of_the_servers_is_replaced(render: Callable[[], dict[str, float]], tmp_path: Path) -> None:
    """Neither by the name of a metric nor by that of a sample in it."""
    names = (["forkserver_up", "forkserver_up_total", {}, ""], ["a", "forkserver_down_total", {}, ""])
    (tmp_path / "counter_1.db").write_bytes(file_of(*((name, 1.0) for name in names)))
    found = render()
    assert not {"forkserver_up_total", "forkserver_down_total"} & found.keys()
    assert found[READABLE] == 1


@pytest.mark.parametrize(("bound", "most"), [("MOST_ENTRIES", 3), ("MOST_BYTES", 3 * len(GOOD))])
def test_a_folder_that_is_too_large_is_not_read_and_told_of_once(
    bound: str,
    most: int,
    render: Callable[[], dict[str, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Not in part: counters would fall."""
    monkeypatch.setattr(multiprocess_folder, bound, most)
    for number in range(3):
        (tmp_path / f"counter_{number}.db").write_bytes(GOOD)
    assert render()["orders_total"] == 6
    (tmp_path / "counter_3.db").write_bytes(GOOD)
    for _ in range(2):
        found = render()
        assert "orders_total" not in found
        assert found[READABLE] == 0
    assert capfd.readouterr().err.count("empty it before each start") == 1


def test_a_file_that_has_gone_meanwhile_is_no_fault(
    render: Callable[[], dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counter_1.db").write_bytes(GOOD)
    monkeypatch.setattr(multiprocess_folder, "_names", lambda _directory: ["counter_1.db", "counter_2.db"])
    found = render()
    assert (found["orders_total"], found[READABLE]) == (2, 1)
