"""Which files an import has read, and how that is reported."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.worker.development import file_reports
from forkserver.worker.development.file_reports import (
    REPORT_BYTES,
    FileReporter,
    Report,
    ReportKind,
    decode,
    encode,
    files_of,
    importing,
    module_files,
    search_folders,
)
from harness import BOUND

MARK, END = b"mark", b"end"  # no reports


class Watcher:
    """The other end. It hears in a thread: the kernel keeps but a few datagrams, and these tests import a lot."""

    def __init__(self) -> None:
        self.hears, sends = file_reports.pair()
        self._marks = sends.dup()
        self.reporter = FileReporter(sends)
        self._heard: SimpleQueue[bytes] = SimpleQueue()
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()

    def _hear(self) -> None:
        while data := self.hears.recv(2 * REPORT_BYTES):
            self._heard.put(data)
            if data == END:
                return

    def heard(self) -> list[Report | None]:
        """What has come so far."""
        self._marks.send(MARK)
        return [decode(data) for data in iter(partial(self._heard.get, timeout=BOUND), MARK)]

    def leave(self) -> None:
        """Hear nothing more."""
        if self._thread.is_alive():
            self._marks.send(END)
            self._thread.join()
        self.hears.close()

    def close(self) -> None:
        self.leave()
        self._marks.close()
        self.reporter.close()


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@given(st.sets(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), max_size=30))
def test_paths_come_as_they_were_sent(paths: set[str]) -> None:
    found = [decode(datagram) for datagram in encode(ReportKind.READ, paths)]
    assert {path for report in found if report for path in report.paths} == paths
    assert all(report and report.kind is ReportKind.READ for report in found)


def test_a_long_report_is_several_datagrams() -> None:
    paths = {f"/srv/site/{'x' * 200}/{number}.py" for number in range(1000)}
    datagrams = list(encode(ReportKind.READ, paths))
    assert len(datagrams) > 1
    assert max(map(len, datagrams)) <= REPORT_BYTES


def test_a_report_without_paths_is_one_datagram() -> None:
    assert list(encode(ReportKind.BEGUN, ())) == [b"B"]


def test_a_begin_without_a_time_is_the_beginning_of_all() -> None:
    for paths in ([], ["never"], ["-1"]):
        assert Report(ReportKind.BEGUN, paths).begun_ns == 0


def test_bytes_that_are_no_report_are_none() -> None:
    assert decode(b"") is None
    assert decode(b"?/a\0") is None


def test_an_import_reports_its_modules_and_not_those_of_others(site: Path, watcher: Watcher) -> None:
    (site / "watched_site.py").write_text("import json\n")
    before = time.time_ns() - 10**6  # seconds as a float have no nanoseconds
    with importing(watcher.reporter):
        __import__("watched_site")
    begun, read, *more = watcher.heard()
    paths = {path for report in (read, *more) if report for path in report.paths}
    assert begun is not None
    assert begun.kind is ReportKind.BEGUN
    assert before <= begun.begun_ns <= time.time_ns() + 10**6, "the watcher may hear of it later"
    assert str(site / "watched_site.py") in paths
    assert os.path.abspath(pytest.__file__) in paths, "an installed package may be edited"
    assert not [path for path in paths if path in (os.__file__, sys.modules["json"].__file__, file_reports.__file__)]


def test_an_import_that_fails_reports_the_files_that_it_failed_in(site: Path, watcher: Watcher) -> None:
    """No table of modules has them afterwards."""
    (site / "watched_site.py").write_text("import watched_helper\n")
    (site / "watched_helper.py").write_text("def broken(:\n")
    with pytest.raises(SyntaxError), importing(watcher.reporter):
        __import__("watched_site")
    reports = [report for report in watcher.heard() if report]
    failed = {path for report in reports if report.kind is ReportKind.FAILED for path in report.paths}
    folders = {path for report in reports if report.kind is ReportKind.FOLDERS for path in report.paths}
    assert {str(site / "watched_site.py"), str(site / "watched_helper.py")} <= failed
    assert str(site) in folders


def test_a_file_that_an_import_misses_is_among_them(site: Path) -> None:
    (site / "watched_site.py").write_text("open('settings.json')\n")
    with pytest.raises(FileNotFoundError) as caught:
        __import__("watched_site")
    assert os.path.abspath("settings.json") in files_of(caught.value)


def test_files_of_the_causes_of_an_error_are_among_its_own() -> None:
    """The application's error is told as one of forkserver's."""

    def chain() -> None:
        try:
            exec(compile("1 / 0", "/srv/site/inner.py", "exec"))
        except ZeroDivisionError:
            raise RuntimeError("outer") from None

    with pytest.raises(RuntimeError) as caught:
        chain()
    assert "/srv/site/inner.py" in files_of(caught.value)


def test_what_a_request_imports_is_reported_then(site: Path, watcher: Watcher) -> None:
    with importing(watcher.reporter):
        pass
    watcher.heard()
    watcher.reporter.look()
    assert watcher.heard() == []
    (site / "watched_late.py").write_text("")
    __import__("watched_late")
    watcher.reporter.look()
    assert watcher.heard() == [Report(ReportKind.READ, [str(site / "watched_late.py")])]


def test_a_watcher_that_has_gone_costs_nothing(watcher: Watcher) -> None:
    watcher.leave()
    with importing(watcher.reporter):
        pass


def test_without_a_reporter_nothing_is_told() -> None:
    with importing(None):
        pass


def test_packages_that_are_installed_are_no_folders_to_look_in() -> None:
    assert module_files()
    assert not [path for path in search_folders() if "site-packages" in path]
