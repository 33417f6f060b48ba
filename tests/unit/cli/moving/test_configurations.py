"""Configurations as services have them, each made into a forkserver.toml that can be loaded.

They are written after configurations of public projects, with other names and values.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from forkserver.cli.moving import source, translation
from forkserver.config import loading
from forkserver.config.settings import TABLE, Settings
from forkserver.linux import cgroups

FOLDER = Path(__file__).parent / "configurations"
MIB = 1 << 20
PROCESSORS = os.cpu_count() or 1

# What each makes of our settings; all others stay as they are by default.
EXPECTED: dict[str, dict[str, Any]] = {
    "container_with_threads.py": {
        "bind": ["0.0.0.0:8080"], "worker_class": "gthread", "threads": 4, "timeout": 120.0, "graceful_timeout": 30.0,
        "keep_alive": 5.0, "max_requests": 1000, "max_requests_jitter": 50, "access_log": "-", "error_log": "-",
        "log_level": "info", "forwarded_allow_ips": ["*", "unix"], "workers": min(PROCESSORS * 2 + 1, 5),
    },
    "behind_nginx.py": {
        "bind": ["unix:/run/gunicorn.sock"], "workers": 3, "backlog": 1024, "umask": 0o007, "user": "root",
        "group": "root", "chdir": "/usr", "pidfile": "/usr/gunicorn.pid", "access_log": "/usr/access.log",
        "error_log": "/usr/error.log", "log_level": "warning",
        "env": ["DJANGO_SETTINGS_MODULE=shop.settings", "SECRET_KEY=correct-horse"],
        "access_log_format": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %(D)s',
    },
    "green_threads_of_old.py": {
        "bind": ["127.0.0.1:8000"], "workers": 5, "worker_connections": 2000, "backlog": 2048,
        "pidfile": "gunicorn.pid",
    },
    "environment_and_hooks.py": {
        "app": "portal.wsgi:application", "bind": ["*:8081"], "workers": 2, "timeout": math.inf, "preload": "on",
        "control_socket": "off", "max_requests": 20_000, "max_requests_jitter": 2000,
    },
    "development_left_on.py": {
        "bind": ["0.0.0.0:5000", "[::1]:5000"], "workers": 1, "timeout": 480.0, "graceful_timeout": 60.0,
        "keep_alive": 60.0, "preload": "on", "cert_reqs": "none", "reload_on_change": "on",
        "certfile": ["server.crt"], "keyfile": ["server.key"],
        "access_log_format": '%({x-forwarded-for}i)s %(t)s "%(r)s" %(s)s', "limit_request_line": 4094,
        "limit_request_fields": 100, "limit_request_field_size": 8190,
    },
    "django_behind_nginx.ini": {
        "app": "config.wsgi:application", "chdir": "/usr", "workers": 4, "threads": 2,
        "bind": ["unix:/run/uwsgi/app.sock"], "socket_group": "root", "socket_mode": 0o664, "timeout": 30.0,
        "max_requests": 10_000, "limit_request_line": 32768,
        "limit_request_field_size": 32768, "error_log": "/var/log/uwsgi-errors.log", "pidfile": "run/app.pid",
        "user": "root", "group": "root", "env": ["DJANGO_SETTINGS_MODULE=config.settings", "LANG=C.UTF-8"],
        "access_log": "-",
    },
    "flask_with_placeholders.ini": {
        "app": "api.app:app", "pythonpath": ["/srv/circulation"], "bind": ["127.0.0.1:3031"], "preload": "off",
        "error_log": "/var/log/flask_with_placeholders.log", "user": "0", "backlog": 128, "max_body": 200 * MIB,
        "timeout": math.inf, "access_log": "-",
    },
    "container_counting_processors.ini": {
        "app": "shop.wsgi:app", "bind": ["*:8080"], "workers": cgroups.usable() + 1, "threads": 2, "timeout": 600.0,
        "max_worker_lifetime": 3600.0, "max_worker_memory": 128 * MIB, "body_timeout": 600.0, "graceful_timeout": 300.0,
        "env": ["HOME=/home/shop"],
    },
    "mounted_below.ini": {
        "app": "wsgi", "pythonpath": ["/usr/lib/shop"], "root_path": "/shop", "bind": ["*:8443"],
        "certfile": ["server.crt"], "keyfile": ["server.key"], "proxy_protocol": "on", "keep_alive": 20.0,
        "error_log": "/var/log/shop.log", "timeout": math.inf, "access_log": "-",
    },
    "threads.command": {
        "app": "wsgi:app", "bind": ["*:5000"], "threads": 12, "backlog": 2048, "worker_connections": 500,
        "timeout": math.inf, "max_body": 1024 * MIB,
    },
    "factory.command": {
        "app": "app:create_app()", "bind": ["0.0.0.0:5000"], "max_body": 20 * MIB, "forwarded_allow_ips": ["10.0.0.1"],
        "forwarded_fields": ["x-forwarded-for", "x-forwarded-proto"], "root_path": "/toasts", "threads": 4,
        "timeout": math.inf,
    },
    "Procfile": {
        "app": "shop.wsgi", "error_log": "-", "workers": 3, "worker_class": "gthread", "threads": 8,
        "max_requests": 500, "max_requests_jitter": 50, "timeout": 60.0, "preload": "on",
    },
    "module.command": {
        "app": "wsgi:application", "bind": ["*:8080"], "workers": 2, "threads": 15, "timeout": 60.0,
        "body_timeout": 15.0, "forwarded_fields": ["x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"],
    },
    "static_files.command": {
        "app": "config.wsgi:application", "bind": ["*:8080"], "user": "root", "group": "root", "max_body": 20 * MIB,
        "access_log": "-", "log_level": "warning", "reload_on_change": "on", "threads": 5,
        "timeout": 60.0, "body_timeout": 15.0,
    },
    "uwsgi.command": {
        "app": "app:create_app()", "bind": ["0.0.0.0:8000"], "workers": 4, "socket_mode": 0o660, "timeout": math.inf,
    },
    "gunicorn.command": {
        "app": "app:create_app()", "bind": ["0.0.0.0:5050"], "workers": 2, "worker_class": "gthread", "threads": 4,
        "timeout": 120.0, "access_log": "-", "error_log": "-", "capture_output": "on", "proxy_protocol": "on",
        "env": ["SETTINGS=production"],
        "access_log_format": '%(h)s - %(u)s [%(t)s] "%(r)s" %(s)s %(b)s %(D)s',
    },
}  # fmt: skip
# What an ordinary user's forkserver refuses: another user for its workers.
OF_ROOT = ("user", "group", "socket_group")


@pytest.fixture(autouse=True)
def _of_their_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configurations in a folder of the one who reads them: root executes no file of another user."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def translated(name: str) -> str:
    words = [Path(name).read_text().strip()] if name.endswith(".command") else [name]
    return translation.as_toml(source.read(words, {"HOME": "/home/shop"}))


def loaded(text: str) -> Settings:
    Path("made.toml").write_text(text)
    return loading.load(["--config", "made.toml"], {})


def test_every_configuration_is_here() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_configuration_becomes_a_file_that_means_the_same(name: str) -> None:
    settings = loaded(translated(name))
    changed = {
        setting.name: getattr(settings, setting.name)
        for setting in TABLE
        if settings.sources[setting.name] != "default" and setting.name not in ("config", *OF_ROOT)
    }
    assert changed == {key: value for key, value in EXPECTED[name].items() if key not in OF_ROOT}


@pytest.mark.as_root
@pytest.mark.parametrize("name", ["behind_nginx.py", "django_behind_nginx.ini", "static_files.command"])
def test_users_and_groups_are_taken_over(name: str) -> None:
    settings = loaded(translated(name))
    assert {key: getattr(settings, key) for key in OF_ROOT if key in EXPECTED[name]} == {
        key: value for key, value in EXPECTED[name].items() if key in OF_ROOT
    }


LINES = """
container_with_threads.py: worker_tmp_dir = '/dev/shm': not needed; workers write no heartbeat file
container_with_threads.py: keepalive = 5: renamed keep_alive
container_with_threads.py: post_fork = post_fork(): not had; write post_fork(worker) in the module that hooks names
container_with_threads.py: it counts processors; workers = "auto" has one worker for each that may be used
green_threads_of_old.py: spew = False: off, as here
green_threads_of_old.py: gunicorn has no such settings, and ignores them: debug, logfile
green_threads_of_old.py: worker_class = 'gevent': left out; there are no green threads; write threads = N
flask_with_placeholders.ini: if-env = DEBUG: conditions and loops are not evaluated; what stands in it is left out
flask_with_placeholders.ini: py-autoreload = 1: left out, it stands in a condition or loop
flask_with_placeholders.ini: by default: uWSGI sets no limit to a call; without this line it is 30 seconds
container_counting_processors.ini: frobnicate = '1': not known; docs/moving/uwsgi.md has what is,
container_counting_processors.ini: worker-reload-mercy = '600': left out; the one below counts
factory.command: before the server's name stood: PORT=5000 uv run; it goes before forkserver, or into the unit
static_files.command: url-alias = ['/static', 'staticfiles']: not had; files are served by a proxy in front,
"""


@pytest.mark.parametrize(("name", "line"), [row.split(": ", 1) for row in LINES.strip().splitlines()])
def test_each_setting_has_a_line_that_says_what_became_of_it(name: str, line: str) -> None:
    """A setting that is dropped without a word is found out in production."""
    assert f"\n# {line}" in translated(name)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_setting_is_named(name: str) -> None:
    words = [Path(name).read_text().strip()] if name.endswith(".command") else [name]
    read = source.read(words, {"HOME": "/home/shop"})
    text = translation.as_toml(read)
    composed = read.server.compose(read.found)
    assert [found.name for found in composed if f"\n# {found.name} = " not in text] == []


def test_a_secret_stands_in_no_comment() -> None:
    """Comments are pasted into tickets; the value itself is needed where it was."""
    lines = [line for line in translated("behind_nginx.py").splitlines() if "correct-horse" in line]
    assert lines == ['env = ["DJANGO_SETTINGS_MODULE=shop.settings", "SECRET_KEY=correct-horse"]']
