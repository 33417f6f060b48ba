"""Imports that are not shared: whatever happens, a reload ends, and the next program decides as this one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from forkserver.ipc.serialization import dump
from forkserver.master.model.events import EventKind
from harness.model import again
from harness.unshared import Service


def happen(service: Service, what: int, who: int) -> None:
    """One of the things that may happen, to one of those it may happen to."""
    importing, serving = service.begin_imports() if what < 6 else [], service.fleet.serving()
    if what <= 2 and importing:
        service.become_ready(importing[who % len(importing)])
    elif what == 3 and importing:
        service.fail(importing[who % len(importing)])
    elif what == 4 and serving:
        service.transitions.worker_exited(serving[who % len(serving)], "killed by SIGKILL", service.now)
    elif what == 5 and serving:
        service.transitions.worker_due(serving[who % len(serving)], "its age", service.now)
    elif what == 6:
        service.rollout.want_reload()
    elif what == 7:
        service.leave()
    elif what == 8:
        service.now += who
    elif what == 9 and service.rollout.rolling is not None:
        service.rollout.limit_surplus(service.rollout.rolling, who)
    elif what == 10:
        service.rollout.want_workers(1 if who % 2 else -1)
    service.act()


EVENTS = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 255)), max_size=60)


@settings(max_examples=100, deadline=None)
@given(EVENTS)
def test_a_reload_always_comes_to_an_end(events: list[tuple[int, int]]) -> None:
    """Whatever has happened: what waits for a reload is answered, well or not, and every slot is served in the end."""
    service = Service(3)
    service.boot_all()
    for what, who in events:
        happen(service, what, who)
        assert len(service.imports()) <= service.fleet.processors
    service.boot_all()
    service.leave()
    service.news()
    service.reload()
    generation = service.rollout.rolling
    for _ in range(30):
        service.boot_all()
        service.leave()
        service.now += 60
        service.act()
    assert generation is not None
    told = service.news()
    failed = {(kind, generation) for kind in (EventKind.REFUSED, EventKind.WENT_BACK, EventKind.MIXED)}
    assert any(kind is EventKind.SERVES and number >= generation for kind, number in told) or failed.intersection(
        told
    ), told
    assert service.rollout.whole()


@settings(max_examples=50, deadline=None)
@given(EVENTS)
def test_the_next_program_decides_as_this_one(events: list[tuple[int, int]]) -> None:
    one, other = Service(2), Service(2)
    for what, who in events:
        other.use(again(other.rollout))
        happen(one, what, who)
        happen(other, what, who)
        assert dump(other.rollout) == dump(one.rollout)
    assert other.rollout.take_events() == one.rollout.take_events()
