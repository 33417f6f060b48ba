"""The options of mod_wsgi-express."""

from __future__ import annotations

from typing import Final

import pytest

from forkserver.cli.moving import mod_wsgi, source, translation

# Every option of mod_wsgi-express start-server of mod_wsgi 6.1, those that its help hides among them; "=" where it
# takes a value, "==" where two.
OPTIONS: Final = """\
application-type= entry-point= application-group= process-group= host= port= http2 https-port= ssl-port=
ssl-certificate-file= ssl-certificate-key-file= ssl-certificate= ssl-ca-certificate-file= ssl-verify-client=
ssl-certificate-chain-file= ssl-environment https-only hsts-policy= server-name= server-alias= allow-localhost
processes= threads= max-clients= initial-workers= minimum-spare-workers= maximum-spare-workers= limit-request-body=
maximum-requests= startup-timeout= shutdown-timeout= restart-interval= cpu-time-limit= graceful-timeout=
eviction-timeout= deadlock-timeout= inactivity-timeout= ignore-activity= request-timeout= interrupt-timeout=
connect-timeout= socket-timeout= proxy-timeout= queue-timeout= header-timeout= header-max-timeout= header-min-rate=
body-timeout= body-max-timeout= body-min-rate= server-backlog= daemon-backlog= send-buffer-size= receive-buffer-size=
header-buffer-size= response-buffer-size= response-socket-timeout= enable-sendfile disable-reloading reload-on-changes
user= group= callable-object= map-head-to-get= document-root= directory-index= directory-listing allow-override=
mount-point= url-alias== error-document== error-override proxy-mount-point== proxy-url-alias== proxy-virtual-host==
trust-proxy-header= trust-proxy= keep-alive-timeout= compress-responses server-metrics telemetry-service=
enable-telemetry telemetry-ui-port= telemetry-interval= slow-requests= switch-interval= free-threading
telemetry-options= server-status host-access-script= auth-user-script= auth-type= auth-group-script= auth-group=
include-file= rewrite-rules= envvars-script= lang= locale= setenv== passenv= working-directory= pid-file= server-root=
server-mpm= log-directory= log-level= access-log startup-log verbose-debugging log-to-terminal access-log-format=
error-log-format= error-log-name= access-log-name= startup-log-name= rotate-logs max-log-size= rotatelogs-executable=
python-path= python-eggs= shell-executable= httpd-executable= process-name= modules-directory= mime-types=
socket-prefix= add-handler== chunked-request with-php5 with-cgi service-script== service-user== service-group==
service-log-file== orphan-interpreter embedded-mode enable-docs debug-mode enable-debugger debugger-startup
enable-coverage coverage-directory= enable-profiler profiler-directory= enable-recorder recorder-directory= enable-gdb
gdb-executable= setup-only
"""


def lines(command: str) -> list[str]:
    text = translation.as_toml(source.read([f"mod_wsgi-express start-server {command}"], {}))
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("option", OPTIONS.split())
def test_every_option_has_a_row_and_takes_as_many_words(option: str) -> None:
    name = option.rstrip("=")
    assert name in mod_wsgi.SERVER.rows
    assert mod_wsgi.options()[f"--{name}"].words == option.count("=")


def test_what_mod_wsgi_express_does_by_default_is_written_down() -> None:
    assert lines("wsgi.py") == [
        'app = "wsgi:application"', 'bind = ["*:8000"]', "threads = 5", "timeout = 60", "body_timeout = 15",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/srv/shop/shop.wsgi", 'app = "shop:application"'),
        ("/srv/shop/shop.wsgi", 'pythonpath = ["/srv/shop"]'),
        ("site/wsgi.py --callable-object app", 'app = "site.wsgi:app"'),
        ("--application-type module shop.web --callable-object app", 'app = "shop.web:app"'),
        ("wsgi.py --host ::1 --port 81", 'bind = ["[::1]:81"]'),
        ("wsgi.py --https-port 8443 --ssl-certificate /etc/shop", 'bind = ["*:8443"]'),
        ("wsgi.py --https-port 8443 --ssl-certificate /etc/shop", 'certfile = ["/etc/shop.crt"]'),
        ("wsgi.py --https-port 8443 --ssl-certificate /etc/shop", 'keyfile = ["/etc/shop.key"]'),
        ("wsgi.py --mount-point /shop/", 'root_path = "/shop"'),
        ("wsgi.py --slow-requests 1.5", "slow_log = 1.5"),
        ("wsgi.py --keep-alive-timeout 20", "keep_alive = 20"),
        ("wsgi.py --log-level crit", 'log_level = "critical"'),
        ("wsgi.py --access-log-format combined", 'access_log_format = "combined"'),
    ],
)
def test_options_mean_what_they_mean_to_mod_wsgi(command: str, expected: str) -> None:
    assert expected in lines(command)


@pytest.mark.parametrize("command", ["wsgi.py --keep-alive-timeout 0", "--application-type static .", "my-app.py"])
def test_what_cannot_be_taken_leaves_the_rest(command: str) -> None:
    assert lines(command)
