"""Addresses of a reload that are those of before by another name, or overlap with them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from forkserver.errors import BindError
from forkserver.linux.privileges import Credentials
from forkserver.master.resources.listener_set import ListenerSet, Terms

TERMS = Terms(16, 0o660, Credentials())
Bind = Callable[..., ListenerSet]


@pytest.fixture
def bound() -> Iterator[Bind]:
    made: list[ListenerSet] = []

    def start(*bind: str) -> ListenerSet:
        made.append(ListenerSet(bind, (), TERMS))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def port() -> int:
    """One that is free for IPv4 and IPv6."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("names", [("127.0.0.1", "localhost"), ("localhost", "127.0.0.1")])
def test_a_listener_serves_its_address_by_another_name(bound: Bind, port: int, names: tuple[str, str]) -> None:
    before, after = names
    listener_set = bound(f"{before}:{port}")
    served = listener_set.open
    for _ in range(2):
        listener_set.change([f"{after}:{port}"], TERMS)
        assert listener_set.settle(taken=True, now=0.0) == []
        assert listener_set.open == served


def test_an_address_has_its_own_listener_before_another_name_has(bound: Bind, port: int) -> None:
    listener_set = bound(f"127.0.0.1:{port}")
    with pytest.raises(BindError, match=rf"cannot bind localhost:{port}: .* by our own 127\.0\.0\.1:{port}, which is"):
        listener_set.change([f"localhost:{port}", f"127.0.0.1:{port}"], TERMS)


def test_only_what_is_in_the_way_is_named(bound: Bind, port: int) -> None:
    """An address of IPv6 keeps none of IPv4 from being bound."""
    listener_set = bound(f"[::1]:{port}", f"127.0.0.1:{port}")
    with pytest.raises(BindError, match=rf"by our own 127\.0\.0\.1:{port}, which is .* without 127\.0\.0\.1:{port}$"):
        listener_set.change([f"0.0.0.0:{port}"], TERMS)


def test_all_that_is_in_the_way_is_named(bound: Bind, port: int) -> None:
    listener_set = bound(f"[::1]:{port}", f"127.0.0.1:{port}")
    with pytest.raises(BindError, match=rf"by our own \[::1\]:{port} and 127\.0\.0\.1:{port}, which are served"):
        listener_set.change([f"*:{port}"], TERMS)
