"""Who may do what. CI runs this file as root and again as an ordinary user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import forkserver
from harness import reach
from harness.admin_clients import AdminClient
from harness.clients import get
from harness.intruder import give
from harness.program import APPS, LaunchProgram, StartProgram

pytestmark = pytest.mark.permission
NOBODY = pwd.getpwnam("nobody")
RAW = ("--pythonpath", str(APPS))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Readable by the user we drop to, writable by root alone."""
    with reach.public_folder() as made:
        shutil.copy(APPS / "raw.py", made)
        yield made


@pytest.fixture
def dropped(launch: LaunchProgram, folder: Path):
    """A root master whose workers are nobody's."""

    def start(*arguments: str):
        arguments = ("--user", "nobody", "-b", f"unix:{folder}/app.sock", "-w", "2", *arguments, "raw:app")
        server = launch(*arguments, cwd=folder, command=reach.command(folder))
        return server.wait_ready()

    return start


@pytest.mark.as_root
class TestAsRoot:
    def test_the_admin_process_is_the_workers_user_and_loads_before(self, dropped, folder: Path) -> None:
        """The environment that its modules come from may be for root alone; its socket is for the workers' group."""
        server = dropped("--admin-bind", f"unix:{folder}/admin.sock")
        admin = AdminClient(server)
        assert admin.ask("/readyz")[0] == 200
        assert admin.sample('forkserver_workers{state="serving"}') == 2
        status = Path(f"/proc/{admin.pid}/status").read_text()
        for kind, number in (("Uid", NOBODY.pw_uid), ("Gid", NOBODY.pw_gid)):
            found = next(line for line in status.splitlines() if line.startswith(f"{kind}:")).split()[1:]
            assert set(found) == {str(number)}
        made = os.stat(f"{folder}/admin.sock")
        assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (NOBODY.pw_uid, NOBODY.pw_gid, 0o660)

    def test_user_is_dropped_with_every_group_before_the_application_is_imported(self, dropped, folder: Path) -> None:
        """A supplementary group left behind would still be root's."""
        server = dropped()
        seen = json.loads(get(f"{folder}/app.sock", "/environ").text)
        assert (seen["uid"], seen["gid"]) == (NOBODY.pw_uid, NOBODY.pw_gid)
        assert set(seen["groups"]) <= {NOBODY.pw_gid}
        for member in server.family():
            assert Path(f"/proc/{member.pid}").stat().st_uid in (NOBODY.pw_uid, 0)
            status = Path(f"/proc/{member.pid}/status").read_text()
            uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
            assert set(uids) == {str(NOBODY.pw_uid)}, f"{member} could become root again"
        assert os.stat(f"/proc/{server.pid}").st_uid == 0

    def test_an_upgrade_keeps_the_masters_rights_and_drops_the_workers(self, dropped, folder: Path) -> None:
        server = dropped()
        server.send(signal.SIGUSR2)
        server.log.wait("upgraded to forkserver")
        server.log.wait("generation 2 serves")
        assert os.stat(f"/proc/{server.pid}").st_uid == 0
        assert json.loads(get(f"{folder}/app.sock", "/environ").text)["uid"] == NOBODY.pw_uid
        assert os.stat(f"{folder}/app.sock").st_uid == NOBODY.pw_uid
        assert server.stop() == 0
        assert not (folder / "app.sock").exists()

    def test_the_socket_has_the_group_that_was_named_and_the_log_says_who_may_connect(
        self, dropped, folder: Path
    ) -> None:
        """The web server's: with the application's own the first request ends in its log as 13: Permission denied."""
        server = dropped("--socket-group", "12346")
        found = os.stat(f"{folder}/app.sock")
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (NOBODY.pw_uid, 12346, 0o660)
        server.log.wait(r"app\.sock \(mode 0660, nobody:12346\): only root, user nobody and group 12346 may connect")
        seen = json.loads(get(f"{folder}/app.sock", "/environ").text)
        assert seen["gid"] == NOBODY.pw_gid, "the socket's group is none of the workers'"

    def test_a_reload_works_after_the_drop(self, dropped, folder: Path) -> None:
        """The master has kept what the next template needs, and the next template drops again."""
        server = dropped()
        server.reload()
        assert json.loads(get(f"{folder}/app.sock", "/environ").text)["uid"] == NOBODY.pw_uid
        assert server.stop() == 0

    @pytest.mark.parametrize("more", [(), ("--preload", "off"), ("--threads", "2", "--warm-path", "/hello")])
    def test_what_forkserver_is_made_of_need_be_readable_by_root_alone(
        self, launch: LaunchProgram, folder: Path, more: tuple[str, ...]
    ) -> None:
        """It is all there before the drop, and so are the modules of the stdlib that it needs."""
        package = folder / "private" / "forkserver"
        shutil.copytree(Path(forkserver.__file__).parent, package)
        package.parent.chmod(0o700)
        arguments = ("--user", "nobody", "-b", f"unix:{folder}/app.sock", *more, "raw:app")
        server = launch(
            *arguments, cwd=folder, command=reach.command(folder), environ={"PYTHONPATH": str(package.parent)}
        ).wait_ready()
        for _ in range(2):
            assert json.loads(get(f"{folder}/app.sock", "/environ").text)["uid"] == NOBODY.pw_uid
            assert get(f"{folder}/app.sock", "/fail").status == 500
            server.reload()
        assert "workers are forked without it" not in server.log.text()
        assert server.stop() == 0

    def test_root_opens_the_logs_that_nobody_writes(self, dropped, folder: Path) -> None:
        logs = folder / "logs"
        logs.mkdir(mode=0o700)
        server = dropped("--error-log", str(logs / "error.log"), "--access-log", str(logs / "access.log"))
        get(f"{folder}/app.sock", "/fail")
        assert server.stop() == 0
        assert "on purpose" in (logs / "error.log").read_text()
        assert "GET /fail" in (logs / "access.log").read_text()

    def test_root_binds_a_low_port_for_nobody(self, launch: LaunchProgram, folder: Path) -> None:
        """The listener is bound before the drop."""
        pid = os.getpid()
        host = f"127.{128 + (pid >> 16) % 64}.{pid >> 8 & 255}.{pid & 255}"
        server = launch(
            "--user", "nobody", "-b", f"{host}:80", "raw:app", cwd=folder, command=reach.command(folder)
        ).wait_ready()
        assert json.loads(get((host, 80), "/environ").text)["uid"] == NOBODY.pw_uid
        assert server.stop() == 0

    def test_an_own_unix_socket_and_pid_file_are_removed_after_a_drop(self, dropped, folder: Path) -> None:
        """The master has stayed root, so it can remove what it made in a folder of root's."""
        server = dropped("--pidfile", str(folder / "app.pid"))
        assert (folder / "app.pid").exists()
        assert server.stop() == 0
        assert not (folder / "app.sock").exists()
        assert not (folder / "app.pid").exists()

    def test_in_the_users_own_folder_everything_is_made_with_that_users_rights(self, dropped, folder: Path) -> None:
        """Start, rotation, reload, upgrade and stop: no link that the user puts there leads to a file of root's."""
        run, precious = folder / "run", folder / "precious"
        run.mkdir()
        give(run)
        precious.write_text("root's")
        paths = {flag: run / flag for flag in ("access-log", "pidfile", "control-socket")}
        server = dropped("-b", f"unix:{run}/s", *(word for flag in paths for word in (f"--{flag}", str(paths[flag]))))
        assert {os.stat(each).st_uid for each in (run / "s", *paths.values())} == {NOBODY.pw_uid}
        assert get(f"{run}/s", "/").status == 200

        paths["access-log"].rename(run / "access-log.1")
        paths["access-log"].symlink_to(precious)
        server.send(signal.SIGUSR1)
        server.log.wait("access-log': a symbolic link, and nobody owns .*; going on in the old file")
        server.log.wait("log files are opened again")
        paths["access-log"].unlink()
        since = server.log.mark()
        server.send(signal.SIGUSR1)
        server.log.wait("log files are opened again", since)
        assert paths["access-log"].stat().st_uid == NOBODY.pw_uid

        for each in (run / "s", paths["pidfile"], paths["control-socket"]):
            each.unlink()
        paths["pidfile"].symlink_to(precious)
        server.reload()
        assert get(f"{run}/s", "/").status == 200
        assert paths["pidfile"].read_text() == f"{server.pid}\n"
        assert {os.lstat(each).st_uid for each in (run / "s", *paths.values())} == {NOBODY.pw_uid}

        server.send(signal.SIGUSR2)
        server.log.wait("upgraded to forkserver")
        server.log.wait("generation 3 serves")
        assert server.stop() == 0
        assert sorted(os.listdir(run)) == ["access-log", "access-log.1"]
        assert precious.read_text() == "root's"

    def test_a_configuration_of_the_users_is_read_where_it_was_named(
        self, dropped, launch: LaunchProgram, folder: Path
    ) -> None:
        """Who writes it chooses the user, the logs and the code: at a start, and at each reload."""
        server = dropped()
        given = folder / "forkserver.toml"
        given.write_text("workers = 3\n")
        give(given)
        server.send(signal.SIGHUP)
        server.log.wait(f"not read by root, nobody owns it; name it with --config {given}")
        assert server.stop() == 0
        arguments = ("-b", f"unix:{folder}/s", "--user", "nobody", "raw:app")
        refused = launch(*arguments, cwd=folder, command=reach.command(folder))
        assert refused.wait() == 2
        assert f"name it with --config {given}" in refused.log.text()
        named = launch("--config", str(given), *arguments, cwd=folder, command=reach.command(folder)).wait_ready()
        named.log.wait("3 workers")
        assert named.stop() == 0


@pytest.mark.as_user
class TestAsUser:
    def test_user_needs_root(self, launch: LaunchProgram) -> None:
        """Silently serving as somebody else than was asked for would be worse than not starting."""
        server = launch(*RAW, "--user", "daemon", "-b", "unix:app.sock", "raw:app")
        assert server.wait() in (1, 2)
        assert "daemon" in server.log.text()
        assert "Traceback" not in server.log.text()

    def test_ones_own_user_may_be_named(self, launch: LaunchProgram, tmp_path: Path) -> None:
        own = pwd.getpwuid(os.getuid()).pw_name
        server = launch(*RAW, "--user", own, "-b", f"unix:{tmp_path}/app.sock", "raw:app").wait_ready()
        assert get(f"{tmp_path}/app.sock").status == 200
        assert server.stop() == 0

    @pytest.mark.parametrize("flag", ["--error-log", "--access-log", "--pidfile"])
    def test_a_file_that_may_not_be_written_is_refused_in_one_line(
        self, launch: LaunchProgram, tmp_path: Path, flag: str
    ) -> None:
        server = launch(*RAW, "-b", f"unix:{tmp_path}/app.sock", flag, "/etc/forkserver-test", "raw:app")
        assert server.wait() in (1, 2)
        assert "/etc/forkserver-test" in server.log.text()
        assert "Traceback" not in server.log.text()

    def test_an_address_that_may_not_be_bound_is_refused_in_one_line(self, launch: LaunchProgram) -> None:
        server = launch(*RAW, "-b", "unix:/etc/forkserver-test.sock", "raw:app")
        assert server.wait() == 1
        assert "/etc/forkserver-test.sock" in server.log.text()
        assert "ermission denied" in server.log.text()
        assert "Traceback" not in server.log.text()

    def test_a_whole_life_needs_no_privilege(self, program: StartProgram) -> None:
        server = program("raw:app", "-w", "2")
        with server.connect() as wire:
            assert wire.get().status == 200
        server.reload()
        assert server.stop() == 0


@pytest.mark.parametrize(("mode", "asked"), [(0o660, ()), (0o600, ("--socket-mode", "600"))])
def test_a_unix_socket_has_the_mode_it_was_given(
    launch: LaunchProgram, tmp_path: Path, mode: int, asked: tuple[str, ...]
) -> None:
    """Not the umask's: a socket that everybody may write to would be the default of many a shell."""
    path = tmp_path / "app.sock"
    server = launch(*RAW, "-b", f"unix:{path}", *asked, "raw:app").wait_ready()
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert server.stop() == 0
