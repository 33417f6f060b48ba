"""What gunicorn has and forkserver has not: each option and setting leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from forkserver.config import gunicorn_flags, loading, sources
from forkserver.config.settings import TABLE
from forkserver.errors import ConfigError
from forkserver.worker import user_hooks

# Every option and setting of gunicorn 27.0.1, from KNOWN_SETTINGS in gunicorn/config.py; "=" where it takes a value.
OPTIONS: Final = """\
-c= --config= -b= --bind= --backlog= -w= --workers= -k= --worker-class= --threads= --worker-connections=
--max-requests= --max-requests-jitter= -t= --timeout= --graceful-timeout= --keep-alive= --limit-request-line=
--limit-request-fields= --limit-request-field_size= --reload --reload-engine= --reload-extra-file= --spew
--check-config --print-config --preload --no-sendfile --reuse-port --chdir= -D --daemon -e= --env= -p= --pid=
--worker-tmp-dir= -u= --user= -g= --group= -m= --umask= --initgroups --forwarded-allow-ips= --access-logfile=
--disable-redirect-access-to-syslog --access-logformat= --error-logfile= --log-file= --log-level=
--capture-output --logger-class= --log-config= --log-config-json= --log-syslog-to= --log-syslog
--log-syslog-prefix= --log-syslog-facility= -R --enable-stdio-inheritance --statsd-host= --dogstatsd-tags=
--statsd-prefix= --enable-backlog-metric -n= --name= --pythonpath= --paste= --paster= --proxy-protocol=
--proxy-allow-from= --protocol= --uwsgi-allow-from= --keyfile= --certfile= --ssl-version= --cert-reqs=
--ca-certs= --suppress-ragged-eofs --do-handshake-on-connect --ciphers= --http-protocols= --http2-cleartext=
--http2-max-concurrent-streams= --http2-initial-window-size= --http2-max-frame-size=
--http2-max-header-list-size= --paste-global= --permit-obsolete-folding --strip-header-spaces
--permit-unconventional-http-method --permit-unconventional-http-version --casefold-http-method
--forwarder-headers= --header-map= --asgi-loop= --asgi-lifespan= --asgi-disconnect-grace-period=
--websocket-max-message-size= --http-parser= --root-path= --dirty-app= --dirty-workers= --dirty-timeout=
--dirty-threads= --dirty-graceful-timeout= --control-socket= --control-socket-mode= --no-control-socket
"""
KEYS: Final = """\
config wsgi_app bind backlog workers worker_class threads worker_connections max_requests max_requests_jitter
timeout graceful_timeout keepalive limit_request_line limit_request_fields limit_request_field_size reload
reload_engine reload_extra_files spew check_config print_config preload_app sendfile reuse_port chdir daemon
raw_env pidfile worker_tmp_dir user group umask initgroups tmp_upload_dir secure_scheme_headers
forwarded_allow_ips accesslog disable_redirect_access_to_syslog access_log_format errorlog loglevel
capture_output logger_class logconfig logconfig_dict logconfig_json syslog_addr syslog syslog_prefix
syslog_facility enable_stdio_inheritance statsd_host dogstatsd_tags statsd_prefix enable_backlog_metric
proc_name default_proc_name pythonpath paste on_starting on_reload when_ready pre_fork post_fork
post_worker_init worker_int worker_abort pre_exec pre_request post_request child_exit worker_exit
nworkers_changed on_exit ssl_context proxy_protocol proxy_allow_ips protocol uwsgi_allow_ips keyfile certfile
ssl_version cert_reqs ca_certs suppress_ragged_eofs do_handshake_on_connect ciphers http_protocols
http2_cleartext http2_max_concurrent_streams http2_initial_window_size http2_max_frame_size
http2_max_header_list_size raw_paste_global_conf permit_obsolete_folding strip_header_spaces
permit_unconventional_http_method permit_unconventional_http_version casefold_http_method forwarder_headers
header_map asgi_loop asgi_lifespan asgi_disconnect_grace_period websocket_max_message_size http_parser
root_path dirty_apps dirty_workers dirty_timeout dirty_threads dirty_graceful_timeout on_dirty_starting
dirty_post_fork dirty_worker_init dirty_worker_exit control_socket control_socket_mode control_socket_disable
"""
KNOWN: Final = {flag for setting in TABLE for flag in setting.flags} | set(sources.ACTIONS)


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loading.load(argv, {})
    return str(caught.value)


@pytest.mark.parametrize("option", OPTIONS.split())
def test_every_option_of_gunicorn_is_taken_or_says_what_to_do_instead(option: str) -> None:
    flag = option.removesuffix("=")
    known = flag.replace("_", "-") in KNOWN
    assert known != (flag in gunicorn_flags.FLAGS), "in the settings table or here, not in both and not in neither"
    if known:
        return
    row = gunicorn_flags.FLAGS[flag]
    assert row.takes_value == option.endswith("=")
    message = refusal(*([flag, "VALUE"] if row.takes_value else [flag]), "myapp:app")
    assert message == f"{flag}: no such flag; {row.way_out}"
    assert message == refusal(f"{flag}=VALUE" if flag.startswith("--") else flag, "myapp:app")


def test_every_flag_that_a_way_out_names_exists() -> None:
    """Advice that leads to the next refusal is none."""
    for flag, row in gunicorn_flags.FLAGS.items():
        words = [word.strip("`,.;:()") for word in row.way_out.split()]
        for word in words:
            if word.startswith("--"):
                assert word in KNOWN or word == "--json", f"{flag}: {word}"


@pytest.mark.parametrize("key", KEYS.split())
def test_every_setting_of_a_gunicorn_conf_py_is_taken_or_says_what_to_do_instead(key: str) -> None:
    """People write the lines of their gunicorn.conf.py into forkserver.toml."""
    if key in {setting.name for setting in TABLE if setting.in_file}:
        return
    Path("forkserver.toml").write_text(f'{key} = "x"\n')
    message = refusal("myapp:app")
    assert message.startswith(f"{key} in forkserver.toml: ")
    assert "--help lists them" not in message


def test_what_the_new_name_of_a_setting_is_exists() -> None:
    names = {setting.name for setting in TABLE}
    for key in KEYS.split():
        way_out = gunicorn_flags.of_key(key) or ""
        if way_out.startswith("write ") and key not in gunicorn_flags.HOOKS:
            assert way_out.split()[1] in names | KNOWN


def test_hooks_that_a_way_out_names_exist() -> None:
    known = {*user_hooks.NAMES}
    for key, way_out in gunicorn_flags.HOOKS.items():
        named = re.findall(r"\b([a-z_]+)\([a-z, ]+\) in the module that hooks names", way_out)
        assert set(named) <= known, key
