"""The model of one master: the facts of its processes, the decisions about them, and the events that change both."""

from __future__ import annotations

from forkserver.linux.common.records import NamedTuple
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.rollout import Rollout
from forkserver.master.model.transitions import Transitions


class Model(NamedTuple):
    fleet: Fleet
    rollout: Rollout
    transitions: Transitions

    @classmethod
    def of(cls, rollout: Rollout) -> Model:
        """The model with ``rollout`` and its fleet."""
        return cls(rollout.fleet, rollout, Transitions(rollout))
