"""Proxies in front of programs, as their users run them, and what is asked of each of them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from harness import BOUND, needs
from harness.clients import Address, Wire
from harness.journal import from_lines
from harness.load import Load
from harness.program import Program

_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
{user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


_APACHE = """
{modules}
ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
ErrorLog /dev/stderr
LogLevel error
{user}
Listen {host}:{port}
Include {folder}/site.conf
"""
# Of Debian's own mods-enabled what serves requests, and what a2enmod proxy_http headers adds.
_APACHE_MODULES = ("mpm_event", "authz_core", "reqtimeout", "headers", "proxy", "proxy_http")
_APACHE_FOLDER = "/usr/lib/apache2/modules"
MIB = 1 << 20


def changed(shipped: Path, text: str, pattern: str, replacement: str) -> str:
    """``text``, from the ``shipped`` file, with one line changed; the pattern must be there exactly once."""
    new, count = re.subn(pattern, replacement, text)
    assert count == 1, f"{pattern} is {count} times in {shipped}"
    return new


def tell_two_hosts(front: Address, expected: str) -> None:
    """A request whose line names another host than its field: the application sees ``expected``, or the proxy refuses.

    RFC 9112 section 3.2.2: the line wins.
    """
    with Wire(front) as wire:
        wire.send(b"GET http://two.example/environ HTTP/1.1\r\nHost: one.example\r\nConnection: close\r\n\r\n")
        answer = wire.answer()
    assert answer.status == 400 or json.loads(answer.text)["HTTP_HOST"] == expected, answer


@contextmanager
def running(
    command: list[str], number: int, environ: dict[str, str] | None = None, ends: tuple[int, ...] = (0, -signal.SIGTERM)
) -> Iterator[subprocess.Popen[bytes]]:
    """A proxy that inherits its listener, ``number``, until TERM; ``ends`` are the statuses it may have then."""
    proxy = subprocess.Popen(command, env=environ, pass_fds=[number], stdin=subprocess.DEVNULL)
    try:
        yield proxy
    finally:
        proxy.terminate()
        assert proxy.wait(BOUND) in ends


@contextmanager
def nginx(folder: Path, site: str, number: int) -> Iterator[subprocess.Popen[bytes]]:
    """nginx with ``site``, on the listener ``number``, which it inherits as in its own upgrades."""
    program = needs.program("nginx")
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, user=user))
    (folder / "site.conf").write_text(site)
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with running(command, number, {"NGINX": f"{number};"}, ends=(0,)) as proxy:
        yield proxy


@contextmanager
def _at(address: tuple[str, int], command: list[str]) -> Iterator[None]:
    """A proxy that makes its own listener at ``address``, until TERM."""
    reading, writing = os.pipe()
    proxy = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing)
    os.close(writing)
    said = from_lines(command[0], reading)
    try:
        said.until(lambda: said.ended or _listens(address), f"a listener of {command[0]}")
        assert not said.ended, said.text()
        yield
    finally:
        proxy.terminate()
        status = proxy.wait(BOUND)
        said.join()
        assert status == 0, said.text()


def _listens(address: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) == 0


@contextmanager
def apache(folder: Path, site: str, address: tuple[str, int]) -> Iterator[None]:
    """Apache with ``site`` at ``address``, which nobody can pass to it as a socket."""
    program = needs.program("apache2")
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    modules = "\n".join(f"LoadModule {name}_module {_APACHE_FOLDER}/mod_{name}.so" for name in _APACHE_MODULES)
    host, port = address
    (folder / "apache.conf").write_text(_APACHE.format(folder=folder, modules=modules, user=user, host=host, port=port))
    (folder / "site.conf").write_text(site)
    command = [program, "-d", str(folder), "-f", str(folder / "apache.conf"), "-D", "FOREGROUND"]
    with _at(address, command):
        yield


@contextmanager
def varnish(folder: Path, vcl: str, address: tuple[str, int]) -> Iterator[None]:
    """Varnish with ``vcl`` at ``address``, which nobody can pass to it as a socket."""
    program = needs.program("varnishd")
    (folder / "site.vcl").write_text(vcl)
    own = ["-n", str(folder / "varnish"), "-j", "none", "-T", "none", "-p", "vsl_space=1M"]
    command = [program, "-F", *own, "-a", "{}:{}".format(*address), "-f", str(folder / "site.vcl"), "-s", "malloc,16m"]
    with _at(address, command):
        yield


def serve_through_reloads_and_restarts(front: Address, start: Callable[[], Program]) -> None:
    """Ask through a proxy while the service reloads, stops and starts again: nothing is lost, every status is 200.

    ``start`` starts the service on a listener that outlives it, as a socket unit's does. A proxy may repeat a GET that
    met a closed connection, but not a POST.
    """
    program = start()
    kept = "Cookie: not=cached\r\n"
    gets = Load(front, clients=4, headers=kept)
    posts = Load(front, clients=4, target="/echo", headers=kept, method="POST", body=b"a form" * 100)
    with gets, posts:
        _both(gets, posts, 100)
        for _ in range(3):
            program.reload()
            _both(gets, posts, 50)
        for _ in range(2):
            assert program.stop() == 0
            program = start()
            _both(gets, posts, 50)
    for load in (gets, posts):
        assert load.lost == []
        assert {answer.status for answer in load.answers} == {200}


def _both(gets: Load, posts: Load, count: int) -> None:
    gets.more(count)
    posts.more(count)


def refuse_uploads(front: Address, count: int = 20) -> None:
    """Upload more than ``--max-body 1048576`` allows: the refusal of the service arrives, and no 502."""
    assert [_upload(front, 8 * MIB) for _ in range(count)] == [413] * count


def _upload(front: Address, size: int) -> int:
    """The status that an upload is answered with."""
    with Wire(front) as wire:
        wire.send(f"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n".encode())
        try:
            wire.send(bytes(size))
        except ConnectionError:  # the proxy has answered, and reads no more
            pass
        return wire.answer().status


def replace_one_by_one(
    addresses: list[str],
    machine: Callable[[str], Program],
    in_front: Callable[..., AbstractContextManager[Address]],
) -> None:
    """Have two machines behind a proxy replaced, one after the other, under load: nothing may be lost."""
    first, second = map(machine, addresses)
    with in_front(*addresses) as front, Load(front, clients=8) as load:
        load.more(200)
        assert first.stop() == 0
        load.more(200)
        (worker,) = machine(addresses[0]).workers()
        load.until(lambda: load.answers[-1].body.endswith(f" {worker.pid}"), "an answer of the new machine")
        assert second.stop() == 0
        load.more(200)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}
