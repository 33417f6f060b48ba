"""Behind a real HAProxy and a real nginx: the application sees the client and the scheme, and nobody forges them.

Clients come from addresses of their own within 127.0.0.0/8; the proxies connect from 127.0.0.1, which is trusted.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import BOUND, credentials
from harness.clients import Wire
from harness.credentials import Files
from harness.fronts import (
    CLIENT,
    FIELDS,
    TRUST,
    At,
    Front,
    ask,
    files_of_both,
    haproxy_fronts,
    nginx_fronts,
    seen,
)
from harness.program import StartProgram


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return files_of_both(tmp_path)


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Front]:
    """Start HAProxy in front of a program, on a listener that it inherits; returns where."""
    yield from haproxy_fronts(tmp_path)


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Front]:
    """Start nginx in front of a program."""
    yield from nginx_fronts(tmp_path)


# X-Forwarded-* and Forwarded


@pytest.mark.parametrize("secure", [False, True], ids=["plain behind", "TLS behind"])
def test_haproxy_speaks_for_its_client(
    program: StartProgram, haproxy: Front, files: Files, tmp_path: Path, secure: bool
) -> None:
    """TLS at the proxy, and behind it; what the client made up is gone."""
    rules = "option forwardfor\n http-request set-header X-Forwarded-Proto https"
    server = program("raw:app", *TRUST, *(("--certfile", files.certificate, "--keyfile", files.key) if secure else ()))
    how = f"ssl verify required ca-file {credentials.authorities(tmp_path)} verifyhost localhost" if secure else ""
    front = haproxy(server, "http", how, rules, accepts=f" ssl crt {tmp_path}/both.pem")
    environ = ask(front, tls=credentials.client())
    assert seen(environ) == (CLIENT, "https")
    assert environ["HTTP_X_FORWARDED_FOR"] == CLIENT
    assert environ["HTTP_HOST"] == "shop"
    assert environ["HTTP_X_FORWARDED_PROTO"] == "https"
    assert set(environ) & FIELDS == {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"}
    assert environ.get("SSL_PROTOCOL") == ("TLSv1.3" if secure else None)


def test_a_proxy_that_says_http_on_a_tls_connection_is_believed(
    program: StartProgram, nginx: Front, files: Files
) -> None:
    """The scheme is the client's, not that of the last hop."""
    server = program("raw:app", *TRUST, "--certfile", files.certificate, "--keyfile", files.key)
    rules = "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;"
    assert seen(ask(nginx(server, rules, "https"))) == (CLIENT, "http")


@pytest.mark.parametrize("appending", [False, True])
def test_nginx_speaks_for_its_client(program: StartProgram, nginx: Front, files: Files, appending: bool) -> None:
    server = program("raw:app", *TRUST)
    address = "$proxy_add_x_forwarded_for" if appending else "$remote_addr"
    rules = f"proxy_set_header X-Forwarded-For {address}; proxy_set_header X-Forwarded-Proto $scheme;"
    environ = ask(nginx(server, rules, files=files), tls=credentials.client())
    assert seen(environ) == (CLIENT, "https")
    assert environ["HTTP_X_FORWARDED_FOR"] == CLIENT
    assert set(environ) & FIELDS == {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"}


def test_forwarded_is_believed_where_it_is_what_the_proxy_sets(
    program: StartProgram, nginx: Front, files: Files
) -> None:
    server = program("raw:app", *TRUST, "--forwarded-fields", "forwarded")
    rules = 'proxy_set_header Forwarded "for=$remote_addr;proto=$scheme;host=\\"shop.example:443\\"";'
    environ = ask(nginx(server, rules, files=files), tls=credentials.client())
    assert seen(environ) == (CLIENT, "https")
    assert environ["HTTP_HOST"] == "shop.example:443"
    assert set(environ) & FIELDS == {"HTTP_FORWARDED"}


def test_a_client_that_breaks_the_list_of_forwarded_is_refused(program: StartProgram, haproxy: Front) -> None:
    """A proxy that adds to Forwarded lets its clients write the beginning: an open quote would swallow the rest."""
    server = program("raw:app", *TRUST, "--forwarded-fields", "forwarded")
    front = haproxy(server, "http", rules="http-request add-header Forwarded for=%[src];proto=http")
    assert seen(ask(front, headers="Forwarded: for=203.0.113.66\r\n")) == (CLIENT, "http")
    with Wire(front) as wire:
        assert wire.get(headers='Forwarded: for="\r\n').status == 400


def test_a_client_without_a_proxy_speaks_for_nobody(program: StartProgram) -> None:
    server = program("raw:app", *TRUST, "--forwarded-fields", ",".join(["x-forwarded-for", "x-forwarded-proto"]))
    environ = ask(server.address)
    assert seen(environ) == (CLIENT, "http")
    assert not set(environ) & FIELDS


def test_the_access_log_has_the_client(program: StartProgram, haproxy: Front) -> None:
    server = program("raw:app", *TRUST, "--access-log", "-")
    ask(haproxy(server, "http", rules="option forwardfor"))
    assert server.output.wait(r"(?m)^\S+ - - ").text.startswith(CLIENT)


def test_a_kept_connection_of_a_proxy_speaks_for_each_of_its_clients(program: StartProgram) -> None:
    """What is remembered of a connection's fields must not outlive them."""
    server = program("raw:app", *TRUST)
    with Wire(server.address) as wire:
        for client, proto in (("1.1.1.1", "https"), ("2.2.2.2", "http"), ("2.2.2.2", "http"), ("1.1.1.1", "https")):
            for _ in range(3):
                headers = f"X-Forwarded-For: {client}\r\nX-Forwarded-Proto: {proto}\r\n"
                assert seen(json.loads(wire.get("/environ", headers=headers).text)) == (client, proto)
        assert seen(json.loads(wire.get("/environ").text)) == ("127.0.0.1", "http")


# Proxies that are not on this machine

NOT_LOCAL = "127.0.0.5"  # where a proxy connects from, as one in another container does: the default does not name it
SAYS_BOTH = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;"


def test_the_log_names_the_flag_where_an_application_redirects_for_ever(
    program: StartProgram, nginx: Front, files: Files
) -> None:
    """Django is told of HTTPS by a field that is dropped, and sends its client to where it has come from."""
    server = program("django_secure:app")
    front = nginx(server, f"proxy_bind {NOT_LOCAL}; {SAYS_BOTH}", files=files)
    since = server.log.mark()
    for _ in range(3):
        with Wire(front, credentials.client()) as wire:
            answer = wire.get("/page", headers="Connection: close\r\n")
        assert (answer.status, answer.headers["Location"]) == (301, "https://test/page")
    told = server.log.wait(rf"warning .*X-Forwarded-Proto from {NOT_LOCAL} dropped", since).text
    assert f"--forwarded-allow-ips {NOT_LOCAL}" in told
    assert f"FORWARDED_ALLOW_IPS={NOT_LOCAL}" in told
    assert server.stop() == 0
    assert server.log.text().count(" dropped: ") == 1, "once, however many requests come"


def test_the_variable_of_platforms_ends_the_redirects(program: StartProgram, nginx: Front, files: Files) -> None:
    server = program("django_secure:app", environ={"FORWARDED_ALLOW_IPS": NOT_LOCAL})
    front = nginx(server, f"proxy_bind {NOT_LOCAL}; {SAYS_BOTH}", files=files)
    with Wire(socket.create_connection(front, BOUND, (CLIENT, 0)), credentials.client()) as wire:
        answer = wire.get("/page", headers="X-Forwarded-For: 203.0.113.66\r\nConnection: close\r\n")
    assert answer.status == 200
    assert json.loads(answer.text) == {"client": CLIENT, "uri": "https://test/page"}
    assert server.stop() == 0
    assert " dropped: " not in server.log.text()


def test_where_every_sender_is_believed_the_client_is_the_one_that_the_proxy_saw(
    program: StartProgram, nginx: Front
) -> None:
    """Platforms set it, whose proxies have no fixed addresses."""
    server = program("raw:app", environ={"FORWARDED_ALLOW_IPS": "*"})
    environ = ask(nginx(server, f"proxy_bind {NOT_LOCAL}; {SAYS_BOTH}"))
    assert seen(environ) == (CLIENT, "http")
    assert environ["HTTP_X_FORWARDED_FOR"] == CLIENT
    server.log.wait(rf"warning .*{CLIENT}, is taken as the client, though .*--forwarded-allow-ips '\*,{CLIENT}'")


@pytest.mark.parametrize("whole", [True, False])
def test_proxy_fix_counts_two_proxies_in_a_whole_list(
    program: StartProgram, haproxy: Front, nginx: Front, whole: bool
) -> None:
    """Without it the list ends at the first proxy that forkserver does not know, and ProxyFix finds too few."""
    fields = ("--forwarded-fields", "x-forwarded-for=whole,x-forwarded-proto") if whole else ()
    server = program("two_proxies:app", *TRUST, *fields)
    inner = nginx(server, SAYS_BOTH)
    front = haproxy(At(inner), "http", f"source {NOT_LOCAL}", "option forwardfor")
    environ = ask(front, headers="X-Forwarded-For: 203.0.113.66\r\n")
    assert environ["REMOTE_ADDR"] == (CLIENT if whole else NOT_LOCAL)
    assert environ["HTTP_X_FORWARDED_FOR"].split(", ")[-2:] == ([CLIENT, NOT_LOCAL] if whole else [NOT_LOCAL])


def test_the_path_of_the_application_is_what_the_proxy_says(program: StartProgram, nginx: Front) -> None:
    """gunicorn's SCRIPT_NAME, a field with an underscore, which no other sender can set."""
    server = program("raw:app", *TRUST, "--forwarded-fields", "x-forwarded-for,script_name", "--root-path", "/other")
    front = nginx(server, "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header SCRIPT_NAME /shop;")
    for target, path in (("/shop/environ", "/environ"), ("/environ", "/environ")):
        with Wire(front) as wire:
            found = json.loads(wire.get(target, headers="SCRIPT_NAME: /evil\r\n").text)
        assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["RAW_URI"]) == ("/shop", path, target)
        assert "HTTP_SCRIPT_NAME" not in found
    found = ask(server.address, headers="SCRIPT_NAME: /evil\r\n")
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/other", "/environ")
    with Wire(server.address) as wire:  # from 127.0.0.1, which is believed: a path that leads to another site
        assert wire.get("/environ", headers="SCRIPT_NAME: //evil\r\n").status == 400


def test_the_root_of_the_application_is_told(program: StartProgram) -> None:
    """Whether or not the proxy has cut it off the path."""
    server = program("raw:app", "--root-path", "/shop")
    with Wire(server.address) as wire:
        for target, path in (("/environ", "/environ"), ("/shop/environ", "/environ"), ("/environ/shopping", None)):
            found = json.loads(wire.get(target).text)
            assert found["SCRIPT_NAME"] == "/shop"
            assert found["PATH_INFO"] == (path or target)
