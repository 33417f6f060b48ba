"""The next free port in place of one that is in use, where that is wanted."""

from __future__ import annotations

import socket

import pytest

from forkserver.errors import BindError
from forkserver.linux.privileges import Credentials
from forkserver.master.resources.listener_set import ListenerSet, Terms

TERMS = Terms(16, 0o660, Credentials())


def test_where_a_port_is_in_use_the_next_free_one_is_served_where_that_is_wanted() -> None:
    """And the address stays what it was for a reload."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(BindError):
            ListenerSet([taken], (), TERMS)
        made = ListenerSet([taken], (), TERMS._replace(more_ports=100))
        try:
            ((address, listener),) = made.on_other_ports
            assert address == taken
            assert 0 < listener.port - other.getsockname()[1] <= 100
            made.change([taken], TERMS)
            assert made.settle(True, 100.0) == []
            assert made.open == [listener]
        finally:
            made.close()


def test_a_port_of_the_kernels_choice_is_no_other_one() -> None:
    made = ListenerSet(["127.0.0.1:0"], (), TERMS)
    assert made.on_other_ports == []
    made.close()
