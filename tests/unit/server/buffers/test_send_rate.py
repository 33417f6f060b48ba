"""What a client has taken is told from the kernel's queue, not from what the kernel was given."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from math import inf

import pytest

from forkserver.server.buffers.send_rate import LUMP_BYTES, SendRate

KIB = 1024


@pytest.fixture(params=[socket.AF_INET, socket.AF_UNIX])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection; the first one's buffer is small."""
    if request.param == socket.AF_UNIX:
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def fill(sock: socket.socket) -> int:
    sent = 0
    try:
        while True:
            sent += sock.send(bytes(64 * KIB))
    except BlockingIOError:
        return sent


def read(sock: socket.socket, count: int) -> None:
    while count:
        count -= len(sock.recv(count))


def test_what_the_client_reads_counts_as_taken(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    pace = SendRate(ours, 100.0)
    pace.sent = fill(ours)
    before = pace.taken()
    assert before < pace.sent
    read(theirs, pace.sent)
    assert pace.taken() == pace.sent
    assert pace.rate(110.0) == (pace.sent + LUMP_BYTES) / 10


def test_progress_is_no_less_than_was_asked_for(ends: tuple[socket.socket, socket.socket]) -> None:
    """One byte now and then keeps no answer."""
    pace = SendRate(ends[0], 100.0)
    pace.sent = 1000
    assert pace.look(130.0, 1001) == 100.0
    assert pace.look(130.0, 1000) == pytest.approx(130.0, abs=20)
    assert pace.look(170.0, 1) == pace.progress_at


QUIET = [
    pytest.param(20 * KIB * 7, 5.5, True, id="reads-evenly-and-its-window-opens-every-six-seconds"),
    pytest.param(20 * KIB * 7, 6.5, False, id="took-a-lot-in-its-first-second-and-nothing-since"),
    pytest.param(200 * KIB * 7, 3.0, False, id="was-quick-and-has-stopped"),
    pytest.param(0, 0.0, False, id="reads-nothing"),
]


@pytest.mark.parametrize(("taken", "quiet", "reads"), QUIET)
def test_a_client_that_reads_in_lumps_is_told_from_one_that_has_stopped(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, taken: int, quiet: float, reads: bool
) -> None:
    """Clients that fill the spool must not make room for themselves at the cost of a phone."""
    monkeypatch.setattr(SendRate, "_quiet_seconds", lambda _: quiet)
    pace = SendRate(ends[0], 100.0)
    pace.sent = taken
    assert pace.rate(107.0) == ((taken + LUMP_BYTES) / 7 if reads else 0.0)


def test_a_drip_is_not_taken_for_a_lump(ends: tuple[socket.socket, socket.socket]) -> None:
    pace = SendRate(ends[0], 100.0)
    pace.sent = 3 * KIB
    assert pace.rate(101.0) <= 6 * KIB


def test_a_client_at_its_very_beginning_is_not_slow(ends: tuple[socket.socket, socket.socket]) -> None:
    assert SendRate(ends[0], 100.0).rate(100.0) == inf


def test_a_closed_socket_has_no_pace(ends: tuple[socket.socket, socket.socket]) -> None:
    """Another thread may close the connection while its call waits."""
    pace = SendRate(ends[0], 100.0)
    ends[0].close()
    assert (pace.taken(), pace.rate(110.0)) == (0, 0.0)
