"""A reload moves the control socket and the pid file at once, or leaves both where they are."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkserver.config import loading
from forkserver.config.invocation import Environment
from forkserver.config.settings import defaults
from forkserver.errors import BindError, ConfigError
from forkserver.logs.error_log import ErrorLog
from forkserver.master.resources.resources import Resources
from harness import BOUND
from harness.control_clients import NOW, STATUS


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resources]:
    """What a master holds, by the settings of forkserver.toml; ``rewrite`` changes them."""
    monkeypatch.chdir(tmp_path)
    rewrite("c.sock", "a.pid")
    given = loading.load([], {})
    made = Resources(given, ErrorLog("-", "info"), [], {})
    yield made
    made.tidy()
    os.close(made.board.fd)
    del made.board  # its memory has a descriptor of its own


def rewrite(control_socket: str, pidfile: str | None) -> None:
    lines = [f'app = "m:a"\nbind = "127.0.0.1:0"\ncontrol_socket = "{control_socket}"\n']
    lines += [f'pidfile = "{pidfile}"\n'] if pidfile else []
    Path("forkserver.toml").write_text("".join(lines))


def here() -> list[str]:
    return sorted(set(os.listdir()) - {"forkserver.toml", "run", "link"})


def test_a_reload_moves_control_socket_and_pid_file(held: Resources, capfd: pytest.CaptureFixture[str]) -> None:
    """And says where they are now; a client that has asked gets its answer yet."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("c.sock")
        client.sendall(STATUS)
        rewrite("d.sock", "b.pid")
        held.reload()
        assert here() == ["b.pid", "d.sock"]
        assert Path("b.pid").read_text() == f"{os.getpid()}\n"
        with socket.socket(socket.AF_UNIX) as other:
            other.connect("d.sock")
            other.sendall(STATUS)
            asked = []
            while len(asked) < 1:
                select.select([held.control.fileno()], [], [], BOUND)
                asked += held.control.turn(NOW)
    said = capfd.readouterr().err
    assert f"the control socket is now {os.getcwd()}/d.sock" in said
    assert f"the pid file is now {os.getcwd()}/b.pid" in said
    rewrite("off", None)
    held.reload()
    said = capfd.readouterr().err
    assert here() == []
    assert "no control socket any more" in said
    assert "no pid file any more" in said


def test_a_reload_that_is_refused_leaves_control_socket_and_pid_file(held: Resources) -> None:
    rewrite("missing/d.sock", "b.pid")
    with pytest.raises(BindError, match="there is no folder"):
        held.reload()
    assert here() == ["a.pid", "c.sock"]
    assert held.control.path == f"{os.getcwd()}/c.sock"


def test_a_reload_makes_what_was_removed_again(held: Resources, capfd: pytest.CaptureFixture[str]) -> None:
    for name in here():
        os.unlink(name)
    held.reload()
    assert here() == ["a.pid", "c.sock"]
    assert capfd.readouterr().err.count(" is now ") == 2


def test_a_reload_that_changes_neither_touches_neither(held: Resources, capfd: pytest.CaptureFixture[str]) -> None:
    """Nor where another path leads to the same file: /var/run is /run."""
    os.symlink(".", "link")
    before = [os.lstat(name).st_ino for name in here()]
    rewrite("link/c.sock", "link/a.pid")
    held.reload()
    assert [os.lstat(name).st_ino for name in here()] == before
    assert capfd.readouterr().err == ""


def test_no_new_code_is_loaded_where_the_environment_has_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where an upgrade could not come first: it would meet the dependencies of the old release."""
    resources = Resources(defaults(bind=["127.0.0.1:0"], spool_dir=str(tmp_path)), ErrorLog("-", "info"), [], {})
    try:
        (tmp_path / "current").symlink_to("release-2")
        resources.environment = Environment(str(tmp_path / "current"), str(tmp_path / "release-1"))
        with pytest.raises(ConfigError, match=r"leads to .*/release-2 by now, and the running program is that of .*-1"):
            resources.reload()
    finally:
        resources.tidy()
        os.close(resources.board.fd)


def test_a_reload_moves_the_listener_of_the_admin_process(held: Resources, capfd: pytest.CaptureFixture[str]) -> None:
    """At once, with the others; where it cannot be bound, nothing has changed."""

    def listen(address: str) -> None:
        rewrite("off", None)
        with Path("forkserver.toml").open("a") as file:
            file.write(f'admin_bind = "{address}"\n')

    listen("unix:m.sock")
    held.reload()
    assert held.admin.listener is not None
    before = held.admin.listener
    listen("unix:missing/m.sock")
    with pytest.raises(BindError, match=r"admin_bind unix:missing/m\.sock: "):
        held.reload()
    assert held.admin.listener is before
    os.unlink("m.sock")
    listen("unix:m.sock")
    held.reload()
    assert here() == ["m.sock"], "made again"
    listen("off")
    held.reload()
    assert here() == []
    assert held.admin.listener is None
    assert "no admin process any more" in capfd.readouterr().err
    for _ in range(2):
        os.wait()  # the processes in which the old listeners were closed
