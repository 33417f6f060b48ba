"""An import that closes forkserver's own descriptors is named as what it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.config.settings import defaults
from forkserver.logs.error_log import ErrorLog
from forkserver.worker.loading import loader, own_descriptors


class Ended(BaseException):
    """In place of the process's end."""


def _end(status: int) -> None:
    raise Ended(status)


@pytest.fixture
def number(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(os, "_exit", _end)
    made = os.memfd_create("ours")
    yield made
    os.close(made)


def _load(monkeypatch: pytest.MonkeyPatch, closing: int, instead: int | None, log: ErrorLog, number: int) -> None:
    """Load with an import that closes ``closing``, or puts a copy of ``instead`` there; it is as before at the end."""
    kept = os.dup(closing)

    def imported(*_: object) -> None:
        os.close(closing)
        if instead is not None:
            os.dup2(instead, closing)

    monkeypatch.setattr(loader, "load", imported)
    try:
        own_descriptors.load(defaults(app="site:app"), log, (number,))
    finally:
        os.dup2(kept, closing, inheritable=closing == 2)
        os.close(kept)


@pytest.mark.parametrize("reused", [False, True])
def test_an_import_that_closes_a_descriptor_of_ours_ends_the_process_with_the_reason(
    number: int, reused: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open(os.devnull, "rb") as another, pytest.raises(Ended, match="3"):
        _load(monkeypatch, number, another.fileno() if reused else None, ErrorLog("-", "info"), number)
    said = capfd.readouterr().err
    assert f"application 'site:app': its import has closed descriptors of forkserver's ({number})" in said


def test_where_the_log_is_closed_too_the_standard_error_has_the_reason(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = ErrorLog(str(tmp_path / "log"), "info")
    with pytest.raises(Ended):
        _load(monkeypatch, log.fileno(), None, log, number)
    log.close()
    assert f"its import has closed descriptors of forkserver's ({log.fileno()})" in capfd.readouterr().err


def test_an_import_may_redirect_the_standard_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the log writes to it as it is, as to the journal's stream, it has no number of its own."""
    with open(tmp_path / "journal", "wb") as journal, open(tmp_path / "redirected", "wb") as redirected:
        kept = os.dup(2)
        os.dup2(journal.fileno(), 2)
        try:
            _load(monkeypatch, 2, redirected.fileno(), ErrorLog("-", "info"), number)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
