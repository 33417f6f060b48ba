"""The next program is called as this one was, and tried in a child before anybody becomes it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from forkserver.config import loading, settings
from forkserver.config.invocation import Environment
from forkserver.errors import ConfigError, ForkserverError
from forkserver.ipc import messages, report_ring, scoreboard
from forkserver.ipc.scoreboard import Scoreboard
from forkserver.ipc.serialization import dump, load
from forkserver.linux import signals, syscalls
from forkserver.linux.sockets import listening_socket
from forkserver.master.model.fleet import Fleet
from forkserver.master.model.generation import Purpose, Times
from forkserver.master.model.lifecycle import NEVER
from forkserver.master.model.rollout import Rollout
from forkserver.master.monitoring import statistics
from forkserver.master.resources import generation_config, listener_set, resources
from forkserver.master.upgrade import snapshot, upgrade
from forkserver.master.upgrade.new_program import NewProgram, Trial, TrialResult
from forkserver.master.upgrade.snapshot import Snapshot, SnapshotError
from forkserver.master.upgrade.upgrade import Order, Upgrade
from forkserver.server.handoff import queue
from forkserver.worker.loading.release import Release
from harness import reach
from harness.intruder import give
from harness.model import Model

LAYOUTS = Path(__file__).with_name("state-layout-1.json")
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
    run_by = settings.snapshot(loading.load(["raw:app", "-w", "2"], {}))
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


@pytest.fixture
def memory() -> Iterator[Callable[[Any], int]]:
    opened: list[int] = []

    def make(content: Any) -> int:
        opened.append(content.sealed() if isinstance(content, Snapshot) else snapshot.sealed(content, "test"))
        return opened[-1]

    yield make
    for number in opened:
        os.close(number)


# The state


def test_a_state_is_read_as_it_was_written(memory: Callable[[Any], int]) -> None:
    written = carried(42)
    read = snapshot.read(memory(written))
    assert dump(read) == dump(written)
    assert settings.from_snapshot(read.resources.settings) == loading.load(["raw:app", "-w", "2"], {})


def test_a_state_says_where_children_report(memory: Callable[[Any], int]) -> None:
    """None is for a child of an older program, which reports on its channel."""
    written = carried(42)._replace(reports=[report_ring.ReportRingSnapshot(10, 11, 500, 9), None], claims={1: 103})
    read = snapshot.read(memory(written))
    assert (read.reports, read.claims) == (written.reports, written.claims)
    assert {10, 11} <= set(read.descriptors())


def test_nobody_can_change_a_state_that_is_written(memory: Callable[[Any], int]) -> None:
    number = memory(carried(42))
    with pytest.raises(PermissionError):
        os.pwrite(number, b"x", 0)
    assert not os.get_inheritable(number)


@pytest.mark.parametrize("name", ["state", "messages", "scoreboard"])
def test_another_layout_is_refused_by_its_number(memory: Callable[[Any], int], name: str) -> None:
    """Old workers talk to the new master, and write into memory that it reads."""
    content = json.loads(os.pread(memory(carried(42)), 1 << 20, 0))
    content["layouts"][name] = 99
    with pytest.raises(SnapshotError, match=f"layout of {name} is number 99 .* restart instead"):
        snapshot.read(memory(content))


@pytest.mark.parametrize("content", [[], {}, {"layouts": {}}, {"layouts": 3, "state": {}}, "x"])
def test_what_is_no_state_is_refused(memory: Callable[[Any], int], content: Any) -> None:
    with pytest.raises(SnapshotError, match="no state of a running forkserver"):
        snapshot.read(memory(content))


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    with pytest.raises(SnapshotError, match="no state"):
        snapshot.read(987654)


def test_a_state_of_an_earlier_version_is_understood() -> None:
    """As long as LAYOUT stays the same: a field that is added needs a default, one that is removed another LAYOUT."""
    plain = json.loads(LAYOUTS.read_text())
    assert plain["layouts"]["state"] == snapshot.LAYOUT, "write the file of the new layout beside this test"
    read = load(Snapshot, snapshot._of_now(plain["state"]))
    assert read.rollout.fleet.workers[0].pid == 102
    assert settings.from_snapshot(read.resources.settings).workers == 2


def test_settings_of_another_version_are_read_as_far_as_they_are_known() -> None:
    """A setting that is new has its default, one that is gone is left out."""
    held = settings.snapshot(loading.load(["raw:app", "-w", "7"], {}))
    del held.values["threads"]
    held.values["long_gone"] = 1
    read = settings.from_snapshot(held)
    assert (read.workers, read.threads) == (7, 1)
    assert not hasattr(read, "long_gone")


def test_the_protocol_has_a_number_for_each_shape_of_a_message() -> None:
    """Workers of two programs talk to one master and hand connections to each other. A change of shape needs
    another messages.PROTOCOL, so that the trial refuses it; then set this digest anew.
    """
    shapes = [(code, fixed.format, list(each._fields)) for code, (each, fixed) in sorted(messages._WIRE.items())]
    told = repr((shapes, queue._HEAD.format, messages._LENGTH.format))
    assert (messages.PROTOCOL, hashlib.sha256(told.encode()).hexdigest()[:16]) == (3, "5290d3f4f7367244")


def test_the_scoreboard_has_a_number_for_each_layout() -> None:
    """A word that moves needs another scoreboard.LAYOUT; one in the room to grow, which older programs leave zero,
    does not. Then set this digest anew.
    """
    words = [value for name, value in sorted(vars(scoreboard).items()) if name.isupper() and isinstance(value, int)]
    assert (scoreboard.LAYOUT, hashlib.sha256(repr(words).encode()).hexdigest()[:16]) == (3, "d5e0397852e8c858")


def test_a_scoreboard_is_taken_over_with_what_is_written_in_it() -> None:
    made = Scoreboard(rows=3, threads=2)
    made[1].words[scoreboard.REQUESTS] = 7
    same = Scoreboard.restore(made.fd)
    assert (same.rows, same.threads, same[1].words[scoreboard.REQUESTS]) == (3, 2, 7)
    same[2].words[scoreboard.PID] = 41
    assert made[2].words[scoreboard.PID] == 41
    os.close(made.fd)


def test_what_is_no_scoreboard_is_refused(memory: Callable[[Any], int]) -> None:
    with pytest.raises(ForkserverError, match=f"no scoreboard of layout {scoreboard.LAYOUT}"):
        Scoreboard.restore(memory({}))


# How the next program is called


def test_the_interpreter_is_looked_up_again_where_it_was_found(tmp_path: Path) -> None:
    """A virtual environment is replaced under the same path; PATH leads where it leads now."""
    python = tmp_path / "python9"
    python.touch(0o755)
    found = [
        NewProgram([word], {"PATH": str(tmp_path)}, "/").program()
        for word in (".venv/bin/python", "/srv/bin/python", "python9", "no-such")
    ]
    assert found == [".venv/bin/python", "/srv/bin/python", str(python), sys.executable]


def switched(tmp_path: Path, python: str = "") -> Environment:
    """An environment that was reached through a link, which leads to another one by now."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to("new")
    return Environment(str(tmp_path / "current"), str(tmp_path / "old"), python)


def test_the_interpreter_is_that_of_the_environment_that_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script's first line names the old one, and the interpreter finds its environment by its own name."""
    ran: list[Any] = []
    monkeypatch.setattr(syscalls, "execute", lambda *arguments: ran.extend(arguments))
    monkeypatch.setattr(os, "chdir", lambda _: None)
    words = ["/releases/1/venv/bin/python", "-I", "/current/venv/bin/forkserver", "a:b"]
    NewProgram(words, {}, "/", switched(tmp_path, "/current/venv/bin/python")).become("try:3:4")
    assert ran[0] == "/current/venv/bin/python"
    assert ran[1] == ["/current/venv/bin/python", *words[1:]]
    assert words[0] == "/releases/1/venv/bin/python"


def test_a_next_program_in_the_old_environment_is_refused(tmp_path: Path) -> None:
    """It would be called upgraded, and serve new code with old dependencies."""
    environment = switched(tmp_path)
    refused = TrialResult("forkserver 2", details=environment.real).checked(environment)
    assert refused.program == ""
    assert f"leads to {tmp_path}/new by now, but forkserver 2 runs in {environment.real}" in refused.reason
    good = TrialResult("forkserver 2", details=f"{tmp_path}/new")
    assert good.checked(environment) is good
    assert good.new_program == f"forkserver 2 in {tmp_path}/new"
    older = TrialResult("forkserver 1")  # which does not say where it runs
    assert older.checked(environment) is older
    assert older.new_program == "forkserver 1"


# The trial


def trial(words: list[str], directory: str = "/", content: Any = "state", **more: Any) -> tuple[Trial, int]:
    """A trial, and its wait status once it has ended."""
    made: list[Trial] = []

    def begin() -> int:
        command = NewProgram(words, {"PATH": os.defpath, "NOTIFY_SOCKET": "@x", "LISTEN_PID": "1"}, directory)
        made.append(Trial(command, snapshot.sealed(content, "test"), **more))
        return 0

    signals.run(begin)  # the child goes on from there
    if "seconds" in more:
        while syscalls.clock() < made[0].deadline:
            os.sched_yield()
        made[0].give_up()
    return made[0], os.waitpid(made[0].pid, 0)[1]


def verdict(words: list[str], *arguments: Any, **more: Any) -> TrialResult:
    tried, status = trial(words, *arguments, **more)
    return tried.ended(status)


@pytest.mark.process
def test_a_trial_reads_the_state_and_answers() -> None:
    assert verdict([sys.executable, "-c", ANSWERS]) == TrialResult('"state"', "", "")


@pytest.mark.process
def test_a_trial_runs_under_the_limit_that_a_person_gave() -> None:
    """The master's own may be raised: it has descriptors for each child."""
    answers = ANSWERS.replace("import json, os", "import json, os, resource")
    limit = "str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    answers = answers.replace("os.pread(int(state), 99, 0).decode()", limit)
    held = [os.dup(0) for _ in range(100)]  # more than the limit allows, and closed on exec
    assert verdict([sys.executable, "-c", answers], soft_limit=100) == TrialResult("100", "", "")
    for number in held:
        os.close(number)


@pytest.mark.process
def test_a_program_that_does_not_start_is_refused_with_what_it_said() -> None:
    found = verdict([sys.executable, "-c", "import no_such_module_at_all"])
    assert found.program == ""
    assert "exit status 1: ModuleNotFoundError: No module named 'no_such_module_at_all'" in found.reason
    assert "Traceback" in found.details


@pytest.mark.process
def test_a_program_that_says_nothing_is_refused() -> None:
    """Such as an older one, which does not know of upgrades."""
    assert verdict([sys.executable, "-c", ""]).reason == "the next program does not start: exit status 0"


def test_an_interpreter_that_is_gone_is_refused() -> None:
    assert verdict(["/no/such/python"]).reason.startswith("cannot run /no/such/python: No such file or directory")


def test_a_directory_that_is_gone_is_refused() -> None:
    reason = verdict([sys.executable], "/no/such/place").reason
    assert "/no/such/place: cannot be entered: No such file or directory" in reason


@pytest.mark.process
def test_a_program_that_hangs_is_given_up() -> None:
    found = verdict([sys.executable, "-c", "import signal; signal.pause()"], seconds=0.2)
    assert found.reason == "the next program has not answered within 0.2 s"


@pytest.mark.process
def test_a_program_that_never_stops_talking_fills_no_memory() -> None:
    """What it says beyond the room there is gets an error, which ends it."""
    found = verdict([sys.executable, "-c", "while True: print('y' * 999)"])
    assert "exit status 1" in found.reason
    assert len(found.details) <= 8000


@pytest.mark.process
def test_the_trial_is_not_the_service() -> None:
    """A program that does not know of trials must not tell the manager that it is ready, nor take its listeners."""
    others = ("LC_CTYPE", "COVERAGE_PROCESS_CONFIG")  # the interpreter's own, and that of measured tests
    script = f"import os; print(sorted(name for name in os.environ if name not in {others})); raise SystemExit(1)"
    assert verdict([sys.executable, "-c", script]).reason.endswith("['FORKSERVER_UPGRADE', 'PATH']")


@pytest.mark.process
def test_a_trial_is_killed_before_anything_that_serves() -> None:
    script = "print(open('/proc/self/oom_score_adj').read()); raise SystemExit(1)"
    assert verdict([sys.executable, "-c", script]).reason.endswith(": 1000")


def test_a_trial_leaves_nothing_open() -> None:
    before = os.listdir("/proc/self/fd")
    verdict(["/no/such/python"])
    assert os.listdir("/proc/self/fd") == before


# The order


@pytest.mark.parametrize("text", ["", "1", "try", "try:3", "try:a:b", "go-on:3:4", "go-on:-1", "go-on:"])
def test_a_variable_that_somebody_else_has_set_is_refused(text: str) -> None:
    environ = {"FORKSERVER_UPGRADE": text}
    with pytest.raises(ConfigError, match="unset it"):
        upgrade.take_order(environ)
    assert environ == {}


def test_an_order_is_taken_out_of_the_environment() -> None:
    environ = {"FORKSERVER_UPGRADE": "try:3:4", "HOME": "/"}
    assert upgrade.take_order(environ) == Order(3, 4)
    assert environ == {"HOME": "/"}
    assert upgrade.take_order(environ) is None
    assert upgrade.take_order({"FORKSERVER_UPGRADE": "go-on:5"}) == Order(5, -1)


def test_a_state_that_is_meant_for_another_process_is_refused(memory: Callable[[Any], int]) -> None:
    """Descriptors of another process would be closed, or served, in this one."""
    with pytest.raises(SnapshotError, match="meant for pid 1; unset it"):
        upgrade.adopt(Order(memory(carried(1)), -1))


def asked(memory: Callable[[Any], int], content: Any, argv: list[str]) -> tuple[int, list[str]]:
    """What the trial answers: its exit status, and the verdict."""
    reply = os.memfd_create("reply")
    try:
        status = upgrade.try_on(Order(memory(content), reply), argv, {}, "forkserver 9")
        return status, json.loads(os.pread(reply, 1 << 16, 0))
    finally:
        os.close(reply)


def test_a_program_that_understands_says_its_name_and_its_environment(memory: Callable[[Any], int]) -> None:
    answered = asked(memory, carried(os.getppid()), ["raw:app"])
    assert answered == (0, ["forkserver 9", "", os.path.realpath(sys.prefix)])


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["raw:app", "--workers", "many"], "--workers 'many'"),
        ([], "no application"),
        (["a:b", "--no-such"], "--no-such"),
    ],
)
def test_settings_that_the_next_program_refuses_refuse_it(
    memory: Callable[[Any], int], argv: list[str], why: str
) -> None:
    status, answered = asked(memory, carried(os.getppid()), argv)
    assert (status, answered[0]) == (1, "")
    assert answered[1].startswith("forkserver 9 refuses: ")
    assert why in answered[1]


def test_a_state_without_sense_is_refused(memory: Callable[[Any], int]) -> None:
    content = json.loads(os.pread(memory(carried(os.getppid())), 1 << 20, 0))
    content["state"]["rollout"]["fleet"]["workers"][0]["state"] = "dancing"
    assert asked(memory, content, ["raw:app"])[1][1].endswith(
        "snapshot.rollout.fleet.workers[0].state: 'dancing' is no State; restart instead"
    )


def test_a_fault_of_the_next_program_is_told_with_its_traceback(
    memory: Callable[[Any], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = carried(os.getppid())
    monkeypatch.setattr(loading, "load", lambda *_: 1 / 0)
    _, answered = asked(memory, written, ["raw:app"])
    assert answered[1] == "forkserver 9 fails: division by zero"
    assert "ZeroDivisionError" in answered[2]


# From the wish to the exec


class Told:
    """Who hears what becomes of an upgrade."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *words: self.words.append(" ".join([name, *(word for word in words if isinstance(word, str))]))


@pytest.fixture
def rollout() -> Rollout:
    made = carried(0).rollout
    made.serving_generation, made.coming = 1, None
    return made


def wish(rollout: Rollout, words: list[str], environment: Environment | None = None) -> tuple[Upgrade, Told]:
    told = Told()
    command = NewProgram(words, {}, "/", environment)
    return Upgrade(command, rollout, cast("Any", told), lambda _: carried(os.getpid())), told


def tried(made: Upgrade) -> None:
    """Begin the trial that is wanted, and hear of its end."""

    def begin() -> int:
        made.turn(0.0)
        return 0

    signals.run(begin)
    assert made._trial is not None
    assert made.ended(made._trial.pid, os.waitpid(made._trial.pid, 0)[1])


def test_a_refused_upgrade_leaves_all_as_it_was(rollout: Rollout) -> None:
    made, told = wish(rollout, ["/no/such/python"])
    made.want()
    tried(made)
    assert (made.due, made.wanted, made.trying, rollout.upgrading) == (False, False, False, False)
    assert told.words[1].startswith("upgrade_refused cannot run /no/such/python")


@pytest.mark.as_root
def test_a_reload_by_root_executes_no_environment_that_another_user_chooses(rollout: Rollout) -> None:
    """USR2 orders exactly that; HUP, of which nothing is executed but by a switched link, does not."""
    with reach.public_folder() as public:
        environment = switched(public)
        give(public / "current")
        made, told = wish(rollout, ["/usr/bin/env"], environment)
        rollout.want_reload()
        made.serve_reload()
    assert (made.wanted, rollout.reload_wanted) == (False, False)
    assert len(told.words) == 1
    assert f"root does not execute it at a reload, nobody owns {public}/current; give the folders" in told.words[0]


def test_a_reload_through_a_switched_link_is_an_upgrade(rollout: Rollout, tmp_path: Path) -> None:
    """The master's own dependencies are those that the new code would meet."""
    environment = switched(tmp_path)
    made, told = wish(rollout, ["/no/such/python"], environment)
    rollout.want_reload()
    made.serve_reload()
    assert made.wanted
    assert told.words == [f"environment_moved {environment.typed} {tmp_path}/new {environment.real}"]
    tried(made)
    assert not rollout.reload_wanted, "refused with the upgrade, or it would be tried for ever"
    assert told.words[-1].startswith("settings_refused upgrade refused: cannot run /no/such/python")
    made.serve_reload()
    assert not made.wanted


def test_a_reload_where_nothing_has_moved_is_none(rollout: Rollout, tmp_path: Path) -> None:
    environment = switched(tmp_path)
    made, told = wish(rollout, ["/no/such/python"], environment._replace(real=str(tmp_path / "new")))
    rollout.want_reload()
    made.serve_reload()
    assert (made.wanted, rollout.reload_wanted, told.words) == (False, True, [])


@pytest.mark.process
def test_asking_during_a_trial_asks_for_another(rollout: Rollout) -> None:
    """The files were changed again while the trial read them: what it says is not of those."""
    made, _ = wish(rollout, [sys.executable, "-c", ANSWERS])
    made.want()
    tried(made)
    assert made.due
    made.want()
    assert not made.due
    tried(made)
    assert made.due
    assert rollout.upgrading


def test_a_stop_forgets_an_upgrade(rollout: Rollout) -> None:
    made, told = wish(rollout, ["/no/such/python"])
    made.want()
    rollout.drain(stop_at=10.0)
    made.turn(0.0)
    assert (made.wanted, made.trying) == (False, False)
    made.want()
    assert told.words == ["upgrade_unwanted"]


@pytest.mark.process
def test_an_exec_that_fails_leaves_all_as_it_was(rollout: Rollout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial went well, and then somebody took the interpreter away."""
    made, told = wish(rollout, [sys.executable, "-c", ANSWERS])
    made.want()
    tried(made)
    before, here = os.listdir("/proc/self/fd"), os.getcwd()
    reading, writing = os.pipe()
    changed: list[tuple[int, bool]] = []

    def gone(*_: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(syscalls, "execute", gone)
    monkeypatch.setattr(Snapshot, "descriptors", lambda _: [reading, writing])
    monkeypatch.setattr(os, "set_inheritable", lambda number, kept: changed.append((number, kept)))
    made.become(0.0)
    os.chdir(here)
    os.close(reading)
    os.close(writing)
    assert changed[1:3] == [(reading, True), (writing, True)]
    assert changed[4:] == [(reading, False), (writing, False)]
    assert os.listdir("/proc/self/fd") == before
    assert told.words[-2:] == ["stays", "upgrade_refused cannot become the next program: No such file or directory "]
    assert not rollout.upgrading
    assert not made.due
