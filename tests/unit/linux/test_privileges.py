"""Whom the application runs as, as programs are told and as the kernel knows it."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from forkserver.linux import privileges

SCRIPT = """
import json, os, sys
from forkserver.linux import privileges as rights
user, no_new_privs = sys.argv[1:]
rights.wanted(user or None, None, None, no_new_privs == "on").take()
status = open("/proc/self/status").read()
print(json.dumps({"environ": dict(os.environ), "status": dict(line.split(":\\t", 1) for line in status.splitlines())}))
"""


def taken(user: str, no_new_privs: str = "off", **environ: str) -> dict[str, dict[str, str]]:
    """What a process is that has taken the rights of ``user``."""
    command = [sys.executable, "-c", SCRIPT, user, no_new_privs]
    given = {name: value for name, value in os.environ.items() if name not in ("USER", "LOGNAME", "SHELL")}
    ran = subprocess.run(command, env=given | environ, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, dict[str, str]] = json.loads(ran.stdout)
    return found


@pytest.mark.process
@pytest.mark.as_root
def test_another_user_is_told_its_own_home_and_name() -> None:
    """Libraries would look for their files, and write them, in root's."""
    nobody = pwd.getpwnam("nobody")
    environ = taken("nobody", HOME="/root", USER="root", LOGNAME="root")["environ"]
    names = ("HOME", "USER", "LOGNAME", "SHELL")
    assert [environ[name] for name in names] == [nobody.pw_dir, "nobody", "nobody", nobody.pw_shell]


@pytest.mark.process
@pytest.mark.as_root
def test_folders_of_root_are_not_named_to_another_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    closed = str(tmp_path)
    environ = taken("nobody", TMPDIR=closed, TEMP=closed, XDG_RUNTIME_DIR=closed)["environ"]
    assert not {"TMPDIR", "TEMP", "XDG_RUNTIME_DIR"} & set(environ)
    assert taken("nobody", TMPDIR="/tmp")["environ"]["TMPDIR"] == "/tmp"


@pytest.mark.process
@pytest.mark.as_root
def test_a_number_without_an_account_is_told_no_name() -> None:
    environ = taken("54321", HOME="/root", USER="root", LOGNAME="root")["environ"]
    assert environ["HOME"] == "/"
    assert not {"USER", "LOGNAME", "SHELL"} & set(environ)


@pytest.mark.process
def test_the_environment_of_our_own_user_stays_as_it_is() -> None:
    environ = taken("", HOME="/srv/app", TMPDIR="/no/such/folder")["environ"]
    assert (environ["HOME"], environ["TMPDIR"]) == ("/srv/app", "/no/such/folder")


@pytest.mark.process
@pytest.mark.parametrize(("setting", "flag"), [("on", "1"), ("off", "0")])
def test_no_new_privs_is_the_kernels_flag(setting: str, flag: str) -> None:
    assert taken("", setting)["status"]["NoNewPrivs"] == flag


def test_an_ordinary_users_rights_change_nothing() -> None:
    assert not privileges.wanted(None, None, None).changes
