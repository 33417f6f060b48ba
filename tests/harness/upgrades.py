"""A master's state without a master, and a next program that a trial runs."""

from __future__ import annotations

from pathlib import Path

from forkserver.config import loading
from forkserver.config.invocation import Environment
from forkserver.linux.sockets import listening_socket
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import Purpose, Times
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.model.rollout import Rollout
from forkserver.master.monitoring import statistics
from forkserver.master.resources import generation_config, listener_set, resources
from forkserver.master.upgrade.snapshot import Snapshot
from forkserver.worker.loading.release_paths import Release
from harness.model import Model

ANSWERS = """
import json, os
_, state, answer = os.environ["FORKSERVER_UPGRADE"].split(":")
print("noise")
os.pwrite(int(answer), json.dumps([os.pread(int(state), 99, 0).decode(), "", ""]).encode(), 0)
"""


def carried(pid: int) -> Snapshot:
    """A master that holds nothing real."""
    model = Model(Rollout(Fleet(2)))
    model.rollout.begin(Purpose.START, 2, Times(60.0, 30.0), shares=True)
    model.transitions.template_loaded(model.transitions.template_started(1, 101, 0.0), 0.0)
    model.transitions.worker_announced(model.transitions.worker_ordered(0, 1, row=0, now=0.0), 102, 0.0)
    run_by = loading.snapshot(loading.load(["raw:app", "-w", "2"], {}))
    bound = listener_set.ListenerSetSnapshot(
        [listener_set.BoundSnapshot("myapp.socket", listening_socket.ListenerSnapshot(3, False, False, 1, None))],
        [],
        True,
        NEVER,
        3,
    )
    control = listening_socket.ListenerSnapshot(4, True, False, 2, (8, 15))
    held = resources.ResourcesSnapshot(run_by, -1, -1, 5, bound, control, "/run/my.pid")
    release = Release("/srv/1", None, ["/srv/1/lib"])
    configs = [generation_config.GenerationConfigsSnapshot(1, run_by, 5, release=release)]
    counted = statistics.StatisticsSnapshot(77, {"reload": 2}, 1.5, [102])
    return Snapshot(
        pid, "forkserver 2", model.rollout, held, (7, 8), configs, counted, [9, -1], [1], {103: 9}, [(1, 0, 7)], 0
    )


def switched(tmp_path: Path, python: str = "") -> Environment:
    """An environment that was reached through a link, which leads to another one by now."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to("new")
    return Environment(str(tmp_path / "current"), str(tmp_path / "old"), python)
