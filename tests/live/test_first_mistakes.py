"""The mistakes of the first hour, each made as a user makes it: the message says what, why, and what to type."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from harness import needs, reach
from harness.gate import Gate
from harness.program import MODULE, LaunchProgram, Program, StartProgram, own_address

USER, SYSTEM, APPLICATION = 2, 1, 3
FLASK = "from flask import Flask\napp = Flask(__name__)\n"


def said(server: Program, status: int) -> str:
    """The last line of a start that has failed with ``status``."""
    assert server.wait() == status, server.log.text()
    server.log.until(lambda: server.log.ended, "the end of the log")
    last = server.log.text().splitlines()[-1]
    assert last.startswith("forkserver: "), server.log.text()
    return last


@pytest.fixture
def start(launch: LaunchProgram, tmp_path: Path):
    """Write files into the current directory, and start the program there."""

    def begin(*arguments: str, files: dict[str, str], status: int = APPLICATION, **more: object) -> str:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        host, port = own_address()
        return said(launch("-b", f"{host}:{port}", *arguments, **more), status)

    return begin


# The name of the application


def test_a_wrong_module_is_met_with_one_that_there_is(start) -> None:
    line = start("mysit:app", files={"mysite.py": FLASK}, status=USER)
    assert "no module 'mysit' in " in line
    assert line.endswith("did you mean mysite:app?")


def test_a_module_in_another_folder_is_met_with_the_flag_to_add(start) -> None:
    line = start("mysite:app", files={"src/mysite.py": FLASK}, status=USER)
    assert line.endswith("but src has it; add --pythonpath src")


def test_an_application_that_is_not_callable_is_met_with_one_that_is(start) -> None:
    line = start("mysite:config", files={"mysite.py": FLASK + "config = {}\n"}, status=USER)
    assert "mysite:config is a dict, not callable" in line
    assert line.endswith("did you mean `mysite:app`?")


def test_an_asgi_application_is_met_with_a_wrapper_and_a_server_for_it(start) -> None:
    line = start("mysite:app", files={"mysite.py": "async def app(scope, receive, send): ...\n"}, status=USER)
    assert "mysite:app is an ASGI application (async), and forkserver serves WSGI" in line
    assert "pip install a2wsgi, then in mysite: wsgi = a2wsgi.ASGIMiddleware(app)" in line
    assert "(uvicorn mysite:app)" in line


@pytest.mark.parametrize("arguments", ["", "config=None", "config=None, debug=False"])
def test_a_factory_without_parentheses_is_met_with_them(start, arguments: str) -> None:
    """Two optional arguments would be called as an application is, and fail with each request."""
    factory = f"from flask import Flask\ndef create_app({arguments}): return Flask(__name__)\n"
    line = start("mysite:create_app", files={"mysite.py": factory}, status=USER)
    assert "a WSGI application is called with (environ, start_response)" in line
    assert line.endswith("did you mean `mysite:create_app()`?")


# What it imports


def test_a_missing_dependency_is_met_with_the_command_that_installs_it(start) -> None:
    line = start("mysite:app", files={"mysite.py": "import yaml_of_no_release\n"})
    assert "ModuleNotFoundError: No module named 'yaml_of_no_release'; if it is a library, " in line
    assert f"{sys.executable} -m " in line
    assert re.search(r"pip install (forkserver-wsgi )?yaml_of_no_release", line)


def test_a_wrong_virtual_environment_is_met_with_the_right_one(start, tmp_path: Path) -> None:
    library = {".venv/lib/python3.11/site-packages/of_the_site.py": ""}
    line = start("mysite:app", files={"mysite.py": "import of_the_site\n", **library})
    assert f"it is installed in {tmp_path}/.venv, and this forkserver runs in {sys.prefix}" in line
    assert f"type {tmp_path}/.venv/bin/python -m pip install forkserver-wsgi, and start {tmp_path}/.venv/bin" in line


def test_a_relative_import_of_a_file_that_was_named_alone_is_met_with_its_package(start, tmp_path: Path) -> None:
    files = {"shop/__init__.py": "", "shop/models.py": "", "shop/site.py": "from .models import Model\n"}
    line = start(
        "--chdir", "shop", "site_of_shop:app", files={**files, "shop/site_of_shop.py": "from . import models\n"}
    )
    assert "ImportError: attempted relative import with no known parent package" in line
    assert line.endswith(f"forkserver --chdir {tmp_path} shop.site_of_shop:app")


def test_a_circular_import_is_met_with_the_circle(start) -> None:
    files = {"mysite.py": "from views import index\napp = index\n", "views.py": "from mysite import app\n"}
    line = start("mysite:app", files=files)
    assert "mysite imports views, which imports mysite; move one of these imports into the function" in line


def test_a_file_that_hides_a_library_is_met_with_its_name(start, tmp_path: Path) -> None:
    line = start("flask:app", files={"flask.py": FLASK})
    assert line.endswith(f"{tmp_path}/flask.py has the name of the library that it imports, and so imports itself; "
                         "rename the file")  # fmt: skip


@pytest.mark.parametrize("named", ["mysit.settings", ""])
def test_a_missing_settings_module_is_met_with_the_one_that_there_is(start, named: str) -> None:
    wsgi = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
    files = {"mysite/__init__.py": "", "mysite/settings.py": "SECRET_KEY = 'x'\n", "mysite/wsgi.py": wsgi}
    line = start("mysite.wsgi", files=files, environ={"DJANGO_SETTINGS_MODULE": named} if named else {})
    assert (f"DJANGO_SETTINGS_MODULE is {named!r}" if named else "DJANGO_SETTINGS_MODULE is not set") in line
    assert "did you mean mysite.settings? Set it with --env DJANGO_SETTINGS_MODULE=mysite.settings" in line


@pytest.mark.parametrize("call", ["app.run()", "app.run(debug=True)"])
def test_a_debug_server_that_starts_at_import_is_met_with_the_line_to_write(start, call: str) -> None:
    line = start("mysite:app", files={"mysite.py": f"{FLASK}{call}\n"})
    assert "werkzeug.serving's run_simple would start a server here" in line
    assert line.endswith('put that call under `if __name__ == "__main__":`')


def test_a_debug_server_in_its_place_does_not_run(program: StartProgram, tmp_path: Path) -> None:
    (tmp_path / "mysite.py").write_text(f'{FLASK}if __name__ == "__main__":\n    app.run()\n')
    assert program("mysite:app").stop() == 0


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python has what the test writes")
def test_syntax_of_a_newer_python_is_met_with_that_python(start) -> None:
    line = start("mysite:app", files={"mysite.py": "name = 'x'\ntext = t'{name}'\n"})
    assert "SyntaxError: " in line
    assert "it looks like a template string, which Python 3.14 has, and this is Python 3." in line
    assert "python3.14 -m venv .venv, then .venv/bin/python -m pip install forkserver-wsgi" in line


# The machine


HOLDER = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"


def test_a_port_that_is_taken_is_met_with_the_process_that_holds_it(start) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        line = start("-b", f"127.0.0.1:{port}", "mysite:app", files={"mysite.py": FLASK}, status=SYSTEM)
        assert f"cannot bind 127.0.0.1:{port}: address already in use by pid {holder.pid} ({sys.executable} -c " in line
        assert line.endswith(f"stop it (kill {holder.pid}), or choose another with --bind")
        holder.communicate("\n")


def test_a_port_of_another_forkserver_is_met_with_a_reload_of_that(
    start, program: StartProgram, tmp_path: Path
) -> None:
    running = program()
    host, port = running.address
    line = start("-b", f"{host}:{port}", "mysite:app", files={"mysite.py": FLASK}, status=SYSTEM)
    assert f"in use by pid {running.pid} (forkserver: master [raw:app]); have it load new code (kill -HUP" in line


@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80, reason="every user may bind port 80"
)
def test_a_port_below_1024_is_met_with_one_that_is_free_to_all(start) -> None:
    line = as_ordinary_user(start, "-b", "127.0.0.1:80")
    assert "cannot bind 127.0.0.1:80: permission denied, ports below 1024 are for root" in line
    assert "such as --bind 127.0.0.1:8080, or have root install the socket unit that --systemd-socket prints" in line


def test_a_folder_that_may_not_be_written_is_met_with_one_that_may(start, tmp_path: Path) -> None:
    line = as_ordinary_user(start, "-b", "unix:/etc/first-mistakes.sock")
    assert "cannot bind unix:/etc/first-mistakes.sock: permission denied, this user (uid " in line
    assert re.search(r"such as --bind unix:/run/user/\d+/first-mistakes.sock, or have systemd make one \(Runtime", line)


def as_ordinary_user(start, *arguments: str) -> str:
    """The line of a start by a user other than root."""
    with reach.public_folder() as folder:
        command: tuple[str, ...] = MODULE
        if os.geteuid() == 0:
            ordinary = (needs.program("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups")
            command = (*reach.command(folder)[: -len(MODULE)], *ordinary, *MODULE)
        # The demo application: this user may not read the test's folder.
        return start(*arguments, "forkserver:demo_app", files={}, status=SYSTEM, command=command, cwd=Path("/"))


def test_a_lack_of_memory_is_met_with_the_limit(start) -> None:
    command = (needs.program("prlimit"), f"--as={2 << 30}", *MODULE)
    line = start("mysite:app", files={"mysite.py": "table = bytearray(3 << 30)\n"}, command=command)
    assert "MemoryError; this process may have 2 GiB (RLIMIT_AS); raise ulimit -v, or LimitAS= of the unit" in line


@pytest.mark.as_root
@pytest.mark.parametrize("what", ["import", "pidfile", "log", "socket"])
def test_a_read_only_file_system_is_met_with_the_directive_that_makes_it_writable(
    start, tmp_path: Path, what: str
) -> None:
    needs.namespaces()
    folder = tmp_path / "state"
    folder.mkdir()
    written = {
        "import": (APPLICATION, []),
        "pidfile": (SYSTEM, ["--pidfile", f"{folder}/pid"]),
        "log": (USER, ["--error-log", f"{folder}/log"]),
        "socket": (SYSTEM, ["-b", f"unix:{folder}/socket"]),
    }
    status, arguments = written[what]
    mounted = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o ro none {folder}; exec "$@"', "sh", *MODULE)
    files = {"mysite.py": f"open({str(folder / 'cache')!r}, 'w')\n" if what == "import" else FLASK}
    line = start(*arguments, "mysite:app", files=files, status=status, command=mounted)
    assert "read-only file system" in line.lower()
    assert f"under systemd (ProtectSystem=strict) allow it with ReadWritePaths={folder}, " in line


def test_a_certificate_and_key_that_do_not_match_are_both_named(start, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("site.test").cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.issue_cert("site.test").private_key_pem.write_to_path(tmp_path / "key.pem")
    arguments = ("--certfile", "cert.pem", "--keyfile", "key.pem", "mysite:app")
    line = start(*arguments, files={"mysite.py": FLASK}, status=USER)
    assert "certfile 'cert.pem' and keyfile 'key.pem': the private key is another certificate's" in line
    assert line.endswith("give a certificate in PEM form and its private key")


# Requests


def test_proxy_headers_that_are_not_believed_are_met_once_with_the_setting(program: StartProgram) -> None:
    server = program("raw:app", "--forwarded-allow-ips", "192.0.2.1")
    for _ in range(3):
        with server.connect() as wire:
            assert wire.get(headers="X-Forwarded-Proto: https\r\n").status == 200
    assert server.stop() == 0
    server.log.until(lambda: server.log.ended, "the end of the log")
    told = [entry.text for entry in server.log.entries if "X-Forwarded-Proto" in entry.text]
    assert len(told) == 1, told
    assert "X-Forwarded-Proto from 127.0.0.1 dropped: the sender is not in forwarded_allow_ips" in told[0]
    assert "set --forwarded-allow-ips 127.0.0.1 or FORWARDED_ALLOW_IPS=127.0.0.1" in told[0]


def test_a_body_that_is_too_large_is_met_with_the_limit_and_its_setting(program: StartProgram) -> None:
    server = program("raw:app", "--max-body", "1000")
    with server.connect() as wire:
        wire.ask("/up", method="POST", body=b"x" * 1001)
        assert wire.answer().status == 413
    line = server.log.wait("refused 413").text
    assert "the body is larger than 1000 bytes (raise --max-body if the application takes such bodies" in line
    assert '"POST /up HTTP/1.1"' in line


def test_a_timeout_that_is_too_short_is_met_with_its_setting(program: StartProgram, gate: Gate) -> None:
    server = program("faults:app", "--timeout", "1", environ=gate.environ)
    with server.connect() as wire:
        wire.ask("/gate")
        line = server.log.wait("longer than it may").text
    assert "GET /gate" in line
    assert line.endswith("raise --timeout, or have them ask for more time (forkserver.extend_deadline)")
