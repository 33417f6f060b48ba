"""The next program is called as this one was, and tried in a child before the master executes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from forkserver.linux import signals, syscalls
from forkserver.master.upgrade import snapshot
from forkserver.master.upgrade.new_program import NewProgram, Trial, TrialResult
from harness.upgrades import ANSWERS, switched


def test_the_interpreter_is_looked_up_again_where_it_was_found(tmp_path: Path) -> None:
    """A virtual environment is replaced under the same path; PATH leads where it leads now."""
    python = tmp_path / "python9"
    python.touch(0o755)
    found = [
        NewProgram([word], {"PATH": str(tmp_path)}, "/").program()
        for word in (".venv/bin/python", "/srv/bin/python", "python9", "no-such")
    ]
    assert found == [".venv/bin/python", "/srv/bin/python", str(python), sys.executable]


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
        made[0].kill()
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
