"""Printed and shipped units: what they say, and that they say the same."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

from forkserver.cli.systemd import systemd_unit, systemd_unit_templates
from forkserver.config import loading
from forkserver.errors import ConfigError
from harness import needs
from harness.site import SHIPPED

ACCEPTED = {"forkserver@.service": 13, "myapp.service": 13, "forkserver-proxied@.service": 3}  # tenths of 10


def made(*argv: str, environ: dict[str, str] | None = None) -> systemd_unit_templates.Unit:
    return systemd_unit.of(loading.load(argv, environ or {}), argv, environ or {})


def line(text: str, name: str) -> str:
    (found,) = re.findall(rf"(?m)^{name}=(.*)$", text)
    return str(found)


@pytest.mark.parametrize("name", systemd_unit_templates.shipped())
def test_the_shipped_units_are_made_of_the_printed_text(name: str) -> None:
    """What is mended in one of them is mended in all."""
    remake = (
        "from forkserver.cli.systemd import systemd_unit_templates as templates; "
        f"open('systemd/{name}', 'w').write(templates.shipped()['{name}'])"
    )
    assert (SHIPPED / name).read_text() == systemd_unit_templates.shipped()[name], (
        f'make it again: python -c "{remake}"'
    )


@pytest.mark.process
@pytest.mark.parametrize("name", ACCEPTED)
def test_the_shipped_services_are_shut_in_well(name: str, tmp_path: Path) -> None:
    """1.3 of 10 at most, 0.3 without network; a unit that only names a user has 9.2."""
    analyze = needs.program("systemd-analyze")
    ran = subprocess.run(
        [analyze, "security", "--offline=yes", f"--threshold={ACCEPTED[name]}", SHIPPED / name],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.process
def test_a_printed_service_is_shut_in_as_well_and_clean(tmp_path: Path) -> None:
    analyze = needs.program("systemd-analyze")
    printed = tmp_path / "printed.service"
    printed.write_text(made("myapp:app", "-w", "4").service)
    verified = subprocess.run([analyze, "verify", printed], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    scored = subprocess.run([analyze, "security", "--offline=yes", "--threshold=13", printed], capture_output=True)
    assert scored.returncode == 0, scored.stdout.decode()


def test_every_directive_stands_once() -> None:
    """Of two, systemd takes the later one, or adds it to the earlier, depending on the directive."""
    for name, text in systemd_unit_templates.shipped().items():
        found = re.findall(r"(?m)^(\w+)=", text)
        twice = {each for each in found if found.count(each) > 1} - {"SystemCallFilter", "Environment"}  # these add up
        assert not twice, name


def test_the_command_is_the_same_with_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    service = made("-w4", "myapp:app", "--access-log=log", "-b", "unix:run/sock", "-b:80", "--preload").service
    program = Path(sys.executable).with_name("forkserver")
    assert line(service, "ExecStart") == (
        f"{program} myapp:app --preload on --bind unix:{tmp_path}/run/sock --bind :80 --workers 4"
        f" --access-log {tmp_path}/log"
    )
    assert line(service, "WorkingDirectory") == str(tmp_path)


def test_paths_are_those_that_were_typed_and_lead_through_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit that names the release behind `current` never serves the next one."""
    environment = tmp_path / "release-1" / "venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "pyvenv.cfg").touch()
    for name in ("python", "forkserver", "forkserverctl"):
        (environment / "bin" / name).touch(0o755)
    current = tmp_path / "current"
    current.symlink_to("release-1")
    monkeypatch.chdir(current)
    monkeypatch.setattr(sys, "prefix", str(environment))
    script = str(current / "venv/bin/forkserver")
    monkeypatch.setattr(sys, "argv", [script, "myapp:app"])
    monkeypatch.setattr(sys, "orig_argv", [f"{environment}/bin/python", script, "myapp:app"])
    environ = {"PWD": str(current)}
    given = ("myapp:app", "--config=a.toml", "--bind=unix:sock", "--access-log=log/a", "--control-socket=ctl")
    (tmp_path / "release-1" / "a.toml").touch()
    printed = made(*given, environ=environ)
    assert str(tmp_path / "release-1") not in printed.service + printed.socket
    assert line(printed.service, "WorkingDirectory") == str(current)
    assert f"Environment=PWD={current}\n" in printed.service
    assert line(printed.service, "ExecStart") == (
        f"{script} myapp:app --config {current}/a.toml --bind unix:{current}/sock --control-socket {current}/ctl"
        f" --access-log {current}/log/a"
    )
    assert line(printed.service, "ExecReload") == f"{script}ctl --socket {current}/ctl reload --wait"
    assert line(printed.socket, "ListenStream") == f"{current}/sock"


def test_both_ends_of_a_link_are_shown_and_no_whole_home(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {"/home/me/shop/current": "/home/me/releases/1", "/home/me/blog": "/home/me/sites/blog"}
    monkeypatch.setattr(os.path, "islink", lambda path: path in links)
    monkeypatch.setattr(os.path, "realpath", lambda path: links.get(path, path))
    assert systemd_unit._with_links(["/srv/a", "/home/me/shop/current/venv"])[2:] == [
        "/home/me/shop",
        "/home/me/releases",
    ]
    assert systemd_unit._with_links(["/home/me/blog"])[1:] == ["/home/me/sites"]


def test_a_reload_asks_where_the_control_socket_is() -> None:
    program = Path(sys.executable).with_name("forkserverctl")
    assert line(made("myapp:app").service, "ExecReload") == f"{program} reload --wait"
    named = made("myapp:app", "--control-socket", "/run/a/b").service
    assert line(named, "ExecReload") == f"{program} --socket /run/a/b reload --wait"
    assert line(made("myapp:app", "--control-socket", "off").service, "ExecReload") == "/bin/kill -HUP $MAINPID"


def test_what_systemd_would_expand_or_divide_means_itself() -> None:
    """A $ or a % in a password is part of the password."""
    service = made("myapp:app", "-e", 'A=$B %d "c" \\ d\ne', environ={"FORKSERVER_SERVER_HEADER": "50% $X"}).service
    assert r'--env "A=$$B %%d \"c\" \\ d\x0ae"' in line(service, "ExecStart")
    assert 'Environment="FORKSERVER_SERVER_HEADER=50%% $X"\n' in service


def test_an_application_named_with_a_line_feed_adds_no_line() -> None:
    """What stands on the command line of one who has sudo for this command must not become a directive."""
    service = made("myapp:app\nExecStartPre=/bin/evil").service
    assert re.findall("(?m)^ExecStartPre", service) == []


def test_a_folder_that_would_swallow_the_next_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app\\").mkdir()
    monkeypatch.chdir(tmp_path / "app\\")
    with pytest.raises(ConfigError, match="the next line would belong to it"):
        made("myapp:app")


def test_variables_that_count_are_taken_along_and_no_others() -> None:
    environ = {"FORKSERVER_THREADS": "2", "WEB_CONCURRENCY": "3", "SECRET": "x", "FORKSERVER_WORKERS": "1"}
    service = made("myapp:app", environ=environ).service
    found = [each for each in re.findall("(?m)^Environment=(.*)", service) if not each.startswith("HOME=")]
    assert found == [f"PWD={os.getcwd()}", "FORKSERVER_THREADS=2", "FORKSERVER_WORKERS=1"]


def test_limits_of_systemd_lie_beyond_those_of_the_settings() -> None:
    """A service that systemd kills while it drains loses what it drains."""
    service = made("myapp:app", "--drain-delay", "20", "--graceful-timeout", "60", "--boot-timeout", "300").service
    assert int(line(service, "TimeoutStopSec")) > 20 + 60
    assert int(line(service, "TimeoutStartSec")) > 2 * 300
    assert int(line(made("a", "--worker-connections", "100000").service, "LimitNOFILE")) > 2 * 100_000


@pytest.mark.permission
@pytest.mark.as_root
def test_root_gets_an_account_that_systemd_makes() -> None:
    service = made("myapp.wsgi:app").service
    assert line(service, "DynamicUser") == "yes"
    assert line(service, "User") == "forkserver-myapp"
    named = made("myapp:app", "--user", "nobody", "--group", "nogroup").service
    assert (line(named, "User"), line(named, "Group")) == ("nobody", "nogroup")
    assert "--user" not in line(named, "ExecStart")
    assert "DynamicUser" not in named


@pytest.mark.permission
@pytest.mark.as_user
def test_others_get_their_own_account() -> None:
    assert line(made("myapp:app").service, "User") == pwd.getpwuid(os.geteuid()).pw_name


def test_an_application_in_a_home_is_shown_and_the_rest_of_homes_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/me/shop/.venv")
    monkeypatch.setattr(sys, "base_prefix", "/home/me/.pyenv/versions/3.13")
    monkeypatch.setattr(sys, "path", ["/home/me/shop/.venv/lib/python3.13/site-packages", "/usr/lib/python3"])
    monkeypatch.setattr(os, "getcwd", lambda: "/home/me/shop")
    monkeypatch.setattr(os.path, "isdir", lambda path: True)
    service = made("myapp:app").service
    assert line(service, "ProtectHome") == "tmpfs"
    assert line(service, "BindReadOnlyPaths") == "/home/me/.pyenv/versions/3.13 /home/me/shop"


def test_the_socket_unit_has_every_address() -> None:
    bind = ("localhost:8000", "[::1]:8000", "unix:/run/my app.sock")
    socket = made("myapp:app", *(f"--bind={each}" for each in bind), "--socket-mode", "0600").socket
    listens = re.findall("(?m)^ListenStream=(.*)", socket)
    assert listens == ["127.0.0.1:8000", "[::1]:8000", "/run/my app.sock"]
    assert line(socket, "SocketMode") == "0600"
    assert line(socket, "BindIPv6Only") == "ipv6-only"


@pytest.mark.parametrize("address", ["fd://3", "myhost:80"])
def test_an_address_that_no_socket_unit_has_is_refused_with_a_way_out(address: str) -> None:
    with pytest.raises(ConfigError, match=rf"{address}.*give --bind an IP address"):
        made("myapp:app", "-b", address)


def test_the_socket_group_is_the_socket_units_to_give() -> None:
    """The service could not: it runs without that group's rights."""
    unit_made = made("myapp:app", "-b", "unix:/run/myapp.sock", "--socket-group", "nogroup")
    assert line(unit_made.socket, "SocketGroup") == "nogroup"
    assert "--socket-group" not in line(unit_made.service, "ExecStart")


def test_without_a_web_server_here_the_socket_unit_says_where_its_group_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd_unit, "PROXY_GROUPS", ("no-such-group",))
    socket = made("myapp:app", "-b", "unix:/run/myapp.sock").socket
    assert "(Debian: www-data, Red Hat: nginx).\n#SocketGroup=www-data\nSocketMode=0660\n" in socket


def test_the_socket_unit_has_abstract_sockets_and_every_interface() -> None:
    socket = made("myapp:app", "--bind=unix:@my%app", "--bind=:8000", "--bind=[::1]:8001").socket
    assert re.findall("(?m)^ListenStream=(.*)", socket) == ["@my%%app", "8000", "[::1]:8001"]
    assert "BindIPv6Only" not in socket
    assert "SocketMode" not in socket
    assert "unix:@my%%app" in made("myapp:app", "--bind=unix:@my%app").service
