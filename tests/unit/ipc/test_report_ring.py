"""A report arrives whole, and what a child writes into the memory beside it moves nothing but the child's own words."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator

import pytest

from forkserver.ipc import messages
from forkserver.ipc.messages import MessageError
from forkserver.ipc.report_ring import HEADER_BYTES, RING_BYTES, Ends, Inbox, Outbox


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    made = Inbox()
    yield made
    made.close()


@pytest.fixture
def outbox(inbox: Inbox) -> Iterator[Outbox]:
    made = Outbox(Ends(*map(os.dup, inbox.ends)))
    yield made
    made.close()


def test_reports_arrive_in_their_order_round_and_round(inbox: Inbox, outbox: Outbox) -> None:
    """Several times round the ring, so that frames lie across its end."""
    for number in range(5000):
        sent: list[messages.Message] = [
            messages.RecyclingDue(f"{number}" * (number % 17)),
            messages.Forked(number, number),
        ]
        assert all(map(outbox.send, sent))
        assert [inbox.receive(), inbox.receive()] == sent
    assert inbox.receive() is None


def test_a_full_ring_takes_nothing_until_the_master_has_read(inbox: Inbox, outbox: Outbox) -> None:
    long = messages.RecyclingDue("x" * 20_000)
    sent = 0
    while outbox.send(long):
        sent += 1
    assert sent == RING_BYTES // 20_009
    assert inbox.receive() == long
    assert inbox.waiting
    assert outbox.send(long)
    assert [inbox.receive() for _ in range(sent + 1)] == [*[long] * sent, None]


@pytest.mark.parametrize("announced", [1, 4, 5, 100, RING_BYTES + 1, 1 << 40, (1 << 64) - 2])
def test_what_was_not_written_is_not_believed(inbox: Inbox, announced: int) -> None:
    os.eventfd_write(inbox.ends.bell, announced)
    with pytest.raises(MessageError):
        inbox.receive()


def test_a_length_beyond_what_was_announced_is_not_believed(inbox: Inbox) -> None:
    with mmap.mmap(inbox.ends.memory, 0) as shared:
        shared[HEADER_BYTES : HEADER_BYTES + 4] = (1000).to_bytes(4, "little")
    os.eventfd_write(inbox.ends.bell, 10)
    with pytest.raises(MessageError, match="1000 bytes where 10 were announced"):
        inbox.receive()


def test_the_word_of_the_master_is_never_read_by_it(inbox: Inbox, outbox: Outbox) -> None:
    outbox.send(messages.Ready())
    with mmap.mmap(inbox.ends.memory, 0) as shared:
        shared[:HEADER_BYTES] = b"\xff" * HEADER_BYTES
    assert inbox.receive() == messages.Ready()


def test_a_child_that_clears_the_flag_of_the_bell_does_not_make_the_master_wait(inbox: Inbox) -> None:
    """O_NONBLOCK belongs to all who share the descriptor."""
    os.set_blocking(inbox.ends.bell, True)
    assert inbox.receive() is None


@pytest.mark.parametrize("size", [0, HEADER_BYTES + RING_BYTES + 1])
def test_the_memory_keeps_its_size(inbox: Inbox, size: int) -> None:
    """A master that reads what was cut off is killed by SIGBUS."""
    with pytest.raises(PermissionError):
        os.ftruncate(inbox.ends.memory, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(inbox.ends.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_an_inbox_goes_on_where_it_stood(inbox: Inbox, outbox: Outbox) -> None:
    """In the next program, over an exec."""
    for why in ("first", "second"):
        outbox.send(messages.RecyclingDue(why))
    assert inbox.receive() == messages.RecyclingDue("first")
    again = Inbox(inbox.snapshot()._replace(memory=os.dup(inbox.ends.memory), bell=os.dup(inbox.ends.bell)))
    outbox.send(messages.RecyclingDue("third"))
    assert [again.receive() for _ in range(3)] == [
        messages.RecyclingDue("second"),
        messages.RecyclingDue("third"),
        None,
    ]
    again.close()


def test_a_bell_that_is_full_is_no_room(inbox: Inbox, outbox: Outbox) -> None:
    os.eventfd_write(inbox.ends.bell, (1 << 64) - 2)
    assert not outbox.send(messages.Ready())


@pytest.mark.parametrize("call", ["eventfd", "memfd_create", "ftruncate"])
def test_what_cannot_be_had_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The autouse fixture looks for it."""

    def refused(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, call, refused)
    with pytest.raises(OSError, match="Too many"):
        Inbox()


def test_any_bytes_go_through_a_ring_that_is_used_without_messages(inbox: Inbox, outbox: Outbox) -> None:
    """The samples of a profile do, and their reader checks what they are."""
    assert outbox.put_frame(b"\xff\x00 anything")
    assert outbox.put_frame(b"more")
    assert [inbox.take_frame(), inbox.take_frame(), inbox.take_frame()] == [b"\xff\x00 anything", b"more", None]
