"""The settings table, its sources and its pages."""

from __future__ import annotations

import math
import os
import pickle
import re
import tomllib
import typing
from pathlib import Path

import pytest

from forkserver.cli import settings_help
from forkserver.config import gunicorn_flags, settings, sources, value_types
from forkserver.config.settings import TABLE, Settings
from forkserver.config.value_types import GIB, KIB, MIB
from forkserver.errors import ConfigError
from forkserver.linux import cgroups
from harness import reach
from harness.intruder import INTRUDER, give

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No forkserver.toml of the directory the tests run in may be read."""
    monkeypatch.chdir(tmp_path)


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings.load(argv, environ)
    return str(caught.value)


def write(text: str, name: str = "forkserver.toml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


# The table


def test_the_reference_page_is_what_the_table_says() -> None:
    """A page that lags behind the table misleads whoever reads it."""
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    remake = "open('docs/settings.md', 'w').write(__import__('forkserver.cli.settings_help').reference.reference())"
    assert page == settings_help.reference(), f'make it again: python -c "{remake}"'


def test_every_row_has_a_typed_attribute_and_every_attribute_a_row() -> None:
    """The annotations are what mypy checks the callers by."""
    names = [setting.name for setting in TABLE]
    assert list(typing.get_type_hints(Settings)) == [*names, "config_path", "sources"]


def test_every_default_is_of_the_type_that_is_annotated() -> None:
    """mypy does not look into the table."""
    hints = typing.get_type_hints(Settings)
    for setting in TABLE:
        hint = hints[setting.name]
        allowed = list if typing.get_origin(hint) is list else hint  # isinstance takes X | None, and no list[X]
        assert isinstance(getattr(settings.defaults(), setting.name), allowed), setting.name


def test_no_flag_and_no_variable_means_two_settings() -> None:
    """The second row would never be reached."""
    flags = [flag for setting in TABLE for flag in setting.flags] + list(sources.ACTIONS)
    assert len(flags) == len(set(flags))


def test_sections_stand_together() -> None:
    """The help and the page give each section one heading."""
    headings = [line for line in settings_help.reference().splitlines() if line.startswith("## ")]
    assert len(headings) == len(set(headings))


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_a_default_shown_as_toml_is_read_back(setting: sources.Setting) -> None:
    """--print-config must give a file that can be used."""
    if setting.default is not None:
        literal = setting.kind.show(setting.default)
        assert setting.kind.parse(tomllib.loads(f"key = {literal}")["key"]) == setting.default


def test_settings_are_read_only_plain_data() -> None:
    """They are handed to every process and compared after a reload; nobody may change his copy."""
    loaded = settings.load(["myapp:app", "-w", "3"], {})
    with pytest.raises(AttributeError, match="read-only"):
        loaded.workers = 4
    assert pickle.loads(pickle.dumps(loaded)) == loaded
    assert repr(loaded) == "Settings(app='myapp:app', workers=3)"


def test_defaults_share_nothing_between_two_callers() -> None:
    """A list changed by one would be another's default."""
    settings.defaults().bind.append("fd://3")
    assert settings.defaults().bind == ["127.0.0.1:8000"]


def test_defaults_refuse_a_name_that_is_no_setting() -> None:
    """A test that sets what nobody reads proves nothing."""
    with pytest.raises(TypeError, match="wokers"):
        settings.defaults(wokers=3)


# Which source wins


def test_flag_then_variable_then_gunicorns_then_file_then_platform_then_default() -> None:
    """The order is a promise of the documentation."""
    environ = {"WEB_CONCURRENCY": "2"}
    assert settings.load([], {}).workers == 1
    assert settings.load([], environ).workers == 2
    write("workers = 3")
    assert settings.load([], environ).workers == 3
    environ["GUNICORN_CMD_ARGS"] = "-w 4"
    assert settings.load([], environ).workers == 4
    environ["FORKSERVER_WORKERS"] = "5"
    assert settings.load([], environ).workers == 5
    assert settings.load(["--workers=6"], environ).workers == 6


def test_sources_name_the_place_of_each_value() -> None:
    """An operator asks where a value comes from before anything else."""
    write("timeout = 5", "x.toml")
    environ = {"FORKSERVER_THREADS": "2", "PORT": "5000", "GUNICORN_CMD_ARGS": "--keep-alive 9"}
    loaded = settings.load(["myapp:app", "-w3", "-c", "x.toml"], environ)
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


def test_the_proxies_that_a_platform_names_are_believed() -> None:
    """Hosting platforms, and images made for gunicorn, set gunicorn's variable; it means what it means there."""
    environ = {"FORWARDED_ALLOW_IPS": "10.0.0.0/8, 192.0.2.1"}
    loaded = settings.load([], environ)
    assert loaded.forwarded_allow_ips == ["10.0.0.0/8", "192.0.2.1", "unix"]
    assert loaded.sources["forwarded_allow_ips"] == "variable FORWARDED_ALLOW_IPS"
    assert settings.load([], {"FORWARDED_ALLOW_IPS": "*"}).forwarded_allow_ips == ["*", "unix"]
    assert settings.load([], {"FORWARDED_ALLOW_IPS": "unix"}).forwarded_allow_ips == ["unix"]
    assert settings.load([], {"FORWARDED_ALLOW_IPS": ""}).forwarded_allow_ips == ["unix"]


def test_forkservers_own_settings_go_before_the_proxies_that_a_platform_names() -> None:
    environ = {"FORWARDED_ALLOW_IPS": "10.0.0.1"}
    write('forwarded_allow_ips = ["10.0.0.2"]')
    assert settings.load([], environ).forwarded_allow_ips == ["10.0.0.2"]
    environ["FORKSERVER_FORWARDED_ALLOW_IPS"] = "10.0.0.3"
    assert settings.load([], environ).forwarded_allow_ips == ["10.0.0.3"]
    assert settings.load(["--forwarded-allow-ips", "10.0.0.4"], environ).forwarded_allow_ips == ["10.0.0.4"]


def test_a_malformed_list_of_a_platform_is_named() -> None:
    complaint = refusal(FORWARDED_ALLOW_IPS="10.0.0.1,proxy.internal")
    assert complaint.startswith("FORWARDED_ALLOW_IPS '10.0.0.1,proxy.internal': 'proxy.internal': ")
    assert "write such as 10.0.0.7" in complaint
    assert "has host bits set" in refusal(FORWARDED_ALLOW_IPS="10.0.0.1/8")


def test_script_name_goes_with_either_kind_of_field() -> None:
    for fields in ("forwarded,script_name", "x-forwarded-for=whole,x-forwarded-proto,script_name"):
        assert settings.load(["--forwarded-fields", fields], {}).forwarded_fields == fields.split(",")
    assert "forwarded_fields" in refusal("--forwarded-fields", "forwarded,x-forwarded-for=whole")
    assert "name script_name in --forwarded-fields" in refusal("--forwarder-headers", "SCRIPT_NAME")


def test_port_means_every_interface() -> None:
    """A platform that sets PORT connects from outside, as with gunicorn."""
    assert settings.load([], {"PORT": "5000"}).bind == ["0.0.0.0:5000"]
    assert "PORT 'tcp://10.0.0.1:80': not a port" in refusal(PORT="tcp://10.0.0.1:80")


def test_an_empty_variable_counts_as_not_set() -> None:
    """Compose files pass on variables that nobody has set."""
    loaded = settings.load([], {"FORKSERVER_WORKERS": "", "PORT": "", "WEB_CONCURRENCY": ""})
    assert (loaded.workers, loaded.bind) == (1, ["127.0.0.1:8000"])


def test_the_file_is_read_anew_by_each_load() -> None:
    """A reload must see what was changed."""
    write("workers = 3")
    assert settings.load([], {}).workers == 3
    write("workers = 4")
    assert settings.load([], {}).workers == 4


def test_a_file_that_was_named_must_be_there_and_the_usual_one_need_not() -> None:
    """A misspelt path must not mean the defaults."""
    assert settings.load([], {}).config_path is None
    message = refusal("-c", "nope.toml")
    assert message == "cannot read nope.toml: no such file or directory; fix that or name another file with --config"


@pytest.mark.parametrize("argv", [("--config", "forkserver.toml"), ()], ids=["named", "in the current directory"])
def test_a_fifo_in_place_of_a_settings_file_is_refused_at_once(argv: tuple[str, ...]) -> None:
    """Reading it would wait for a writer: a start would hang, and a master at HUP."""
    os.mkfifo("forkserver.toml")
    assert "not a regular file" in refusal(*argv)


def test_app_may_stand_in_the_file_or_a_variable() -> None:
    """A unit file that names only the configuration is a common way."""
    write('app = "myapp:app"')
    assert settings.load([], {}).app == "myapp:app"
    assert settings.load([], {"FORKSERVER_APP": "other:app"}).app == "other:app"


# Spellings


@pytest.mark.parametrize(
    "argv",
    [["-w", "4"], ["-w4"], ["--workers", "4"], ["--workers=4"], ["-w", "9", "-w", "4"]],
)
def test_flags_in_every_usual_spelling(argv: list[str]) -> None:
    """People's hands know all of them; the last of two wins, so that a script's can be overruled."""
    assert settings.load([*argv, "myapp:app"], {}).workers == 4


def test_gunicorns_names_are_ours_too() -> None:
    """Moving over is changing one word."""
    line = "--access-logfile - --log-file err.log --pid run.pid --limit-request-field_size 100"
    more = "-k gthread -e A=1 --env B=2,3 --preload -t 0 -m 022 --max-requests 1000 --max-requests-jitter 50 myapp:app"
    loaded = settings.load([*line.split(), *more.split()], {})
    assert (loaded.access_log, loaded.error_log, loaded.pidfile) == ("-", "err.log", "run.pid")
    assert (loaded.limit_request_field_size, loaded.env) == (100, ["A=1", "B=2,3"])
    assert (loaded.preload, loaded.timeout, loaded.umask) == ("on", math.inf, 0o022)
    assert (loaded.max_requests, loaded.max_requests_jitter) == (1000, 50)
    assert loaded.app == "myapp:app"


def test_preload_takes_the_next_word_only_if_it_is_one_of_its_own() -> None:
    """gunicorn's flag has no value, and the application often follows it."""
    assert settings.load(["--preload", "off", "myapp:app"], {}).preload == "off"
    loaded = settings.load(["--preload", "myapp:app"], {})
    assert (loaded.preload, loaded.app) == ("on", "myapp:app")
    write("preload = false")
    assert settings.load([], {}).preload == "off"


def test_words_after_two_dashes_are_no_flags() -> None:
    """As everywhere."""
    assert settings.load(["-w", "2", "--", "myapp:app"], {}).app == "myapp:app"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("localhost:80", "localhost:80"),
        (":80", "*:80"),
        ("*:80", "*:80"),
        ("80", "127.0.0.1:80"),
        ("tcp://10.0.0.1:80", "10.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("[0:0:0::1]:080", "[::1]:80"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("unix:///run/x.sock", "unix:/run/x.sock"),
        ("unix:@x", "unix:@x"),
        ("fd://3", "fd://3"),
    ],
)
def test_addresses_become_canonical(written: str, meant: str) -> None:
    """Who binds them should have one form to read."""
    assert settings.load(["-b", written], {}).bind == [meant]


def test_several_addresses_by_flags_commas_or_a_toml_list() -> None:
    """Each source has its own way to give several."""
    both = ["127.0.0.1:1", "unix:x"]
    assert settings.load(["-b", "127.0.0.1:1", "-b", "unix:x"], {}).bind == both
    assert settings.load([], {"FORKSERVER_BIND": "127.0.0.1:1, unix:x"}).bind == both
    write('bind = ["127.0.0.1:1", "unix:x"]')
    assert settings.load([], {}).bind == both


def test_variables_for_the_application_in_every_source() -> None:
    """Values may hold spaces and commas, wherever they are written."""
    pairs = ["A=1,2", "B=x y"]
    assert settings.load(["-e", "A=1,2", "-eB=x y"], {}).env == pairs
    assert settings.load([], {"FORKSERVER_ENV": "A=1,2 'B=x y'"}).env == pairs
    write('[env]\nA = "1,2"\nB = "x y"')
    assert settings.load([], {}).env == pairs


@pytest.mark.parametrize(
    ("text", "size"), [("64KiB", 64 * KIB), ("1g", GIB), ("1.5M", 3 * MIB // 2), ("4096", 4096), ("10 MiB", 10 * MIB)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    """Nobody counts the zeros of a gigabyte."""
    assert settings.load(["--max-body", text], {}).max_body == size


@pytest.mark.parametrize(("text", "time"), [("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0), ("7", 7.0), ("1.5s", 1.5)])
def test_times_have_units(text: str, time: float) -> None:
    """Seconds are the unit, and others can be said."""
    assert settings.load(["--graceful-timeout", text], {}).graceful_timeout == time


@pytest.mark.parametrize("name", ["drain_delay", "queue_timeout", "max_worker_lifetime", "max_worker_memory"])
@pytest.mark.parametrize("written", ["0", "0.0"])
def test_off_is_zero(name: str, written: str) -> None:
    """Whoever reads the value asks no more than whether there is one."""
    assert getattr(settings.load([], {f"FORKSERVER_{name.upper()}": written}), name) == 0


def test_what_can_be_off_can_be_on() -> None:
    """In the units of its kind."""
    loaded = settings.load(["--drain-delay", "5s", "--max-worker-lifetime=2h", "--max-worker-memory", "512MiB"], {})
    assert (loaded.drain_delay, loaded.max_worker_lifetime, loaded.max_worker_memory) == (5.0, 7200.0, 512 * MIB)


def test_a_ready_path_may_have_a_query() -> None:
    """A check that looks deeper is mostly told so by one."""
    assert settings.load(["--ready-path", "/healthz?deep=1"], {}).ready_path == "/healthz?deep=1"


# What is refused: the value, the reason, the way out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--wokers 3", "--wokers: no such flag; did you mean --workers?"),
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
        ("--reload", "forkserver does not watch files; send the master HUP"),
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
        ("--error-log=", "--error-log '': empty; give a path, or leave it out for -"),
    ],
)
def test_a_wrong_command_line_is_told(argv: str, message: str) -> None:
    """One line must be enough to mend it."""
    assert message in refusal(*argv.split())


def test_every_mistake_of_a_command_line_is_told_at_once() -> None:
    """A person who moves a long command line over has one list to work off."""
    message = refusal("--wokers", "3", "--log-config", "x.ini", "-w", "--help=2", "m:a")
    assert message == (
        "4 mistakes: (1) --wokers: no such flag; did you mean --workers?; (2) "
        f"--log-config: no such flag; {gunicorn_flags.FLAGS['--log-config'].way_out}; (3) "
        "-w: no value given; write -w COUNT; (4) --help takes no value, '2' was given; write --help alone"
    )
    message = refusal("-w", "x", "-t", "soon", FORKSERVER_THREADS="0")
    assert message.startswith("3 mistakes: (1) -w/--workers 'x': not a whole number")
    assert "(2) FORKSERVER_THREADS '0': out of range" in message
    assert "(3) -t/--timeout 'soon': not a number" in message


def test_every_mistake_in_gunicorns_variable_is_told_at_once() -> None:
    """The values too, though the flags alone end the start."""
    message = refusal(GUNICORN_CMD_ARGS="--log-config x -w y --statsd-host z --preload m:a -k gevent -R")
    assert message.startswith("in GUNICORN_CMD_ARGS: 6 mistakes: (1) --log-config: no such flag; ")
    for what in (
        "--statsd-host: no",
        "-R: no",
        "'m:a' is no setting",
        "-w/--workers 'y': not",
        "-k/--worker-class 'ge",
    ):
        assert f") {what}" in message
    assert "'x'" not in message, "the value of a refused flag is no mistake of its own"


@pytest.mark.parametrize(
    "unrelated",
    ["--log-conf-file", "--ssl", "--http-timeout", "--master", "--socket", "--processes", "--uid", "--module", "--host",
     "--interface", "--blocking-threads", "--loop", "--max-conn", "--class", "--port", "--url-prefix", "--mount"],
)  # fmt: skip
def test_a_flag_that_is_merely_similar_is_not_suggested(unrelated: str) -> None:
    """uWSGI's and granian's flags among them: a guess that is followed does something else."""
    assert refusal(unrelated) == f"{unrelated}: no such flag; forkserver --help lists them"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("--wrokers", "--workers"), ("--worker", "--workers"), ("--accesslog", "--access-log"), ("--bimd", "--bind"),
        ("--keepalive", "--keep-alive"), ("--gracefull-timeout", "--graceful-timeout"), ("--treads", "--threads"),
        ("--max-request", "--max-requests"), ("--check-confg", "--check-config"),
    ],
)  # fmt: skip
def test_a_misspelt_flag_is_suggested(written: str, meant: str) -> None:
    assert refusal(written) == f"{written}: no such flag; did you mean {meant}?"


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_a_refused_number_tells_that_zero_is_allowed_where_it_is(setting: sources.Setting) -> None:
    """0 is how most limits are switched off, and who tries -1 looks for just that."""
    refused = _refusal_of(setting, "-1")
    if "out of range" in refused:
        zero_allowed = _refusal_of(setting, "0") == ""
        assert (re.search(r"\b0\b(?!\.)", refused) is not None) == zero_allowed


def _refusal_of(setting: sources.Setting, text: str) -> str:
    try:
        setting.kind.parse(text)
    except value_types.RefusedError as refused:
        return str(refused)
    return ""


def test_infinity_is_no_limit_where_that_can_be_said() -> None:
    """TOML has a word for it."""
    write("timeout = inf")
    assert settings.load([], {}).timeout == math.inf
    write("drain_delay = inf")
    assert "out of range; give 0.001 seconds to a year, or 0 to switch it off" in refusal()


@pytest.mark.parametrize(
    "argv",
    [
        ["-e", "A=1", "-e", "hunter2"],
        ["-e", "A=1", "-e", "hunter 2=x"],
        ["-e", "\0SECRET=hunter2"],
        ["m:a", "SECRET=hunter2"],
        ["-w", "x", "-e", "hunter2"],
    ],
)
def test_no_complaint_tells_what_may_be_a_secret(argv: list[str]) -> None:
    """It goes to the journal, and from there to whom nobody knows."""
    message = refusal(*argv)
    assert "hunter" not in message
    assert ";" in message
    write('[env]\nSECRET = "hunter2"\nDEBUG = 1')
    assert "hunter" not in refusal(*(["m:a"] if argv[0] == "m:a" else argv))


def test_other_worker_classes_are_refused_with_the_reason() -> None:
    """Who passes gevent relies on something that would not happen."""
    assert "-k/--worker-class 'gevent': forkserver has one kind of worker" in refusal("-k", "gevent")


def test_a_unix_path_longer_than_the_kernel_takes_is_refused() -> None:
    """bind would say no more than "path too long"."""
    assert "longer than 107 bytes" in refusal("-b", f"unix:/{'x' * 107}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wokers = 3", "wokers in forkserver.toml: no such setting; did you mean workers?"),
        (
            "graceful-timeout = 3",
            "in forkserver.toml: no such setting; did you mean graceful_timeout?",
        ),
        ("zzz = 3", "zzz in forkserver.toml: no such setting; forkserver --help lists them"),
        ("[server]\nworkers = 3", "[server] in forkserver.toml: no such table; settings stand at the top level"),
        ("workers = ", "forkserver.toml: not TOML: Invalid value (at end of document)"),
        ("workers = true", "workers in forkserver.toml true: not a whole number"),
        ("workers = 2.5", "workers in forkserver.toml 2.5: not a whole number"),
        (
            "umask = 22",
            'umask in forkserver.toml 22: a number whose base cannot be seen; write octal digits in quotes, "0022"',
        ),
        ("umask = 22", '"0022", or "0026" where 0o26 was written'),
        ("socket_mode = 660", 'write octal digits in quotes, "0660"'),
        ("socket_mode = 0o660", 'write octal digits in quotes, "0432", or "0660" where 0o660 was written'),
        ("socket_mode = 0o666", 'write octal digits in quotes, "0666" where 0o666 was written'),
        ("socket_mode = 99999", 'write octal digits in quotes, such as "022"'),
        ("socket_mode = -1", 'write octal digits in quotes, such as "022"'),
        ("umask = 7", 'write octal digits in quotes, "0007"'),
        ("umask = true", "base cannot be seen"),
        ("chdir = 3", "chdir in forkserver.toml 3: not text; put it in quotes"),
        ("bind = []", "bind in forkserver.toml []: nothing to listen on"),
        ("timeout = nan", "timeout in forkserver.toml nan: not a number"),
        ("config = 'x'", "config in forkserver.toml: no such setting"),
    ],
)
def test_a_wrong_file_is_told(text: str, message: str) -> None:
    """With the file's name, for there may be several."""
    write(text)
    assert message in refusal()


def test_a_file_that_is_not_text_is_told() -> None:
    """A traceback of the decoder would be ours."""
    Path("forkserver.toml").write_bytes(b"\xff\xfe")
    assert "forkserver.toml: not TOML" in refusal()


def test_a_misspelt_variable_is_told_and_a_strangers_is_not() -> None:
    """Kubernetes makes FORKSERVER_SERVICE_HOST for a service of that name; WROKERS is a slip."""
    message = refusal(FORKSERVER_WROKERS="3")
    assert message == "variable FORKSERVER_WROKERS: no such setting; did you mean FORKSERVER_WORKERS?"
    settings.load([], {"FORKSERVER_SERVICE_HOST": "10.0.0.1", "FORKSERVER_PORT_8000_TCP": "tcp://10.0.0.1:8000"})


def test_a_wrong_variable_is_named() -> None:
    """The value alone could stand anywhere."""
    assert refusal(FORKSERVER_THREADS="x").startswith("FORKSERVER_THREADS 'x': not a whole number")
    assert refusal(WEB_CONCURRENCY="x").startswith("WEB_CONCURRENCY 'x': not a whole number")
    assert refusal(GUNICORN_CMD_ARGS="-w x").startswith("-w/--workers in GUNICORN_CMD_ARGS 'x': not a whole number")
    assert refusal(GUNICORN_CMD_ARGS="--zzz").startswith("in GUNICORN_CMD_ARGS: --zzz: no such flag")
    assert refusal(GUNICORN_CMD_ARGS="myapp:app").startswith("in GUNICORN_CMD_ARGS: 'myapp:app' is no setting")
    assert refusal(GUNICORN_CMD_ARGS="-w/--workers '").startswith("GUNICORN_CMD_ARGS: no closing quotation")
    assert "close every quote" in refusal(FORKSERVER_ENV="'A=1")


@pytest.mark.as_user
def test_only_root_may_become_another_user() -> None:
    """It would fail after the workers were promised."""
    assert "only root may become another user" in refusal("--user", "root")


# Pages


def test_print_config_gives_a_file_that_means_the_same() -> None:
    """What runs by flags today can be a file tomorrow."""
    argv = ["m:a", "-w3", "-b", ":1", "-t0", "-m", "027", "-e", 'A="\\\x7f', "--max-body=5000001", "--keep-alive=0.25"]
    loaded = settings.load(argv, {})
    write(settings_help.as_toml(loaded))
    again = settings.load([], {})
    assert {setting.name: getattr(again, setting.name) for setting in TABLE} == {
        setting.name: getattr(loaded, setting.name) for setting in TABLE
    }


def test_print_config_leaves_out_variables_that_look_secret() -> None:
    """It is pasted into tickets. In the place of a value, anything else would be believed."""
    secret = [
        "SECRET_KEY=hunter2", "DB_PASSWORD=hunter2", "GITHUB_TOKEN=hunter2", "SENTRY_DSN=hunter2",
        "DATABASE_URL=postgres://user:hunter2@db/app", "REDIS=redis://:hunter2@db", "AWS_SECRET_ACCESS_KEY=hunter2",
        "BROKER=amqp://host/?password=hunter2", "STRIPE_API_KEY=hunter2", "MAIL_PWD=hunter2", "BASIC_AUTH=hunter2",
    ]  # fmt: skip
    plain = ["DJANGO_SETTINGS_MODULE=site.settings", "HOME=/srv", "KEYBOARD=us", "URL=https://example.org/a?b=c", "A="]
    loaded = settings.load([word for pair in (*secret, *plain) for word in ("-e", pair)], {})
    text = settings_help.as_toml(loaded)
    assert "hunter" not in text
    assert tomllib.loads(text)["env"] == plain
    names = ", ".join(pair.partition("=")[0] for pair in secret)
    assert f"# flag --env; not shown, for they look secret: {names}\n" in text
    assert "hunter" not in repr(loaded)


def test_print_config_says_where_each_value_comes_from() -> None:
    """The reason to run it."""
    text = settings_help.as_toml(settings.load(["-w", "3"], {"FORKSERVER_BIND": "unix:x"}))
    assert "workers = 3  # flag --workers\n" in text
    assert 'bind = ["unix:x"]  # variable FORKSERVER_BIND\n' in text
    assert "# access_log is not set  # default\n" in text


def test_help_names_every_flag() -> None:
    """A flag that the help leaves out is found by nobody."""
    text = settings_help.usage()
    assert [flag for setting in TABLE for flag in setting.flags if flag not in text] == []
    assert max(map(len, text.splitlines())) <= 100


def test_actions_are_found_before_anything_is_loaded() -> None:
    """--help must work beside a broken file."""
    write("broken")
    assert settings.action(["--workers", "x", "--help"]) == "help"
    assert settings.action(["--check-config", "m:a"]) == "check-config"
    assert settings.action(["m:a"]) is None


# Processors


def _cgroup(root: Path, files: dict[str, str]) -> tuple[str, str]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root / "fs"), str(root / "membership")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"membership": "0::/a/b\n", "fs/a/cpu.max": "150000 100000\n", "fs/a/b/cpu.max": "max 100000\n"}, 1.5),
        ({"membership": "0::/\n", "fs/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "membership": "5:memory:/m\n4:cpu,cpuacct:/c\n0::/\n",
                "fs/cpu/c/cpu.cfs_quota_us": "300000\n",
                "fs/cpu/c/cpu.cfs_period_us": "100000\n",
                "fs/cpu/cpu.cfs_quota_us": "-1\n",
                "fs/cpu/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        ({"membership": "0::/a\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_tightest_control_group_counts(tmp_path: Path, files: dict[str, str], expected: float) -> None:
    """A container of two processors on a machine of sixty-four must not start sixty-four workers."""
    assert cgroups.quota(*_cgroup(tmp_path, files)) == expected


def test_auto_is_at_least_one_and_at_most_what_affinity_allows(tmp_path: Path) -> None:
    """A tenth of a processor still needs a worker."""
    tight = _cgroup(tmp_path, {"membership": "0::/\n", "fs/cpu.max": "10000 100000\n"})
    assert cgroups.usable(*tight) == 1
    assert cgroups.usable(str(tmp_path / "none"), str(tmp_path / "none")) == len(os.sched_getaffinity(0))
    assert settings.load(["-w", "auto"], {}).workers == cgroups.usable()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--certfile", "a,b", "--keyfile", "a"], "keyfile .*1 for 2 of certfile"),
        (["--self-signed", "--certfile", "a"], "self_signed .*leave one of them out"),
        (["--ciphers", "HIGH"], "ciphers .*nothing is encrypted"),
        (["--certfile", "a", "--cert-reqs", "2"], "cert_reqs 'required' .*give both"),
        (["--certfile", "a", "--ca-certs", "b"], "ca_certs .*no client is asked"),
        (["--forwarded-fields", "forwarded,x-forwarded-for"], "forwarded_fields .*nobody could say which"),
        (["--forwarded-fields", "x-real-ip"], "not one of forwarded, x-forwarded-for"),
        (["--forwarded-allow-ips", "10.0.0.1/8"], "10.0.0.1/8 has host bits set"),
        (["--forwarded-allow-ips", "proxy"], "'proxy' does not appear to be"),
        (["--root-path", "/shop/"], "without a / at its end"),
        (["--root-path", "/a%20b"], "write it decoded"),
        (["--cert-reqs", "3"], "not one of none, optional, required"),
    ],
)
def test_what_would_be_believed_or_checked_wrongly_is_refused(argv: list[str], told: str) -> None:
    """Who asks for a check that cannot be made, or names a peer that nobody is, must hear of it at the start."""
    with pytest.raises(ConfigError, match=told):
        settings.load(argv, {})


def test_peers_are_listed_with_commas_or_again() -> None:
    loaded = settings.load(["--proxy-allow-ips", "unix, 10.0.0.0/8", "--proxy-allow-ips", "::0:1,*"], {})
    assert loaded.proxy_allow_ips == ["unix", "10.0.0.0/8", "::1", "*"]


def test_gunicorns_numbers_mean_what_they_mean_there() -> None:
    argv = ["--certfile", "a", "--ca-certs", "b", "--cert-reqs", "1"]
    assert settings.load(argv, {}).cert_reqs == "optional"


def test_the_root_of_the_site_is_no_root_path() -> None:
    assert settings.load(["--root-path", "/"], {}).root_path is None


# forkserver.toml, which nobody has named, before root


@pytest.mark.as_root
def test_root_reads_a_file_that_was_not_named_only_where_root_alone_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which user the application runs as: whose it is could become root at the next reload."""
    with reach.public_folder() as folder:
        monkeypatch.chdir(folder)
        write("workers = 2")
        assert settings.load([], {}).workers == 2
        give(folder / "forkserver.toml")
        assert refusal() == (
            "forkserver.toml of the current directory: not read by root, nobody owns it; name it with --config "
            f"{folder}/forkserver.toml, or give it and its folder to root alone"
        )
        give(folder)
        assert f"not read by root, nobody owns {folder}; name it with --config" in refusal("m:a")
        assert settings.load(["--config", "forkserver.toml"], {}).workers == 2
        os.unlink("forkserver.toml")
        assert settings.load([], {}).config_path is None
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


def test_the_workers_uid_is_that_of_the_user_setting() -> None:
    assert settings.defaults().service_uid == -1
    assert settings.defaults(user="4711").service_uid == 4711
    assert settings.defaults(user="nobody").service_uid == INTRUDER.pw_uid
    assert settings.defaults(user="removed-since").service_uid == -1


def test_permissions_apply_where_one_unix_socket_has_a_file() -> None:
    loaded = settings.load(["-b", "unix:@a", "-b", "unix:b", "--socket-mode", "600"], {})
    assert loaded.socket_mode == 0o600
