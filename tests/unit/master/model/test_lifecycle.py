"""The tables of states and transitions."""

from __future__ import annotations

import pytest

from forkserver.master.model import lifecycle
from forkserver.master.model.lifecycle import State, UnexpectedError


def test_a_pair_outside_the_table_names_both() -> None:
    with pytest.raises(UnexpectedError, match="Ready while ordered"):
        lifecycle.following(lifecycle.WORKER, State.ORDERED, lifecycle.Transition.READY)


# Every pair that can be, as it must be: here in words of its own, so that a slip in the table is seen.
LIFE = {
    State.ORDERED: "Forked:forked ForkFailed:gone Hello:starting Overdue:failed Exited:failed",
    State.FORKED: "Hello:starting Overdue:killed Exited:failed",
    State.STARTING: "Forked:starting Loaded:starting LoadFailed:leaving Ready:serving Retire:draining Quit:leaving "
    "Overdue:stalled Exited:failed",
    State.STALLED: "Forked:stalled Loaded:stalled LoadFailed:stalled Ready:stalled Quit:leaving Overdue:killed "
    "Exited:gone",
    State.SERVING: "Forked:serving Expire:hung Retire:draining Quit:leaving Overdue:killed Exited:gone",
    State.HUNG: "Expire:hung Expiring:draining Quit:leaving Overdue:deaf Exited:gone",
    State.DEAF: "Expire:deaf Expiring:draining Quit:leaving Overdue:killed Exited:gone",
    State.DRAINING: "Forked:draining Loaded:draining LoadFailed:draining Ready:draining Expire:draining "
    "Expiring:draining Retire:draining Quit:leaving Overdue:killed Exited:gone",
    State.LEAVING: "Forked:leaving Loaded:leaving LoadFailed:leaving Ready:leaving Expiring:leaving Overdue:killed "
    "Exited:gone",
    State.KILLED: "Forked:killed Hello:killed Loaded:killed LoadFailed:killed Ready:killed Expiring:killed Exited:gone",
}
TEMPLATE_LIFE = {
    State.LOADING: "Loaded:loaded LoadFailed:ending Retire:ending Overdue:stalled Exited:gone",
    State.STALLED: "Loaded:stalled LoadFailed:stalled Retire:ending Overdue:killed Exited:gone",
    State.LOADED: "Retire:ending Overdue:killed Exited:gone",
    State.ENDING: "Loaded:ending LoadFailed:ending Retire:ending Overdue:killed Exited:gone",
    State.KILLED: "Loaded:killed LoadFailed:killed Retire:killed Exited:gone",
}


@pytest.mark.parametrize(("table", "life"), [(lifecycle.WORKER, LIFE), (lifecycle.TEMPLATE, TEMPLATE_LIFE)])
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", lifecycle.Transition)
def test_every_state_and_event_leads_where_it_must(
    table: lifecycle.Table, life: dict[State, str], state: State, event: lifecycle.Transition
) -> None:
    """What is not in the table does not happen: it is a bug, or a process that lies."""
    allowed = dict(pair.split(":") for pair in life.get(state, "").split())
    if event.value in allowed:
        assert lifecycle.following(table, state, event).value == allowed[event.value]
    else:
        with pytest.raises(UnexpectedError, match=f"{event.value} while {state.value}"):
            lifecycle.following(table, state, event)


@pytest.mark.parametrize("table", [lifecycle.WORKER, lifecycle.TEMPLATE])
def test_every_life_ends(table: lifecycle.Table) -> None:
    """From each state an exit leads out, or a process could die unnoticed."""
    for state in {state for state, _ in table}:
        assert table[state, lifecycle.Transition.EXITED] in lifecycle.OVER
