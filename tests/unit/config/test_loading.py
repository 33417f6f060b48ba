"""Settings from all sources together."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from forkserver.config import gunicorn_flags, loading
from harness import reach
from harness.intruder import give
from harness.settings_files import refusal, write


def test_sources_name_the_place_of_each_value() -> None:
    """An operator asks where a value comes from before anything else."""
    write("timeout = 5", "x.toml")
    environ = {"FORKSERVER_THREADS": "2", "PORT": "5000", "GUNICORN_CMD_ARGS": "--keep-alive 9"}
    loaded = loading.load(["myapp:app", "-w3", "-c", "x.toml"], environ)
    assert loaded.config_path == "x.toml"
    assert {name: source for name, source in loaded.sources.items() if source != "default"} == {
        "app": "argument",
        "config": "flag --config",
        "workers": "flag --workers",
        "timeout": "file x.toml",
        "threads": "variable FORKSERVER_THREADS",
        "bind": "variable PORT",
        "keep_alive": "variable GUNICORN_CMD_ARGS",
    }


def test_dev_sets_what_nothing_else_does() -> None:
    made = loading.load(["m:a", "--dev", "--graceful-timeout", "9"], {"WEB_CONCURRENCY": "4"})
    assert (made.dev, made.preload, made.timeout, made.reload_on_change) == ("on", "off", math.inf, "on")
    assert (made.graceful_timeout, made.workers) == (9, 4), "what is written anywhere wins"
    assert made.sources["preload"] == "setting dev"
    assert loading.load(["m:a"], {}).reload_on_change == "off"


def test_the_proxies_that_a_platform_names_are_believed() -> None:
    """Hosting platforms, and images made for gunicorn, set gunicorn's variable; it means what it means there."""
    environ = {"FORWARDED_ALLOW_IPS": "10.0.0.0/8, 192.0.2.1"}
    loaded = loading.load([], environ)
    assert loaded.forwarded_allow_ips == ["10.0.0.0/8", "192.0.2.1", "unix"]
    assert loaded.sources["forwarded_allow_ips"] == "variable FORWARDED_ALLOW_IPS"
    assert loading.load([], {"FORWARDED_ALLOW_IPS": "*"}).forwarded_allow_ips == ["*", "unix"]
    assert loading.load([], {"FORWARDED_ALLOW_IPS": "unix"}).forwarded_allow_ips == ["unix"]
    assert loading.load([], {"FORWARDED_ALLOW_IPS": ""}).forwarded_allow_ips == ["unix"]


def test_forkservers_own_settings_go_before_the_proxies_that_a_platform_names() -> None:
    environ = {"FORWARDED_ALLOW_IPS": "10.0.0.1"}
    write('forwarded_allow_ips = ["10.0.0.2"]')
    assert loading.load([], environ).forwarded_allow_ips == ["10.0.0.2"]
    environ["FORKSERVER_FORWARDED_ALLOW_IPS"] = "10.0.0.3"
    assert loading.load([], environ).forwarded_allow_ips == ["10.0.0.3"]
    assert loading.load(["--forwarded-allow-ips", "10.0.0.4"], environ).forwarded_allow_ips == ["10.0.0.4"]


def test_a_malformed_list_of_a_platform_is_named() -> None:
    complaint = refusal(FORWARDED_ALLOW_IPS="10.0.0.1,proxy.internal")
    assert complaint.startswith("FORWARDED_ALLOW_IPS '10.0.0.1,proxy.internal': 'proxy.internal': ")
    assert "write such as 10.0.0.7" in complaint
    assert "has host bits set" in refusal(FORWARDED_ALLOW_IPS="10.0.0.1/8")


def test_port_means_every_interface() -> None:
    """A platform that sets PORT connects from outside, as with gunicorn."""
    assert loading.load([], {"PORT": "5000"}).bind == ["0.0.0.0:5000"]
    assert "PORT 'tcp://10.0.0.1:80': not a port" in refusal(PORT="tcp://10.0.0.1:80")


def test_the_file_is_read_anew_by_each_load() -> None:
    """A reload must see what was changed."""
    write("workers = 3")
    assert loading.load([], {}).workers == 3
    write("workers = 4")
    assert loading.load([], {}).workers == 4


def test_a_file_that_was_named_must_be_there_and_the_usual_one_need_not() -> None:
    """A misspelt path must not mean the defaults."""
    assert loading.load([], {}).config_path is None
    message = refusal("-c", "nope.toml")
    assert message == "cannot read nope.toml: no such file or directory; fix that or name another file with --config"


def test_app_may_stand_in_the_file_or_a_variable() -> None:
    """A unit file that names only the configuration is a common way."""
    write('app = "myapp:app"')
    assert loading.load([], {}).app == "myapp:app"
    assert loading.load([], {"FORKSERVER_APP": "other:app"}).app == "other:app"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--wokers 3", "--wokers: no such flag; did you mean --workers?"),
        ("--slow 2s", "--slow: no such flag; did you mean --slow-log?"),
        ("--=2s", "--: no such flag; forkserver --help lists them"),
        ("--zzz", "--zzz: no such flag; forkserver --help lists them"),
        ("-Z", "-Z: no such flag; forkserver --help lists them"),
        (
            "-w many",
            "-w/--workers 'many': not a whole number; give 1 to 4096, or auto (as many as processors may be used)",
        ),
        ("-w 0", "-w/--workers '0': out of range; give 1 to 4096, or auto (as many as processors may be used)"),
        ("-w", "-w: no value given; write -w COUNT"),
        ("--access-log --workers 4", "--access-log: no value given; write --access-log FILE"),
        ("-b nohost", "-b/--bind 'nohost': no port; write nohost:8000"),
        ("-b ::1:80", "-b/--bind '::1:80': an IPv6 address needs brackets; write such as [::1]:8000"),
        ("-b [::g]:80", "-b/--bind '[::g]:80': '::g' is not an IPv6 address; write such as [::1]:8000"),
        (
            "-b http://x:1",
            "-b/--bind 'http://x:1': not an address; write HOST:PORT without http://, or unix:PATH, or fd://N",
        ),
        (
            "-b x:70000",
            "-b/--bind 'x:70000': port '70000' is not a number from 0 to 65535; write such as 127.0.0.1:8000",
        ),
        ("-b :1 -b nohost", "-b/--bind [':1', 'nohost']: 'nohost': no port; write nohost:8000"),
        ("-b :1 -b :1", "-b/--bind [':1', ':1']: *:1 is listed twice; name it once"),
        ("-b unix:", "-b/--bind 'unix:': no path; write unix:/run/myapp.sock, or unix:@myapp for an abstract socket"),
        ("-b unix:@", "-b/--bind 'unix:@': no path; write unix:/run/myapp.sock, or unix:@myapp"),
        (
            "-b unix:@a\x1bb",
            "an abstract socket's name with a character that cannot be shown; write such as unix:@myapp",
        ),
        (
            "-b unix:@a --socket-mode 666",
            "socket_mode 438 (flag --socket-mode): unix:@a has no file, so no permissions; bind a path such as",
        ),
        ("--umask 9", "--umask '9': not octal digits up to 777; write it as chmod does, such as 022 or 660"),
        ("--log-level inof", "not one of debug, info, warning, error, critical; did you mean info?"),
        ("--keep-alive 0", "--keep-alive '0': out of range; give 0.001 seconds to a year"),
        (
            "--timeout 3y",
            "--timeout '3y': not a number with a known unit; give seconds, write 500ms, 30s, 2m, 1h,",
        ),
        ("--handler-class a.b.C", "--handler-class 'a.b.C': not MODULE:CLASS; write a.b:C"),
        ("--user no-such-user", "no such user here; name another, or make it with useradd --system no-such-user"),
        ("--env FOO", "--env: 'FOO' is not KEY=VALUE; write such as DJANGO_SETTINGS_MODULE=mysite.settings"),
        ("a:b c:d", "'c:d': 'a:b' is the application already; give one, and values behind their flags"),
        ("--max-body 8GiB", "max_body 8589934592 (flag --max-body): more than max_spool, 1073741824; raise that too"),
        ("--limit-request-line 1M", "more than limit_request_head, 65536; raise that too"),
        ("--chdir nope", "chdir 'nope' (flag --chdir): no such directory; make it or name another"),
        ("--reload-engine poll", "write --reload alone"),
        ("-c conf.py", "conf.py: a Python file, and forkserver reads TOML"),
        (
            "--max-requests-jitter 5",
            "max_requests_jitter 5 (flag --max-requests-jitter): there is no max_requests to add it to; set that, or",
        ),
        (
            "--max-worker-memory 512",
            "'512': out of range; give bytes from 1MiB to 4294967296GiB, or write 64KiB, 10MiB, 1GiB, or 0 to switch",
        ),
        ("--drain-delay x", "--drain-delay 'x': not a number with a known unit; give seconds, write 500ms, 30s, 2m,"),
        ("--queue-timeout=-1", "--queue-timeout '-1': out of range"),
        ("--hooks myapp.hooks:post_fork", "'myapp.hooks:post_fork': not the name of a module; write myapp.hooks"),
        ("--hooks myapp/hooks.py", "--hooks 'myapp/hooks.py': not the name of a module; write myapp.hooks"),
        ("--hooks my-hooks", "--hooks 'my-hooks': not the name of a module; write such as myapp.hooks"),
        ("--ready-path healthz", "--ready-path 'healthz': not a path of visible ASCII without #; write such as /hea"),
        ("--ready-path /a#b", "--ready-path '/a#b': not a path of visible ASCII without #"),
        ("--ready-path /größe", "--ready-path '/größe': not a path of visible ASCII without #"),
        ("--error-log=", "--error-log '': empty; give a path or syslog, or leave it out for -"),
    ],
)
def test_a_wrong_command_line_is_told(argv: str, message: str) -> None:
    """One line must be enough to mend it."""
    assert message in refusal(*argv.split())


def test_every_mistake_of_a_command_line_is_told_at_once() -> None:
    """A person who moves a long command line over has one list to work off."""
    message = refusal("--wokers", "3", "--logger-class", "x.ini", "-w", "--version=2", "m:a")
    assert message == (
        "4 mistakes: (1) --wokers: no such flag; did you mean --workers?; (2) "
        f"--logger-class: no such flag; {gunicorn_flags.FLAGS['--logger-class'].way_out}; (3) "
        "-w: no value given; write -w COUNT; (4) --version takes no value, '2' was given; write --version alone"
    )
    message = refusal("-w", "x", "-t", "soon", FORKSERVER_THREADS="0")
    assert message.startswith("3 mistakes: (1) -w/--workers 'x': not a whole number")
    assert "(2) FORKSERVER_THREADS '0': out of range" in message
    assert "(3) -t/--timeout 'soon': not a number" in message


def test_every_mistake_in_gunicorns_variable_is_told_at_once() -> None:
    """The values too, though the flags alone end the start."""
    message = refusal(GUNICORN_CMD_ARGS="--logger-class x -w y --statsd-host z --preload m:a -k gevent -R")
    assert message.startswith("in GUNICORN_CMD_ARGS: 6 mistakes: (1) --logger-class: no such flag; ")
    for what in (
        "--statsd-host: no",
        "-R: no",
        "'m:a' is no setting",
        "-w/--workers 'y': not",
        "-k/--worker-class 'ge",
    ):
        assert f") {what}" in message
    assert "'x'" not in message, "the value of a refused flag is no mistake of its own"


def test_actions_are_found_before_anything_is_loaded() -> None:
    """--help must work beside a broken file."""
    write("broken")
    assert loading.action(["--workers", "x", "--help"]) == "help"
    assert loading.action(["--check-config", "m:a"]) == "check-config"
    assert loading.action(["m:a"]) is None


@pytest.mark.as_root
def test_root_reads_a_file_that_was_not_named_only_where_root_alone_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which user the application runs as: whose it is could become root at the next reload."""
    with reach.public_folder() as folder:
        monkeypatch.chdir(folder)
        write("workers = 2")
        assert loading.load([], {}).workers == 2
        give(folder / "forkserver.toml")
        assert refusal() == (
            "forkserver.toml of the current directory: not read by root, nobody owns it; name it with --config "
            f"{folder}/forkserver.toml, or give it and its folder to root alone"
        )
        give(folder)
        assert f"not read by root, nobody owns {folder}; name it with --config" in refusal("m:a")
        assert loading.load(["--config", "forkserver.toml"], {}).workers == 2
        os.unlink("forkserver.toml")
        assert loading.load([], {}).config_path is None
        os.mkfifo("forkserver.toml")
        assert "not read by root" in refusal()


@pytest.mark.as_root
def test_a_folder_that_all_may_write_is_told_as_such(tmp_path: Path) -> None:
    write("workers = 2")
    tmp_path.chmod(0o1777)
    assert f"not read by root, others than root may write {tmp_path}; name it" in refusal()


def test_a_file_of_the_current_directory_that_is_no_file_is_told() -> None:
    os.mkdir("forkserver.toml")
    assert "forkserver.toml" in refusal()
