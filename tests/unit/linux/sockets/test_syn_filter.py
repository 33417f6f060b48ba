"""New connections are kept out of a TCP queue, and those under way are served in full."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from forkserver.linux.sockets import syn_filter
from harness.listening import Open


@pytest.fixture(params=[pytest.param("filter", marks=pytest.mark.as_root), "hops"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to refuse arrivals; newer kernels forbid the filter to all but CAP_NET_ADMIN."""

    def forbidden(listening: socket.socket) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "hops":
        monkeypatch.setattr(syn_filter, "attach", forbidden)
    return str(request.param)


@pytest.mark.parametrize(("bind", "host"), [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")])
def test_a_syn_is_not_answered_after_arrivals_are_refused(opened: Open, way: str, bind: str, host: str) -> None:
    """Neither accepted nor reset: the client's kernel tries again, and finds the server that listens then."""
    (listener,) = opened(bind)
    listener.refuse_arrivals()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as late:
        late.setblocking(False)
        assert late.connect_ex((host, listener.socket.getsockname()[1])) == errno.EINPROGRESS
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        with pytest.raises(BlockingIOError):
            listener.socket.accept()


def test_a_queue_tells_that_arrivals_are_refused(opened: Open, way: str) -> None:
    (listener,) = opened("127.0.0.1:0")
    assert not syn_filter.blocked(listener.socket)
    listener.refuse_arrivals()
    assert syn_filter.blocked(listener.socket)


def test_a_client_in_the_middle_of_its_handshake_is_served_in_full(opened: Open, way: str) -> None:
    """Such a connection inherits the hop limit of its listener: until that is lifted it hears nothing more."""
    (listener,) = opened("127.0.0.1:0")
    # The kernel makes the connection only when data comes: the handshake is still under way when arrivals are refused.
    listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    with socket.create_connection(listener.socket.getsockname()) as client:
        listener.refuse_arrivals()
        client.sendall(b"head")
        listener.socket.setblocking(True)
        accepted, _ = listener.socket.accept()
        with accepted:
            accepted.settimeout(10)
            assert accepted.recv(4) == b"head"
            client.sendall(b"body")
            assert syn_filter.limited(listener.socket) is (way == "hops")
            syn_filter.lift_hop_limit(accepted)
            assert accepted.recv(4) == b"body"


def test_without_a_filter_the_hop_limit_of_the_listener_says_so(opened: Open, way: str) -> None:
    (listener,) = opened("[::1]:0")
    assert not syn_filter.limited(listener.socket)
    syn_filter.block_new_connections(listener.socket)
    assert syn_filter.limited(listener.socket) is (way == "hops")
    syn_filter.lift_hop_limit(listener.socket)
    assert not syn_filter.limited(listener.socket)


def test_a_socket_that_has_no_hops_is_left_alone(opened: Open, tmp_path: Path) -> None:
    """A Unix socket; and what an application's get_request() returns may only resemble a socket."""
    (listener,) = opened(f"unix:{tmp_path}/s")
    assert not syn_filter.limited(listener.socket)
    syn_filter.lift_hop_limit(listener.socket)
    syn_filter.lift_hop_limit(object())  # type: ignore[arg-type]
