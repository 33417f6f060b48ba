"""What a printed unit grants: folders to write to, keys to read, a home."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from forkserver.cli.systemd import systemd_unit, systemd_unit_folders
from forkserver.cli.systemd.systemd_unit_folders import Account
from forkserver.config import loading

OURS = Account("me", os.geteuid(), frozenset({os.getegid()}), "/srv/me")
MADE = Account("forkserver-myapp")
OTHER = Account("other", 54321, frozenset({54321}), "/srv/other")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /var/log; nothing of the folder is hidden."""
    made = tmp_path / "log"
    made.mkdir()
    monkeypatch.setattr(systemd_unit_folders, "_MANAGED", {str(made): "Logs"})
    monkeypatch.setattr(systemd_unit_folders, "HIDDEN", ("/home",))
    return made


def folders(*argv: str, owner: Account = MADE) -> systemd_unit_folders.Folders:
    return systemd_unit_folders.folders(loading.load(["myapp:app", *argv], {}), "/srv/myapp", owner, "forkserver/myapp")


def directives(text: str, name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}=(.*)$", text)


def printed(*argv: str) -> str:
    return systemd_unit.of(loading.load(argv, {}), argv, {}).service


def test_a_folder_below_var_log_is_made_by_systemd(place: Path) -> None:
    made = folders("--access-log", f"{place}/shop/a.log", "--error-log", f"{place}/shop/e.log")
    assert "LogsDirectory=shop" in made.lines
    assert not any("shop" in line for line in made.lines if line.startswith("ReadWritePaths"))


@pytest.mark.parametrize(("inside", "given"), [((), True), (("a.log", "a.log.1.gz"), True), (("theirs.log",), False)])
def test_a_folder_with_files_of_others_is_not_given_away(place: Path, inside: tuple[str, ...], given: bool) -> None:
    """systemd would change the owner of all that is in it."""
    (place / "shop").mkdir()
    for name in inside:
        (place / "shop" / name).touch()
    made = folders("--access-log", f"{place}/shop/a.log")
    assert ("LogsDirectory=shop" in made.lines) is given
    assert any(line.startswith("ReadWritePaths=") for line in made.lines) is not given


def test_a_folder_of_the_accounts_own_stays_its_own(place: Path) -> None:
    (place / "shop").mkdir()
    (place / "shop" / "more.log").touch()
    assert "LogsDirectory=shop" in folders("--access-log", f"{place}/shop/a.log", owner=OURS).lines


def test_a_name_that_is_no_folder_is_left_alone(place: Path) -> None:
    (place / "shop").touch()
    assert "LogsDirectory=shop" not in folders("--access-log", f"{place}/shop/a.log").lines


def test_the_folder_of_a_bound_socket_is_the_socket_units(place: Path) -> None:
    made = folders("--bind", f"unix:{place}/shop/http.sock", "--control-socket", f"{place}/shop/control.sock")
    assert "LogsDirectory=shop" not in made.lines


def test_the_folder_of_the_admin_processs_socket_is_the_services(place: Path) -> None:
    """It is made at each start, by the service itself."""
    assert "LogsDirectory=shop" in folders("--admin-bind", f"unix:{place}/shop/admin.sock").lines
    service = printed("myapp:app", "--admin-bind", "unix:admin.sock")
    assert f"--admin-bind unix:{os.getcwd()}/admin.sock" in service


def test_runtime_folders_go_beside_the_services_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = folders("--control-socket", "/run/no-such-shop/control.sock")
    assert made.runtime == ("no-such-shop",)
    service = printed("myapp:app", "--control-socket", "/run/no-such-shop/control.sock")
    assert directives(service, "RuntimeDirectory") == ["forkserver/myapp no-such-shop"]


@pytest.mark.parametrize("owner", [MADE, OTHER], ids=["made", "other"])
def test_a_folder_that_the_account_may_not_write_to_is_remarked_on(place: Path, owner: Account) -> None:
    logs = place.parent / "of $HOME\nExecStart=evil"
    logs.mkdir(mode=0o755)
    made = folders("--access-log", f"{logs}/a.log", owner=owner)
    (remark,) = (line for line in made.lines if line.startswith("#"))
    assert "\n" not in remark
    assert ("chown other" in remark) is (owner is OTHER)


def test_a_folder_that_is_missing_is_remarked_on(place: Path) -> None:
    missing = place.parent / "missing"
    made = folders("--access-log", f"{missing}/a.log", owner=OTHER)
    assert f"install -d -o other {shlex.quote(str(missing))}" in "".join(made.lines)


def test_logs_in_a_home_are_shown_and_written_to() -> None:
    service = printed("myapp:app", "--access-log", "/home/no-such-user/logs/a:b.log")
    assert directives(service, "ProtectHome") == ["tmpfs"]
    assert "-/home/no-such-user/logs" in directives(service, "BindPaths")[0]


def test_a_null_device_is_no_folder_to_write_to() -> None:
    assert "/dev" not in printed("myapp:app", "--access-log", "/dev/null").partition("ProtectSystem")[2].split("=")[1]


@pytest.mark.parametrize(("owner", "needs"), [(MADE, True), (OURS, False), (Account("me", 1, home="/home/me"), True)])
def test_an_account_without_a_home_to_see_has_one(owner: Account, needs: bool) -> None:
    assert systemd_unit_folders.needs_home(owner) is needs
    assert ("StateDirectory=forkserver/myapp" in folders(owner=owner).lines) is needs


@pytest.mark.as_root
def test_the_home_of_a_made_account_is_its_folder_of_state() -> None:
    service = printed("myapp:app")
    assert "HOME=%S/forkserver/myapp" in directives(service, "Environment")


def test_a_key_of_roots_alone_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "a.pem", tmp_path / "my key"
    for file, mode in ((certificate, 0o644), (key, 0o600)):
        file.touch()
        file.chmod(mode)
    monkeypatch.setattr(systemd_unit_folders, "account", lambda name, dynamic: OTHER)
    monkeypatch.setattr(Account, "_may_pass", lambda self, folder: True)
    service = printed("myapp:app", "--certfile", str(certificate), "--keyfile", str(key))
    assert directives(service, "LoadCredential") == [f"keyfile-1:{key}"]
    (command,) = directives(service, "ExecStart")
    assert command.endswith(" --keyfile %d/keyfile-1")
    assert str(key) not in command
    assert str(certificate) in command


def test_a_file_of_variables_of_roots_alone_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tmp_path / "secrets.env"
    secrets.touch(mode=0o600)
    monkeypatch.setattr(systemd_unit_folders, "account", lambda name, dynamic: OTHER)
    monkeypatch.setattr(Account, "_may_pass", lambda self, folder: True)
    service = printed("myapp:app", "--env-file", str(secrets))
    assert directives(service, "LoadCredential") == [f"env_file-1:{secrets}"]
    (command,) = directives(service, "ExecStart")
    assert command.endswith(" --env-file %d/env_file-1")
    assert str(secrets) not in command


def test_a_key_that_the_account_reads_is_read_anew_at_each_reload(tmp_path: Path) -> None:
    (tmp_path / "a.pem").touch(mode=0o600)
    loaded = loading.load(["myapp:app", "--certfile", str(tmp_path / "a.pem")], {})
    assert systemd_unit_folders.keys(loaded, "/", OURS) == {}
    assert systemd_unit_folders.read_by_itself(loaded, "/", OURS) == [str(tmp_path)]


def test_modes_are_read_as_the_kernel_reads_them(tmp_path: Path) -> None:
    """Of owner, group and others only the first that fits counts: path_resolution(7)."""
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o040)
    assert not Account("me", os.geteuid(), frozenset({os.getegid()})).may_read(str(file))
    in_group = Account("other", 54321, frozenset({file.stat().st_gid}))
    assert in_group._may(str(file), 4)
    assert not OTHER._may(str(file), 4)
    assert not OTHER.may_read(str(tmp_path / "missing"))
    assert OURS.may_write_in(str(tmp_path))


def test_an_account_is_looked_up_by_name_or_number() -> None:
    root = systemd_unit_folders.account("root", dynamic=False)
    assert (root.uid, root.home) == (0, "/root")
    assert systemd_unit_folders.account("0", dynamic=False) == root
    assert systemd_unit_folders.account("54321", dynamic=False).uid == 54321
    assert systemd_unit_folders.account("forkserver-x", dynamic=True).uid is None
    assert systemd_unit_folders.account("no-such-user-here", dynamic=False).uid is None
