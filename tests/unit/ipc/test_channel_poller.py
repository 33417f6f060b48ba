"""One wait for all channels: it names the processes that have reported, and no process holds it up."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from forkserver.ipc import messages
from forkserver.ipc.channel import MAX_DESCRIPTORS, Channel, MasterChannel, close_all
from forkserver.ipc.channel_poller import ChannelPoller
from harness import BOUND

AddChild = Callable[[str], Channel]


@pytest.fixture
def wake_up() -> Iterator[int]:
    made = os.eventfd(0)
    yield made
    os.close(made)


@pytest.fixture
def refused() -> list[tuple[str, messages.Message, int | None]]:
    """Orders that the kernel has refused: process, order and errno."""
    return []


@pytest.fixture
def poller(wake_up: int, refused: list[tuple[str, messages.Message, int | None]]) -> Iterator[ChannelPoller[str]]:
    made: ChannelPoller[str] = ChannelPoller(
        wake_up, lambda process, order, error: refused.append((process, order, error.errno))
    )
    yield made
    made.close()


@pytest.fixture
def child(poller: ChannelPoller[str]) -> Iterator[AddChild]:
    """Add a process by its name; gives its end of the channel."""
    ends: list[Channel] = []

    def add(process: str) -> Channel:
        ours, end = MasterChannel.pair()
        ends.append(Channel.of([os.dup(number) for number in end.descriptors()]))
        end.orders.close()
        poller.add(process, ours)
        return ends[-1]

    yield add
    for each in ends:
        each.close()


def received(poller: ChannelPoller[str], process: str) -> messages.Message | None:
    channel = poller.channel(process)
    assert channel is not None
    return channel.receive()


def test_a_wait_names_each_process_that_has_reported_once(poller: ChannelPoller[str], child: AddChild) -> None:
    """Also one whose report and whose end are both there."""
    first, _, third = child("first"), child("second"), child("third")
    first.send(messages.Hello())
    first.send(messages.Loaded())
    third.send(messages.Hello())
    third.close()
    assert sorted(poller.wait(math.inf)) == ["first", "third"]
    assert list(poller) == ["first", "second", "third"]


def test_a_wait_of_no_time_names_no_silent_process(poller: ChannelPoller[str], child: AddChild) -> None:
    child("silent")
    assert poller.wait(0) == []
    assert poller.wait(-1.0) == []


def test_what_was_not_taken_wakes_the_next_wait_at_once(poller: ChannelPoller[str], child: AddChild) -> None:
    """The master takes a bounded number of reports from each; the bell has been read by then."""
    end = child("talkative")
    end.send(messages.Hello())
    end.send(messages.Loaded())
    assert received(poller, "talkative") == messages.Hello()
    assert poller.wait(math.inf) == ["talkative"]
    assert received(poller, "talkative") == messages.Loaded()
    assert poller.wait(0) == []


def test_the_end_of_a_process_is_named(poller: ChannelPoller[str], child: AddChild) -> None:
    child("ending").close()
    assert poller.wait(math.inf) == ["ending"]
    with pytest.raises(EOFError):
        received(poller, "ending")


@pytest.mark.parametrize("late", [False, True])
def test_a_further_descriptor_ends_a_wait_and_names_no_process(
    poller: ChannelPoller[str], child: AddChild, wake_up: int, late: bool
) -> None:
    """Signals, and clients of the control socket."""
    child("silent")
    another = os.eventfd(0)
    try:
        poller.wake_by(another)
        os.eventfd_write(another if late else wake_up, 1)
        assert poller.wait(math.inf) == []
    finally:
        os.close(another)


def test_a_time_longer_than_the_kernel_counts_is_a_wait(poller: ChannelPoller[str], child: AddChild) -> None:
    """epoll_wait(2) takes milliseconds as an int; a deadline of a month is beyond that."""
    child("reporting").send(messages.Hello())
    assert poller.wait(1e12) == ["reporting"]


def test_an_order_reaches_its_process_with_its_descriptors(poller: ChannelPoller[str], child: AddChild) -> None:
    end = child("ordered")
    with open(os.devnull, "rb") as file:
        assert poller.order("ordered", messages.Guard(), [file.fileno()])
        arrival = end.receive()
        assert arrival is not None
        assert arrival.message == messages.Guard()
        (given,) = arrival.descriptors
        assert os.path.sameopenfile(given, file.fileno())
        os.close(given)


def test_a_process_that_was_dropped_is_neither_named_nor_ordered(poller: ChannelPoller[str], child: AddChild) -> None:
    end = child("dropped")
    end.send(messages.Hello())
    poller.drop("dropped")
    poller.drop("dropped")
    assert poller.wait(0) == []
    assert not poller.order("dropped", messages.Drain())
    assert poller.channel("dropped") is None
    with pytest.raises(EOFError):
        end.receive()


def test_the_next_program_is_told_where_the_channels_are(poller: ChannelPoller[str], child: AddChild) -> None:
    child("one")
    channel = poller.channel("one")
    assert isinstance(channel, MasterChannel)
    assert poller.descriptors(["one", "gone"]) == [channel.fileno(), -1]
    assert poller.report_rings(["one", "gone"]) == [channel.snapshot(), None]


def test_the_first_reports_of_many_processes_are_all_named_by_one_wait(
    poller: ChannelPoller[str], child: AddChild
) -> None:
    """The kernel would give a bounded number of events, and a wait of no time has no second chance."""
    names = [f"worker {number}" for number in range(40)]
    for name in names:
        child(name).send(messages.Hello())
    assert poller.wait(BOUND) == names


def test_a_wait_may_be_longer_than_the_kernel_counts(poller: ChannelPoller[str], wake_up: int) -> None:
    """A lifetime of a month, and nothing else to wake for: that must not end the master."""
    os.eventfd_write(wake_up, 1)
    assert poller.wait(31 * 86400.0) == []


def test_what_has_come_is_heard_before_its_time_is_judged(
    poller: ChannelPoller[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A master that was stopped until the end of its wait gets nothing of that, whatever has come (PEP 475)."""
    ours, theirs = MasterChannel.pair()
    poller.add("template", ours)
    polled, epoll = iter([[]]), poller._epoll
    late = SimpleNamespace(poll=lambda *arguments: next(polled, None) or epoll.poll(*arguments))
    theirs.orders.close()
    with monkeypatch.context() as patch:
        patch.setattr(poller, "_epoll", late)
        assert poller.wait(60.0) == ["template"]


def test_an_order_that_the_kernel_refuses_counts_as_not_sent_and_is_told(
    poller: ChannelPoller[str], child: AddChild, refused: list[tuple[str, messages.Message, int | None]]
) -> None:
    """It concerns one process, and is no reason to end the caller."""
    end = child("first")
    too_many = [end.fileno()] * (MAX_DESCRIPTORS + 1)
    assert not poller.order("first", messages.Guard(), too_many)
    assert refused == [("first", messages.Guard(), errno.EINVAL)]
    assert poller.order("first", messages.Guard(), too_many[1:])
    arrival = end.receive()
    assert arrival is not None
    assert len(arrival.descriptors) == MAX_DESCRIPTORS
    close_all(arrival.descriptors)
