"""The program: command line in, exit status out, one line for a mistake."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import forkserver.master
from forkserver.cli import serve, settings_help
from forkserver.errors import BindError

APP = "def app(environ, start_response):\n    return []\n"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run the program in an empty directory: its exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("FORKSERVER_") or name in (
            "PORT",
            "WEB_CONCURRENCY",
            "FORWARDED_ALLOW_IPS",
            "GUNICORN_CMD_ARGS",
        ):
            monkeypatch.delenv(name)

    def run(*argv: str) -> tuple[int, str, str]:
        status = serve.main(argv)
        out, err = capfd.readouterr()
        return status, out, err

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield run
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # a program that ends leaves signals blocked


@pytest.fixture
def master(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A master that notes what it is given, and ends with exit status 7."""
    given: list[tuple[Any, ...]] = []

    def serve(*arguments: Any, terminal: bool) -> int:
        given.append(arguments)
        return 7

    builder = types.ModuleType("forkserver.master.builder")
    builder.serve = serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, builder.__name__, builder)
    monkeypatch.setattr(forkserver.master, "builder", builder, raising=False)  # where another test has imported it
    return given


def test_a_start_hands_the_settings_to_the_master(run: Run, master: list[tuple[Any, ...]]) -> None:
    """The master reads them again at a reload, so it gets what they were made from too."""
    assert run("myapp:app", "-w", "3")[0] == 7
    ((settings, log, argv, environ),) = master
    assert (settings.app, settings.workers) == ("myapp:app", 3)
    assert (log.process, log.fileno()) == ("master", 2)
    assert argv == ["myapp:app", "-w", "3"]
    assert environ is os.environ


@pytest.mark.parametrize(
    ("call", "name"), [("pidfd_open", "pidfd_open"), ("preadv", "preadv2 with RWF_NOWAIT")], ids=["pidfd", "preadv2"]
)
def test_a_kernel_that_is_too_old_is_named_at_the_start(
    run: Run, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    """The start went on, and a traceback, or a template that was killed, was all that it said."""

    def refused(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, call, refused)
    status, _, said = run("myapp:app")
    assert status == 2
    assert f"cannot serve on Linux {os.uname().release}: {name}: Operation not supported; it needs Linux 5.7" in said


def test_the_master_does_not_import_the_application(run: Run, master: list[tuple[Any, ...]]) -> None:
    """It lives longer than any generation of the code."""
    Path("myapp.py").write_text("raise SystemExit")
    assert run("myapp:app")[0] == 7
    assert "myapp" not in sys.modules


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "forkserver: no application given; name it as MODULE:APP, such as forkserver myapp:app\n"),
        (["--wokers", "3"], "forkserver: --wokers: no such flag; did you mean --workers?\n"),
        (["m:a", "-t", "x"], "forkserver: -t/--timeout 'x': not a number with a known unit; give seconds, "),
        (
            ["--error-log", "none/x", "m:a"],
            "forkserver: error_log 'none/x': cannot be opened: no such file or directory; ",
        ),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(
    run: Run, master: list[tuple[Any, ...]], argv: list[str], line: str
) -> None:
    """systemd must not try again, and a person must see what to do."""
    status, out, err = run(*argv)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(line)


def test_an_address_in_use_is_one_line_and_status_1(
    run: Run, master: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's fault may be gone the next time."""

    def in_use(*arguments: object, terminal: bool) -> None:
        raise BindError("cannot bind 127.0.0.1:80: address already in use", 98)

    monkeypatch.setattr(sys.modules["forkserver.master.builder"], "serve", in_use)
    assert run("m:a") == (1, "", "forkserver: cannot bind 127.0.0.1:80: address already in use\n")


def test_an_interrupted_start_ends_quietly(
    run: Run, master: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback would be ours."""

    def interrupted(*arguments: object, terminal: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["forkserver.master.builder"], "serve", interrupted)
    assert run("m:a") == (130, "", "")


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("platform", "darwin", "cannot run on darwin: it needs Linux's epoll; run it in a Linux container"),
        ("version_info", (3, 10, 13), "cannot run on cpython 3.10: it needs CPython 3.11 or newer"),
        ("implementation", types.SimpleNamespace(name="pypy"), "cannot run on pypy 3."),
    ],
)
def test_other_systems_are_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, attribute: str, value: object, reason: str
) -> None:
    """It would fail later, and less clearly."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, attribute, value)
        status = serve.main(["--version"])
    assert status == 2
    assert reason in run("--zzz")[2]


def test_a_python_that_was_built_without_the_calls_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As portable builds of CPython were: an AttributeError at a constant was all that it said."""
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.delattr(os, "RWF_NOWAIT")
    status, _, said = run("myapp:app")
    assert status == 2
    assert "it lacks os.memfd_create, os.RWF_NOWAIT, for it was built with an older C library; use the Python" in said


def test_a_start_after_a_monkey_patch_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by ``python -m gevent.monkey --module forkserver``."""
    monkeypatch.delattr(select, "epoll")
    status, _, said = run("--version")
    assert status == 2
    assert said.startswith("forkserver: cannot run after a monkey patch, by python -m gevent.monkey for example")


def test_the_namesake_is_told_of(
    run: Run, master: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It installs the same package and the same command over ours."""
    for name in ("forkserver_wsgi-0.1.dist-info", "forkserver-1.0.dist-info"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(serve, "_INSTALLED_IN", str(tmp_path))
    status, _, err = run("m:a")
    assert status == 7
    assert err.startswith("forkserver: warning: the unrelated distribution 'forkserver' 1.0 is installed")
    assert err.count("warning") == 1


def test_help_and_version_and_print_config_go_to_standard_output(run: Run) -> None:
    """So that they can be kept or paged."""
    assert run("--help") == (0, settings_help.short(), "")
    assert run("--help", "all") == (0, settings_help.usage(), "")
    status, out, err = run("--version")
    assert (status, out.startswith("forkserver "), err) == (0, True, "")
    status, out, err = run("--print-config", "m:a", "-w", "3")
    assert (status, err) == (0, "")
    assert "workers = 3  # flag --workers\n" in out


# gunicorn.conf.py


@pytest.mark.process
def test_a_gunicorn_conf_py_that_gunicorn_would_have_read_is_mentioned(run: Run, master: list[tuple[Any, ...]]) -> None:
    """Else its timeout, its number of workers and its hooks are gone without a word."""
    Path("gunicorn.conf.py").write_text("raise SystemExit")
    status, _, err = run("m:a")
    assert status == 7
    assert err.count("\n") == 1
    assert " warning master " in err
    assert "gunicorn.conf.py is not read: forkserver reads forkserver.toml; forkserver --from gunicorn.conf.py " in err
    Path("checked.py").write_text(APP)
    assert run("--check-config", "checked:app")[2].startswith("forkserver: warning: gunicorn.conf.py is not read: ")
    Path("forkserver.toml").write_text("")
    assert run("m:a") == (7, "", ""), "its settings have been moved over"


# --check-config


@pytest.mark.process
def test_check_config_loads_the_application_and_says_so(run: Run) -> None:
    """A deploy asks before it reloads."""
    Path("checked.py").write_text(APP)
    status, out, err = run("--check-config", "checked:app")
    assert (status, err) == (0, "")
    first, advice = out.splitlines()
    assert first == "the settings are good, and checked:app loads (builtins.function)"
    assert re.fullmatch(r"workers share the import \(preload=auto\): each saves about .*s of import", advice)


@pytest.mark.process
@pytest.mark.parametrize(
    ("preload", "said"),
    [
        (
            "auto",
            r"workers do not share the import \(preload=auto\), so each takes about .*s of import for itself; it left",
        ),
        (
            "off",
            r"workers do not share the import \(preload=off\), so each takes about .*s of import for itself; it left",
        ),
        ("on", r"workers share the import \(preload=on\) although it left"),
    ],
)
def test_check_config_says_what_speaks_against_a_shared_import(run: Run, preload: str, said: str) -> None:
    Path("checked.py").write_text(f"{APP}\nfile = open('out', 'w')")
    status, out, err = run("--check-config", "checked:app", "--preload", preload)
    assert (status, err) == (0, "")
    assert re.search(rf"(?m)^{said} what processes cannot share:$", out)
    assert re.search(r"(?m)^  file .*/out, open for writing \(checked:\d+\)$", out)
    assert "post_fork (--hooks)" in out


@pytest.mark.process
def test_check_config_says_where_an_import_could_be_shared(run: Run) -> None:
    Path("checked.py").write_text(APP)
    _, out, _ = run("--check-config", "checked:app", "--preload", "off")
    assert "workers do not share the import (preload=off), but could: with --preload auto each saves about " in out


@pytest.mark.process
def test_check_config_runs_nothing_of_the_application_here(run: Run) -> None:
    """What its import changes must not outlive the question."""
    Path("checked.py").write_text(f"import os, sys\nos.environ['LEAK'] = '1'\nprint('importing')\n{APP}")
    before = list(sys.path), os.getcwd()
    status, out, _ = run("--check-config", "checked:app")
    assert status == 0
    assert out.startswith("importing\n")
    assert "checked" not in sys.modules
    assert "LEAK" not in os.environ
    assert (sys.path, os.getcwd()) == before


@pytest.mark.process
@pytest.mark.parametrize(
    ("source", "status", "message"),
    [
        ("x = 1", 2, "looked for 'app' in module 'checked'"),
        ("1 / 0", 3, "failed while it was imported: ZeroDivisionError: division by zero\n"),
        ("raise SystemExit(0)", 3, "failed while it was imported: it exited (SystemExit: 0)"),
        ("import os\nos._exit(0)", 3, "ended its process while it was loading: exit status 0"),
        ("import os\nos.kill(os.getpid(), 9)", 3, "ended its process while it was loading: killed by SIGKILL"),
    ],
)
def test_check_config_says_why_not(run: Run, source: str, status: int, message: str) -> None:
    """However the import ends."""
    Path("checked.py").write_text(source)
    found, out, err = run("--check-config", "checked:app")
    assert (found, out) == (status, "")
    assert "forkserver: application 'checked:app'" in err.splitlines()[-1] + err.splitlines()[0]
    assert message in err


@pytest.mark.process
def test_check_config_names_an_import_that_closes_the_way_back(run: Run) -> None:
    Path("checked.py").write_text("import os\nos.closerange(3, 200)\ndef app(environ, start_response): ...\n")
    status, _, err = run("--check-config", "checked:app")
    assert status == 3
    assert "application 'checked:app': its import has closed descriptors of forkserver's" in err
    assert err.endswith("application 'checked:app' ended its process while it was loading: exit status 3\n")


@pytest.mark.process
def test_check_config_does_not_wait_for_ever(run: Run) -> None:
    """boot_timeout holds for the question as it does for the answer."""
    Path("checked.py").write_text("import threading\nthreading.Event().wait()")
    status, _, err = run("--check-config", "checked:app", "--boot-timeout", "200ms")
    assert status == 3
    assert "was still loading after boot_timeout, 0.2 s; raise that, or find what its import waits for" in err


@pytest.mark.process
def test_check_config_looks_at_the_classes_too(run: Run) -> None:
    """A worker would find it out after the old ones have gone."""
    Path("checked.py").write_text(APP)
    status, _, err = run("--check-config", "checked:app", "--handler-class", "checked:app")
    assert status == 2
    assert err.startswith("forkserver: handler_class 'checked:app': a function, not a subclass of")


def test_check_config_needs_an_application(run: Run) -> None:
    """Else good settings would be reported for a start that fails."""
    assert run("--check-config")[0] == 2


@pytest.mark.process
@pytest.mark.as_root
def test_check_config_imports_with_the_workers_rights(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads files that the workers will not."""
    checked = types.ModuleType("checked")  # imported already: a stranger could not read the test's directory

    def create_app() -> None:
        raise RuntimeError(os.getuid(), os.getgid(), os.getgroups())

    checked.create_app = create_app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "checked", checked)
    _, _, err = run("--check-config", "checked:create_app()", "--user", "12345", "--group", "12346")
    assert "RuntimeError: (12345, 12346, [12346])" in err
