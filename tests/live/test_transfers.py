"""Large bodies, both ways: whole, at flat memory, and without harm to the clients beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from harness.clients import request
from harness.processes import peak_kib
from harness.program import StartProgram

MIB = 1 << 20
# What a worker may grow by while it moves a body of any size: a few buffers of 1 MiB and the allocator's slack.
FLAT_KIB = 16 * 1024
UPLOAD = 100 * MIB
DOWNLOAD = 1024 * MIB


def test_an_upload_of_100_mb_arrives_whole_at_flat_memory(program: StartProgram, record_property) -> None:
    """The body is collected before the application is called; it must wait on disk, not in memory."""
    server = program("raw:app")
    (worker,) = server.workers()
    block = bytes(range(256)) * (MIB // 256)
    with server.connect() as wire:
        wire.get()  # what a first request costs is not what an upload costs
        before = peak_kib(worker.pid)
        head = request("/digest", method="POST").replace(b"Content-Length: 0", f"Content-Length: {UPLOAD}".encode())
        digest = hashlib.sha256()
        wire.send(head)
        for _ in range(UPLOAD // MIB):
            wire.send(block)
            digest.update(block)
        assert wire.answer().text == f"{UPLOAD} {digest.hexdigest()}"
        grown = peak_kib(worker.pid) - before
    record_property("grown KiB", grown)
    print(
        f"upload of {UPLOAD // MIB} MiB: the worker's peak is {peak_kib(worker.pid)} KiB, {grown} KiB more than before"
    )
    assert grown < FLAT_KIB


def test_a_download_of_1_gb_arrives_whole_at_flat_memory(program: StartProgram, record_property) -> None:
    server = program("raw:app")
    (worker,) = server.workers()
    with server.connect() as wire:
        wire.get()
        before = peak_kib(worker.pid)
        wire.ask(f"/large/{DOWNLOAD}")
        assert wire.head().headers["Content-Length"] == str(DOWNLOAD)
        assert wire.count(DOWNLOAD) == DOWNLOAD
        assert wire.get().status == 200, "the connection is kept, and nothing came after the body"
        grown = peak_kib(worker.pid) - before
    record_property("grown KiB", grown)
    print(f"download of {DOWNLOAD // MIB} MiB: the worker's peak is {peak_kib(worker.pid)} KiB, {grown} KiB more")
    assert grown < FLAT_KIB


def test_a_slow_reader_of_1_gb_does_not_slow_the_others(program: StartProgram) -> None:
    """The reader takes its head and then nothing: everybody else must be served as if it were not there."""
    server = program("raw:app", "-w", "4")
    with server.connect() as slow, server.connect() as other:
        slow.ask(f"/large/{DOWNLOAD}")
        assert slow.head().status == 200
        for _ in range(200):
            assert other.get().status == 200
        for _ in range(200):
            with server.connect() as wire:
                assert wire.get(headers="Connection: close\r\n").status == 200
        assert slow.count(DOWNLOAD) == DOWNLOAD
        assert slow.get().status == 200


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_a_request_in_pieces_is_the_same_request(program: StartProgram, piece: int) -> None:
    """TCP keeps no borders: a head or a body may arrive byte by byte."""
    server = program("raw:app")
    body = b"a body in pieces"
    whole = request("/echo", method="POST", body=body)
    with server.connect() as wire:
        for at in range(0, len(whole), piece):
            wire.send(whole[at : at + piece])
        assert wire.answer().body == body


def test_a_body_longer_than_max_body_is_refused_before_it_is_sent(program: StartProgram) -> None:
    """The client learns it from the head; nobody stores what will not be served."""
    server = program("raw:app", "--max-body", "1MiB")
    with server.connect() as wire:
        wire.send(b"POST /digest HTTP/1.1\r\nHost: test\r\nContent-Length: 1048577\r\n\r\n")
        assert wire.answer().status == 413
        assert wire.ended()


def test_a_client_that_leaves_in_its_upload_costs_nothing(program: StartProgram) -> None:
    """A truncated body is never handed to the application as a complete one."""
    server = program("raw:app")
    with server.connect() as wire:
        wire.send(b"POST /digest HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nonly this")
    with server.connect() as wire:
        assert wire.get().status == 200
    assert server.stop() == 0
    assert "Traceback" not in server.log.text()


def test_files_on_a_kept_connection_reach_a_reader_that_takes_its_time(program: StartProgram, tmp_path: Path) -> None:
    """What sendfile has left belongs to the connection's rest, on its second answer as on the first."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4096 * 16)
    server = program("raw:unchecked", environ={"FILE": str(path)})
    with server.connect() as wire:
        for _ in range(3):
            wire.ask("/file")
            assert wire.head().headers["Content-Length"] == str(16 * MIB)
            with server.connect() as other:
                assert other.get().status == 200  # while nobody reads the file
            assert wire.exactly(16 * MIB) == path.read_bytes()
