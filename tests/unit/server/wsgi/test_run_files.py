"""``wsgi.file_wrapper`` sends what reading the file would give, and by sendfile where that is the same."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from forkserver.server.wsgi.file_wrapper import FileWrapper
from harness.sink import Sink, answer

DATA = bytes(range(256)) * 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.write_bytes(DATA)
    return made


def sending(file: Any, *headers: tuple[str, str], before: bytes = b"") -> Any:
    """An application that answers with ``file``."""

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", list(headers))
        if before:
            write(before)
        return environ["wsgi.file_wrapper"](file, 1000)

    return app


def test_a_regular_file_goes_by_sendfile_from_where_it_stands_with_its_length(path: Path) -> None:
    file = path.open("rb")
    file.read(10)
    got = answer(sending(file))
    assert got.sink.files == 1
    assert got.header("Content-Length") == str(len(DATA) - 10)
    assert got.body == DATA[10:]
    assert got.response.sent == len(DATA) - 10
    assert got.response.persistent
    assert file.closed


def test_what_has_no_descriptor_is_read() -> None:
    got = answer(sending(io.BytesIO(DATA)))
    assert got.sink.files == 0
    assert got.body == DATA


def test_a_file_is_cut_to_the_announced_length(path: Path) -> None:
    """That is how a range is answered."""
    with path.open("rb") as file:
        got = answer(sending(file, ("Content-Length", "7")))
    assert got.raw_body == DATA[:7]
    assert got.response.persistent


def test_a_file_shorter_than_the_announced_length_ends_the_connection(path: Path) -> None:
    with path.open("rb") as file:
        got = answer(sending(file, ("Content-Length", str(len(DATA) + 1))))
    assert got.raw_body == DATA
    assert not got.response.persistent
    assert got.sink.reports


def test_head_sends_nothing_of_the_file_and_closes_it(path: Path) -> None:
    file = path.open("rb")
    got = answer(sending(file), "HEAD")
    assert got.raw_body == b""
    assert got.header("Content-Length") == str(len(DATA))
    assert file.closed


def test_a_file_behind_write_is_read(path: Path) -> None:
    """The head has gone out without the file's length."""
    with path.open("rb") as file:
        got = answer(sending(file, before=b"first"))
    assert got.sink.files == 0
    assert got.body == b"first" + DATA


def test_a_file_without_start_response_is_a_500_and_closed(path: Path) -> None:
    file = path.open("rb")
    got = answer(lambda environ, _start: environ["wsgi.file_wrapper"](file))
    assert got.sink.failed is not None
    assert file.closed


def test_the_file_is_closed_when_the_client_left(path: Path) -> None:
    file = path.open("rb")
    answer(sending(file), sink=Sink(0))
    assert file.closed


def test_a_failing_close_of_the_file_is_reported_and_goes_no_further(path: Path) -> None:
    """It runs when the last byte is sent, in the loop: what it raises would cost other connections theirs."""

    def close() -> None:
        raise RuntimeError("oops")

    with path.open("rb") as file:
        wrapper = FileWrapper(file)
        wrapper.close = close  # type: ignore[method-assign]

        def app(_environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [])
            return wrapper

        got = answer(app)
    assert got.body == DATA
    assert [str(error) for error in got.sink.errors] == ["oops"]
    assert not got.sink.aborted


def test_a_close_of_the_wrappers_own_class_is_called_once_when_the_file_is_sent(path: Path) -> None:
    """PEP 3333 has no file wrapper closed before its bytes are through, however it says what that is."""
    closed: list[Any] = []

    class Wrapper(FileWrapper):
        def __init__(self, filelike: Any) -> None:
            self.filelike = filelike
            self.blksize = 1000

        def close(self) -> None:
            closed.append(self.filelike.closed)

    class Keeping(Sink):
        def send_file(self, head: bytes, file: Any, offset: int, count: int, close: Any) -> None:
            super().send_file(head, file, offset, count, lambda: closed.append("sent"))
            self.close_later = close

    def app(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Wrapper(file)

    with path.open("rb") as file:
        sink = Keeping()
        assert answer(app, sink=sink).body == DATA
        assert closed == ["sent"]
        sink.close_later()
    assert closed == ["sent", False]
