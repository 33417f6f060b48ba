"""The state machine of a connection."""

from __future__ import annotations

from forkserver.server.connection.states import CALLING, CLOSED, NEXT, READING, READY, ConnectionState


def test_every_state_has_its_row_and_leads_to_the_end() -> None:
    assert set(NEXT) == set(ConnectionState)
    assert all(CLOSED in NEXT[state] for state in ConnectionState if state is not CLOSED)
    assert not NEXT[CLOSED]


def test_only_a_whole_request_reaches_the_application() -> None:
    assert [state for state in ConnectionState if CALLING in NEXT[state]] == [READY]
    assert CALLING not in NEXT[READING]
