"""What a reload opens beside what serves, and which of the two is left."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forkserver.config import loading, settings
from forkserver.errors import ForkserverError
from forkserver.linux.privileges import Credentials
from forkserver.linux.sockets import listening_socket
from forkserver.linux.sockets.unix_socket import bind_unix
from forkserver.logs.error_log import ErrorLog
from forkserver.master.resources.listener_set import ListenerSet, Terms
from forkserver.master.resources.resources import Resources


def configure(**more: str) -> None:
    lines = {"app": "m:a", "bind": "127.0.0.1:0", "control_socket": "off", "error_log": "error.log"} | more
    Path("forkserver.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in lines.items()))


@pytest.fixture
def resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resources]:
    monkeypatch.chdir(tmp_path)
    configure(access_log="access.log")
    given = loading.load([], {})
    made = Resources(given, ErrorLog(given.error_log, given.log_level), [], {})
    yield made
    made.log.close()
    made.access.close()
    made.tidy()
    os.close(made.board.fd)
    del made.board  # its memory has a descriptor of its own


def test_a_reload_that_fails_leaves_the_logs_of_what_serves(resources: Resources) -> None:
    """Workers go on writing there: a rotation has to reach them, and the operator has to read why it has failed."""
    configure(error_log="next.log", log_level="critical")
    resources.reload()
    assert resources.access.fileno() == -1
    resources.settle(False, 0.0)
    resources.log.error("reload failed")
    assert "reload failed" in Path("error.log").read_text()
    assert Path("next.log").read_text() == ""
    Path("access.log").rename("access.log.1")
    newest, serving = resources.logs.reopen()
    assert newest == serving
    assert len(newest.descriptors) == 2
    assert os.fstat(resources.access.fileno()).st_ino == Path("access.log").stat().st_ino
    assert resources.settings.access_log == "access.log"


def test_a_rotation_during_a_reload_reaches_the_logs_of_what_serves_too(resources: Resources) -> None:
    """It goes back to them where the reload fails; the renamed files may have been compressed or removed by then."""
    configure(error_log="next.log")
    serving = resources.log.fileno(), resources.access.fileno()
    resources.reload()
    for name in ("error.log", "access.log"):
        Path(name).rename(f"{name}.1")
    newest, before = resources.logs.reopen()
    assert newest == (True, False, [resources.log.fileno()])
    assert before == (True, True, list(serving))
    resources.settle(False, 0.0)
    resources.log.error("reload failed")
    assert "reload failed" in Path("error.log").read_text()
    assert os.fstat(resources.access.fileno()).st_ino == Path("access.log").stat().st_ino


def test_a_reload_that_takes_over_closes_the_logs_of_before(resources: Resources) -> None:
    configure(access_log="next.log")
    before = resources.log.fileno(), resources.access.fileno()
    resources.reload()
    assert resources.changing
    resources.settle(True, 0.0)
    assert not resources.changing
    for number in before:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
    resources.log.error("serves")
    assert "serves" in Path("error.log").read_text()


def test_settings_that_are_refused_open_no_log(resources: Resources) -> None:
    configure(access_log="next.log", bind="unix:nowhere/app.sock")
    with pytest.raises(ForkserverError, match="nowhere"):
        resources.reload()
    assert not resources.changing
    assert resources.settings.access_log == "access.log"


def test_a_reload_after_one_that_failed_compares_with_what_serves(resources: Resources) -> None:
    for taken in (False, True):
        configure(access_log="next.log")
        resources.reload()
        resources.settle(taken, 0.0)
    assert resources.settings.access_log == "next.log"
    assert os.fstat(resources.access.fileno()).st_ino == Path("next.log").stat().st_ino


def test_a_reload_that_has_lost_its_file_does_not_go_to_the_defaults(resources: Resources) -> None:
    """A deploy that forgets the file would move the service to another address, and its workers to another user."""
    Path("forkserver.toml").rename("forkserver.toml.old")
    with pytest.raises(ForkserverError, match=r"it was read before, and .* has none"):
        resources.reload()
    assert resources.settings.access_log == "access.log"
    Path("forkserver.toml.old").rename("forkserver.toml")
    resources.reload()


def test_a_reload_opens_relative_logs_in_the_release_that_the_directory_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release of before is removed one day, and its logs with it; so they follow as the pid file does."""
    current = tmp_path / "current"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    current.symlink_to("one")
    monkeypatch.chdir(current)
    configure(access_log="access.log")
    given = loading.load([], {})
    resources = Resources(given, ErrorLog(given.error_log, given.log_level), [], {"PWD": str(current)})
    Path("forkserver.toml").rename(tmp_path / "two" / "forkserver.toml")
    current.unlink()
    current.symlink_to("two")
    for taken in (False, True):
        resources.reload()
        resources.settle(taken, 0.0)
        resources.log.error(f"taken {taken}")
        there = tmp_path / ("two" if taken else "one") / "error.log"
        assert there.read_text().endswith(f"taken {taken}\n")
        assert os.path.samestat(os.fstat(resources.access.fileno()), (there.parent / "access.log").stat())
    kept = resources.log
    resources.reload()
    assert resources.log is kept
    kept.close()
    resources.access.close()
    resources.tidy()
    os.close(resources.board.fd)
    del resources.board


def test_after_a_failed_reload_relative_names_are_those_of_what_serves(resources: Resources, tmp_path: Path) -> None:
    """A rotation would open its logs in the release that was refused."""
    refused = tmp_path / "refused"
    refused.mkdir()
    os.chdir(refused)
    resources.return_to(str(tmp_path))
    resources.logs.reopen()
    assert os.listdir(refused) == []


def test_a_release_that_was_removed_cannot_be_returned_to_and_the_log_says_so(
    resources: Resources, tmp_path: Path
) -> None:
    resources.return_to(f"{tmp_path}/gone")
    assert (
        f"gone: cannot be entered: No such file or directory; put it back; until the next reload relative names of "
        f"logs are meant from {tmp_path}" in Path("error.log").read_text()
    )
    assert Path.cwd() == tmp_path


@pytest.mark.as_root
def test_a_reload_says_that_the_application_becomes_root(resources: Resources) -> None:
    configure(access_log="access.log", user="nobody")
    resources.reload()
    assert "runs as root" not in Path("error.log").read_text()
    configure(access_log="access.log")
    resources.reload()
    assert Path("error.log").read_text().count("the application runs as root") == 1


def test_keys_that_cannot_be_read_after_an_upgrade_end_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """A renewal may be under way between the trial and the exec, and what serves has its own."""
    held = cast("Any", Resources.__new__(Resources))
    held.settings, held.logs = settings.defaults(), SimpleNamespace(error=ErrorLog("-", "info", "test"))
    assert held.tls_of(settings.defaults(certfile=["/no/such.pem"])) is None
    assert "certfile '/no/such.pem': no such file or directory" in capfd.readouterr().err


def test_a_certificate_with_a_lease_after_an_upgrade_ends_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The owner of the file can hold it at any moment between the trial and the exec."""
    held = cast("Any", Resources.__new__(Resources))
    held.settings, held.logs = settings.defaults(), SimpleNamespace(error=ErrorLog("-", "info", "test"))
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    with open(tmp_path / "cert.pem", "w") as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert held.tls_of(settings.defaults(certfile=[str(tmp_path / "cert.pem")])) is None
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    signal.signal(signal.SIGIO, before)
    assert "another process holds a lease on it" in capfd.readouterr().err


def restored(resources: Resources, **more: Any) -> Resources:
    """What the next program makes of ``resources``, whose settings name a group that is gone since."""
    told = resources.snapshot()
    told = told._replace(
        access_log=os.dup(told.access_log), board=os.dup(told.board),
        listener_set=told.listener_set._replace(served=[]), **more,
    )  # fmt: skip
    given = loading.from_snapshot(told.settings._replace(values=told.settings.values | {"socket_group": "no-such"}))
    return Resources(given, resources.log, [], {}, snapshot=told)


def close(made: Resources) -> None:
    made.access.close()
    made.tidy()
    os.close(made.board.fd)
    del made.board


def test_the_owner_of_sockets_goes_on_where_its_account_is_gone(resources: Resources) -> None:
    """What the running program has must not be looked up again after the exec, when nothing can be refused any more."""
    made = restored(resources, owner=Credentials(1234, 5678))
    assert made.snapshot().owner == Credentials(1234, 5678)
    close(made)
    assert "no such group" not in Path("error.log").read_text()


def test_a_group_that_an_older_program_did_not_tell_and_that_is_gone_ends_nothing(resources: Resources) -> None:
    made = restored(resources, owner=None)
    assert made.snapshot().owner == Credentials()
    close(made)
    assert Path("error.log").read_text().count("group 'no-such': no such group here") == 1


def test_a_reload_changes_the_owner_that_the_next_program_is_told(resources: Resources) -> None:
    configure(socket_group="4321")
    resources.reload()
    resources.settle(True, 0.0)
    owner = resources.snapshot().owner
    assert owner is not None
    assert owner.gid == 4321


def test_a_reload_warns_where_no_client_finds_a_socket_of_systemd(resources: Resources, tmp_path: Path) -> None:
    """It changes nothing of that, as it would for a socket of our own."""
    made = bind_unix(str(tmp_path / "s"), 16, 0o660, Credentials())
    given = ListenerSet((), [(os.dup(made.fileno()), "app.socket")], Terms(16, 0o660, Credentials()))
    before, resources.listener_set = resources.listener_set, given
    os.unlink(tmp_path / "s")
    resources.reload()
    said = Path("error.log").read_text()
    assert f"no client can connect at unix:{tmp_path}/s: its file was removed" in said
    assert "systemctl restart app.socket app.service" in said
    resources.listener_set = before
    given.close()
    made.close()


def test_a_stop_tells_where_listeners_do_not_refuse_connections(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_socket, "refuse_arrivals", lambda _: False)
    assert resources.refuse_arrivals(unix=False)
    assert "TCP listeners do not refuse new connections within 1 s" in Path("error.log").read_text()
